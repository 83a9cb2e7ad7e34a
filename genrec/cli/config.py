"""`genrec config`: every setting and where it comes from."""

from __future__ import annotations

from pathlib import Path

import click

from genrec.cli._common import json_option, print_json, table, workspace_option
from genrec.config import explain_settings, without_password


@click.command("config")
@workspace_option
@json_option
def command(workspace: Path, as_json: bool) -> None:
    """Show every setting of the workspace, its value and where it comes from.

    A value is taken from the first of: a command-line flag, a variable GENREC_… (GENREC_ENGINE,
    GENREC_HISTORY_MAX_EVENTS), genrec.toml in the workspace, genrec.toml in your own configuration
    folder, the default.
    """
    settings = explain_settings(workspace)
    if as_json:
        rows = [
            {"key": s.key, "value": without_password(s.value), "origin": s.origin, "help": s.help} for s in settings
        ]
        print_json(rows)
        return
    shown = [{"setting": s.key, "value": _text(without_password(s.value)), "comes from": s.origin} for s in settings]
    click.echo(table(shown))


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value) if value != "" else "-"
