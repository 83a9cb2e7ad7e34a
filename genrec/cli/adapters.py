"""`genrec adapters`: what training made, and which of it is in use."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from genrec.cli._common import json_option, print_json, table, workspace_option
from genrec.errors import ModelError


@click.group("adapters")
def command() -> None:
    """List, show and choose what training made of the language model."""


@command.command("list")
@workspace_option
@json_option
def list_(workspace: Path, as_json: bool) -> None:
    """List the workspace's adapters."""
    from genrec.finetune.adapter import Card
    from genrec.workspace import open_workspace

    with open_workspace(workspace) as opened:
        rows = []
        for folder in opened.adapter_folders():
            try:
                card = Card.read(folder)
            except ModelError as error:
                rows.append(
                    {"name": folder.name, "in use": False, "made": f"broken: {error}", "base": "", "NDCG@10": None}
                )
                continue
            figures = card.metrics.get("both", {})
            rows.append(
                {
                    "name": folder.name,
                    "in use": opened.adapter_name == folder.name,
                    "made": card.created_at,
                    "base": card.base,
                    "NDCG@10": figures.get("NDCG@10"),
                }
            )
    if as_json:
        print_json(rows)
    else:
        click.echo(table(rows) or "No adapters yet: genrec train")


@command.command("show")
@click.argument("name")
@workspace_option
def show(name: str, workspace: Path) -> None:
    """Print an adapter's card as JSON."""
    from genrec.finetune.adapter import Card
    from genrec.workspace import open_workspace

    with open_workspace(workspace) as opened:
        print_json(asdict(Card.read(opened.adapters / name)))


@command.command("use")
@click.argument("name")
@workspace_option
def use(name: str, workspace: Path) -> None:
    """Answer with an adapter from now on; none goes back to the model as it is."""
    from genrec.workspace import open_workspace

    with open_workspace(workspace, adapter="none") as opened:
        opened.use_adapter(name)
    click.echo("The model as it is from now on." if name == "none" else f"{name} from now on.")
