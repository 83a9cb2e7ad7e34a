"""`genrec models`: list models and fetch them."""

from __future__ import annotations

import click

from genrec.cli._common import json_option, print_json, progress, table
from genrec.errors import ModelError
from genrec.models import fetch, model_folder
from genrec.packaged import ALIASES


@click.group("models")
def command() -> None:
    """List models and fetch them."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the models that have a short name, with the folder of those fetched."""
    rows = [
        {
            "name": alias,
            "model": model.title,
            "kind": model.kind,
            "licence": model.licence,
            "download_MB": round(model.n_bytes / 1e6),
            "folder": _folder(alias),
        }
        for alias, model in ALIASES.items()
    ]
    if as_json:
        print_json(rows)
        return
    click.echo(table(rows))
    click.echo("\nA Hugging Face id (owner/name) or a local model folder works wherever a name does.")


def _folder(alias: str) -> str | None:
    try:
        return str(model_folder(alias))
    except ModelError:
        return None


@command.command("get")
@click.argument("name")
@json_option
def get(name: str, as_json: bool) -> None:
    """Fetch the model NAME (an alias or a Hugging Face id), unless it is here already."""
    folder = fetch(name, progress)
    if as_json:
        print_json({"name": name, "folder": folder})
    else:
        click.echo(f"{name} is in {folder}")
