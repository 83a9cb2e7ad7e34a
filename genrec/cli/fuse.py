"""`genrec fuse`: how much the language model and the prior count, fitted to what people chose last."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path

import click

from genrec.cli._common import json_option, print_json, workspace_option
from genrec.errors import ConfigError


@click.command("fuse")
@workspace_option
@click.option("--held-out", default=0.1, show_default=True, help="Share of all moments, the last ones, to fit by.")
@click.option("--cases", default=500, show_default=True, help="Most people to fit to, and most others to judge by.")
@click.option("--engine", metavar="NAME", help="What judges: auto, vllm or transformers.")
@json_option
def command(workspace: Path, held_out: float, cases: int, engine: str | None, as_json: bool) -> None:
    """Fit how much the language model and the prior count, and answer so from now on.

    Two numbers, gamma of the model and beta of the prior, under which half of the people's last choices are likeliest;
    the other half judges. Nothing is trained: the model may be an adapter in use, whose card gets the new weights, or
    the model as it is, whose weights become an adapter of their own (genrec adapters list).
    """
    if not 0 < held_out < 1 or cases < 1:
        raise ConfigError("held-out is a share between 0 and 1, and cases at least 1")
    from genrec.workspace import open_workspace

    say = (lambda line: click.echo(line, err=True)) if as_json else click.echo
    with open_workspace(workspace) as opened:
        session = opened.training(held_out=held_out, n_cases=cases, engine=engine, say=say)
        old, since = opened.card, opened.adapter
        if old and old.method != "none" and datetime.fromisoformat(old.data["before"]) > session.split.cut:
            raise ConfigError(
                f"the adapter {old.name!r} has learned from what happened until {old.data['before']}, and would seem "
                f"surer than it is of what happened after {session.split.cut.isoformat()}",
                hint="Lower --held-out, or bring in newer events.",
            )
        taken = {one.name for one in opened.adapter_folders()}
        name = next(name for n in itertools.count(1) if (name := f"fusion-{n}") not in taken)
        opened.adapters.mkdir(exist_ok=True)
        card = session.fuse(name, opened.adapters / name, since=since)
        if since is None and card.metrics["both - prior"]["NDCG@10"]["difference"] > 0:
            opened.use_adapter(card.name)
            say(f"In use from now on: {card.name}. genrec adapters use none goes back.")
        elif since is None:
            say(
                f"Not put to use: on these people it is no better than the prior alone. genrec adapters use {card.name}"
            )
        say(f"gamma {card.gamma}, beta {card.beta}, with the prior {card.prior}")
        if as_json:
            print_json({"adapter": card.name, "gamma": card.gamma, "beta": card.beta, "metrics": card.metrics})
