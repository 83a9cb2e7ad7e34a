"""`genrec media`: pictures, sounds and texts of items, read once and kept as words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from genrec.cli._common import json_option, plain, print_json, progress, workspace_option

EXAMPLES = 3
"""Readings that are shown of each reader."""


@click.command("media")
@workspace_option
@json_option
def command(workspace: Path, as_json: bool) -> None:
    """Put pictures, sounds and texts of items into words.

    Items name their files by an attribute; genrec.toml says which reader reads which attribute and in which folder the
    files are. What was read before is not read again. Priors then know the words (docs/media.md); prompts stay as they
    are. Files that are missing or broken are counted, with the reason, and so is a reader that cannot be used.

    \b
    [media.ocr]
    attribute = "image"
    folder = "pictures"
    """  # noqa: D301  (click's own mark for lines that are not to be wrapped)
    from genrec.workspace import open_workspace

    with open_workspace(workspace) as opened, progress("reading media") as advance:
        outcomes = opened.read_media(advance=advance)
    if as_json:
        print_json({name: asdict(outcome) for name, outcome in outcomes.items()})
        return
    for name, outcome in outcomes.items():
        click.echo(
            f"{name}: {outcome.n_read:,} read, {outcome.n_unchanged:,} unchanged, {outcome.n_missing:,} missing, "
            f"{outcome.n_failed:,} failed"
        )
        for item_id, words in list(outcome.examples.items())[:EXAMPLES]:
            click.echo(f"  {plain(item_id)}: {words or '(nothing to say)'}")
        for line in outcome.reasons:
            click.secho(f"  {plain(line)}", fg="yellow", err=True)
        if outcome.unusable:
            click.secho(f"  cannot be used: {plain(outcome.unusable)}", fg="red", err=True)
