"""`genrec init`: make a folder a workspace."""

from __future__ import annotations

from pathlib import Path

import click

from genrec.cli._common import json_option, print_json
from genrec.config import create_workspace


@click.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--time-zone", metavar="ZONE", help="Where your people's clocks are, e.g. Europe/Berlin.")
@click.option("--country", metavar="CC", help="Whose public holidays count, two letters such as US.")
@click.option("--prompt", metavar="NAME", help="The prompt template.")
@click.option("--store", metavar="WHERE", help="A SQLite file, or a database URL such as env:DATABASE_URL.")
@json_option
def command(folder: Path, as_json: bool, **values: str | None) -> None:
    """Make FOLDER (this one if omitted) a workspace: write its genrec.toml, never over another."""
    file = create_workspace(folder, {name: value for name, value in values.items() if value is not None})
    if as_json:
        print_json({"workspace": folder.resolve(), "settings": file.resolve()})
        return
    click.echo(f"Wrote {file}.")
    where = "" if folder == Path() else f" --workspace {folder}"
    click.echo(
        f"Next: genrec import{where} file … brings your items and events in; genrec doctor says what is missing."
    )
