"""`genrec plugins`: what is installed, and what is broken."""

from __future__ import annotations

import click

from genrec.cli._common import json_option, print_json
from genrec.plugins import installed


@click.group("plugins")
def command() -> None:
    """List what is installed, and what is broken."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the installed plugins with what they offer, and the broken ones with the reason."""
    registry = installed()
    if as_json:
        working = [{**_split(p.owner), "offers": p.offers, "broken": None} for p in registry.plugins]
        print_json(working + [{**_split(b.owner), "offers": {}, "broken": b.reason} for b in registry.broken])
        return
    for plugin in registry.plugins:
        click.echo(plugin.owner)
        for kind, names in sorted(plugin.offers.items()):
            click.echo(f"  {kind:<10} {', '.join(names)}")
    for broken in registry.broken:
        click.secho(broken.owner, fg="red")
        click.echo(f"  broken     {broken.reason}")


def _split(owner: str) -> dict[str, str]:
    name, _, version = owner.rpartition(" ")
    return {"name": name, "version": version}
