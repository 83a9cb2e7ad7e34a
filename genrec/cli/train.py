"""`genrec train`: a workspace's people become an adapter of its language model."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli._common import NameValue, json_option, print_json, workspace_option
from genrec.errors import ConfigError
from genrec.finetune.adapter import NEVER_MERGED, checkpoints_of

if TYPE_CHECKING:
    from genrec.finetune.options import Options


RESERVED = ("none", "current")
SETTING = NameValue("weight_decay=0.1")


@click.command("train")
@workspace_option
@click.option("--since", metavar="NAME", help="Let this adapter learn on, from what happened since it was trained.")
@click.option("--name", help="What to call the adapter; the next free one of adapter-1, adapter-2 … when omitted.")
@click.option(
    "--method",
    type=click.Choice(["lora", "adalora", "bottleneck", "prefix", "full"]),
    default="lora",
    show_default=True,
    help="A bottleneck and a prefix are served by the engine transformers alone.",
)
@click.option(
    "--rank", default=32, show_default=True, help="Rank of a LoRA's updates; width of a bottleneck; length of a prefix."
)
@click.option("--epochs", default=2.0, show_default=True, help="How often each person is seen.")
@click.option("--minutes", default=0.0, help="Stop training after so long, with a checkpoint to go on from.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="The highest.")
@click.option("--seed", default=0, show_default=True, help="Decides order and first weights.")
@click.option("--set", "more", type=SETTING, multiple=True, help="Any other option; --show-options lists them.")
@click.option("--show-options", is_flag=True, help="List what --set takes, and train nothing.")
@click.option("--held-out", default=0.1, show_default=True, help="Share of all moments, the last ones, to judge by.")
@click.option("--cases", default=200, show_default=True, help="Most people to judge by, and to fit weights to.")
@click.option("--engine", metavar="NAME", help="What judges: auto, vllm or transformers.")
@click.option("--use/--keep", default=True, show_default=True, help="Use it from now on, if it is better.")
@json_option
def command(
    workspace: Path,
    name: str | None,
    more: tuple[tuple[str, str], ...],
    show_options: bool,
    held_out: float,
    cases: int,
    minutes: float,
    engine: str | None,
    use: bool,
    since: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train an adapter on what people did, and say what it is worth.

    What happened last is held out and judges: the untuned model, the prior alone, the tuned model, and both together.
    Ctrl-C saves a checkpoint; the same command goes on from it. With --since, what is put to use must beat the adapter
    that it learned on from, too.
    """
    if show_options:
        for name_, kind, default, help_ in _options():
            click.echo(f"{name_:<15} {default!s:<12} {kind:<8} {help_}")
        return
    from genrec.workspace import open_workspace

    if name is not None and (not name or Path(name).name != name or name.startswith(".") or name in RESERVED):
        raise ConfigError(
            f"{name!r} cannot be an adapter's name", hint="It becomes a folder: letters, digits, - and _."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "genrec train is one process: several would each judge and write the adapter",
            hint="The loop alone, genrec.finetune.train.train, runs in several.",
        )
    options = read_options({key: str(value) for key, value in chosen.items()} | dict(more))
    say = (lambda line: click.echo(line, err=True)) if as_json else click.echo
    with open_workspace(workspace, adapter="none") as opened:
        if options.method in NEVER_MERGED:
            if engine not in (None, "transformers"):
                raise ConfigError(f"the engine {engine!r} cannot judge a {options.method}", hint="Leave --engine out.")
            engine = "transformers"
        name = name or _next_name(opened.adapters)
        if (opened.adapters / name).exists() and not (opened.adapters / checkpoints_of(name)).exists():
            raise ConfigError(
                f"there is an adapter {name!r} already, and one that is in use is not to be replaced",
                hint="Give another --name.",
            )
        session = opened.training(held_out=held_out, n_cases=cases, engine=engine, say=say)
        learn = session.split.learn
        say(f"{len(learn)} people before {session.split.cut:%Y-%m-%d %H:%M}; {opened.settings.model}, {options.method}")
        card, result = session.run(
            name,
            opened.adapters / name,
            options,
            since=opened.adapters / since if since else None,
            max_minutes=minutes or math.inf,
        )
        if result.interrupted:
            say(f"Stopped after step {result.n_steps} of {result.n_planned}; the same command goes on from there.")
        rivals = {"prior": "the prior alone"} | ({"before": since} if since else {})
        gain = {way: card.metrics[f"both - {way}"]["NDCG@10"]["difference"] for way in rivals}
        rival = min(gain, key=gain.__getitem__)
        if use and gain[rival] > 0:
            opened.use_adapter(name)
            say(f"In use from now on: {name}. genrec adapters use none goes back.")
        elif use:
            say(f"Not put to use: on these people it is no better than {rivals[rival]}. genrec adapters use {name}")
        if as_json:
            print_json({"adapter": str(opened.adapters / name), "metrics": card.metrics, "data": card.data})


def _next_name(adapters: Path) -> str:
    """The name of the one run that was stopped, to go on with it; else a free one."""
    stopped = [path for path in adapters.glob(checkpoints_of("adapter-*")) if path.is_dir()]
    if len(stopped) == 1:
        return stopped[0].name[1:].removesuffix(".checkpoints")
    return next(name for n in itertools.count(1) if not (adapters / (name := f"adapter-{n}")).exists())


def _options() -> list[tuple[str, str, Any, str]]:
    """Name, type, default and sentence of every training option."""
    import ast
    import inspect

    from genrec.finetune.options import Options

    body = ast.parse(inspect.getsource(Options)).body[0]
    assert isinstance(body, ast.ClassDef)
    sentence: dict[str, str] = {}
    for one, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(one.target, ast.Name)
            sentence[one.target.id] = str(after.value.value)
    return [(f.name, _kind(f.default), f.default, sentence.get(f.name, "")) for f in fields(Options)]


def _kind(default: Any) -> str:
    return "number" if default is None else type(default).__name__


def read_options(texts: dict[str, str]) -> Options:
    """Options from what was typed.

    Raises:
        ConfigError: If there is no such option, or its value cannot be read.
    """
    from genrec.finetune.options import Options

    defaults = {f.name: f.default for f in fields(Options)}
    values: dict[str, Any] = {}
    for typed, text in texts.items():
        name = typed.replace("-", "_")
        if name not in defaults:
            raise ConfigError(f"no training option {name!r}", hint="genrec train --show-options")
        default = defaults[name]
        if text == "None":
            continue
        try:
            if isinstance(default, str):
                values[name] = text
            elif isinstance(default, int) or name == "last_layers":
                values[name] = int(text)
            else:
                values[name] = float(text)
        except ValueError as error:
            raise ConfigError(f"{name} is a number, not {text!r}", hint="genrec train --show-options") from error
    return Options(**values)
