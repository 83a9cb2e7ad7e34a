"""`genrec init`: make a folder a workspace, and an example of it where that is asked for."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from genrec.cli._common import json_option, print_json
from genrec.cli._examples import EXAMPLES, MADE_UP, NOW
from genrec.config import create_workspace
from genrec.errors import ConfigError


@click.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--time-zone", metavar="ZONE", help="Where your people's clocks are, e.g. Europe/Berlin.")
@click.option("--country", metavar="CC", help="Whose public holidays count, two letters such as US.")
@click.option("--prompt", metavar="NAME", help="The prompt template.")
@click.option("--store", metavar="WHERE", help="A SQLite file, or a database URL such as env:DATABASE_URL.")
@click.option("--example", type=click.Choice([*EXAMPLES]), help="Write made-up data to try it with, and settings.")
@json_option
def command(folder: Path, example: str | None, as_json: bool, **values: str | None) -> None:
    """Make FOLDER (this one if omitted) a workspace: write its genrec.toml, never over another."""
    chosen = EXAMPLES[example] if example else None
    files = {folder / name: text for name, text in chosen.files().items()} if chosen else {}
    if taken := [str(path) for path in files if path.exists()]:
        raise ConfigError(f"{', '.join(taken)} is there already", hint="Choose a new folder for the example.")
    given = {name: value for name, value in values.items() if value is not None}
    file = create_workspace(folder, {**(chosen.settings if chosen else {}), **given})
    for path, text in files.items():
        path.write_text(text, encoding="utf-8", newline="")
    if as_json:
        made = {"workspace": folder.resolve(), "settings": file.resolve()}
        print_json(made | ({"example": [path.resolve() for path in files]} if files else {}))
        return
    click.echo(f"Wrote {file}.")
    where = "" if folder == Path() else f" --workspace {shlex.quote(str(folder))}"
    if chosen:
        tables = shlex.join(str(path) for path in files if path.suffix == ".csv")
        click.echo(f"Wrote an example of {example}: {tables}. {MADE_UP} {chosen.says}")
        click.echo(f"Next: genrec import{where} file {tables}")
        click.echo(f"Then: genrec recommend{where} {chosen.somebody} --engine none --at {NOW:%Y-%m-%dT%H:%MZ}")
        return
    click.echo(
        f"Next: genrec import{where} file … brings your items and events in; genrec doctor says what is missing."
    )
