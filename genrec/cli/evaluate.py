"""`genrec evaluate`: how good recommendations are, judged by what people chose last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from genrec.cli._common import json_option, print_json, progress, table, workspace_option
from genrec.errors import ConfigError

if TYPE_CHECKING:
    from genrec.evaluation.split import Split
    from genrec.recommender import Recommender
    from genrec.workspace import Workspace

LOOKS = "looks.jsonl"
"""File in a workspace with a line for each time that held-out choices were looked at."""


def _share(text: str) -> float | Literal["last"]:
    try:
        return "last" if text == "last" else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a share such as 0.1 nor last") from None


@click.command("evaluate")
@workspace_option
@click.option(
    "--held-out",
    metavar="SHARE|last",
    type=_share,
    default="0.1",
    show_default=True,
    help="Share of all moments, the last ones, to judge by; or last: everybody's last one, as published tables do.",
)
@click.option("--origins", default=1, show_default=True, help="Cuts in time, each judged by the share after it.")
@click.option("--cases", default=500, show_default=True, help="Most people to judge by at each, one choice each.")
@click.option("--lists", default=100, show_default=True, help="People of whom the whole list is judged, too.")
@click.option(
    "--prior",
    "others",
    metavar="NAME",
    multiple=True,
    default=("popularity", "sequence"),
    show_default=True,
    help="A prior to judge beside that of the settings; repeat for several, all for all.",
)
@click.option("--engine", metavar="NAME", help="auto, vllm, transformers, or none for the priors alone.")
@click.option(
    "--catalog",
    type=click.Choice(["known", "whole"]),
    default="known",
    show_default=True,
    help="Rank what was known at the cut, or also what came later, as published tables and --held-out last do.",
)
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write JSON, Markdown and HTML here.")
@json_option
def command(
    workspace: Path,
    held_out: float | Literal["last"],
    origins: int,
    cases: int,
    lists: int,
    others: tuple[str, ...],
    engine: str | None,
    catalog: str,
    report: Path | None,
    as_json: bool,
) -> None:
    """Say how good recommendations are: each prior, the model alone, and the settings' prior and the model together.

    What happened last is held out: priors are fitted to what came before, and each person's first choice after it is
    looked for on exact lists over all items that were known by then. With --held-out last everybody's last two moments
    are held out and the last is looked for, over the whole catalogue; others' future is learned from. Brackets are 95 %
    intervals, bootstrapped over people; "tied" means that the interval of a paired difference holds zero. A run that
    was stopped goes on when it is typed again.
    """
    fits = origins == 1 if held_out == "last" else held_out > 0 and held_out * origins < 1
    if not (origins >= 1 and cases >= 1 and lists >= 0 and fits):
        raise ConfigError(
            "held-out is a share between 0 and 1, also times origins, or last, which has one origin; cases and origins "
            "are at least 1",
            hint="For instance: genrec evaluate --held-out 0.1 --origins 3",
        )
    from genrec.evaluation.audit import audit
    from genrec.evaluation.audit import sentences as sentences_of
    from genrec.evaluation.judge import judge
    from genrec.evaluation.log import Log
    from genrec.evaluation.report import can_draw, sentences, tables, title, write
    from genrec.workspace import CACHE, open_workspace

    if report:
        can_draw()
    with open_workspace(workspace) as opened:
        if opened.engine_name(engine) == "chat":
            raise ConfigError("a model that writes titles gives no places", hint="--engine vllm, transformers or none")
        priors = _priors(opened, others)
        splits = (
            [opened.split(held_out="last", n_cases=cases)]
            if held_out == "last"
            else [
                opened.split(held_out=held_out * n, until=held_out * (n - 1), n_cases=cases)
                for n in range(1, origins + 1)
            ]
        )
        opened.check_unseen(splits[-1].cut)
        asked = {
            "model": opened.settings.model,
            "adapter": opened.adapter_name,
            "engine": opened.engine_name(engine),
            "held_out": held_out,
            "origins": origins,
            "cases": cases,
            "catalog": "whole" if held_out == "last" else catalog,
            "priors": priors,
        }
        card = (
            {"made": opened.card.created_at, "gamma": opened.card.gamma, "prior": opened.card.prior}
            if opened.card
            else {}
        )
        same = [
            opened.settings.model_dump(mode="json"),
            asked,
            card,
            opened.catalog.fingerprint,
            opened.store.summary(),
        ]
        key = hashlib.blake2b(repr(same).encode(), digest_size=8).hexdigest()
        found = judge(
            lambda split: _ways(opened, split, priors, engine, catalog == "known"),
            splits,
            priors=priors,
            n_lists=lists,
            training_s=opened.card.data.get("seconds", 0.0) if opened.card else 0.0,
            kept=workspace / CACHE / "evaluations" / f"{key}.jsonl",
            progress=lambda name, n: progress(f"judging {name}", n),
        )
        cuts = ["last"] if held_out == "last" else [split.cut.isoformat() for split in splits]
        n_looks = look(workspace / LOOKS, cuts, asked)
        found["settings"] = asked
        log = Log.read(opened.store.choices(), opened.catalog, time_zone=opened.settings.time_zone).cut(splits[0].ends)
        flattered = sentences_of(audit(log, splits[0].judge, opened.catalog, n_solved=0))
        found["notes"] = [
            f"Look number {n_looks} at what was held out here ({LOOKS} has them all).",
            *(f"What may flatter these figures: {sentence}" for sentence in flattered),
        ]
    if report:
        write(found, report)
    if as_json:
        print_json(found)
        return
    click.echo(title(found))
    for name, rows in tables(found):
        click.echo(f"\n{name}\n{table(rows)}")
    click.echo("\n" + "\n".join(sentences(found)))


def _priors(opened: Workspace, others: tuple[str, ...]) -> list[str]:
    """The priors that are judged, the one that would answer first."""
    first = opened.card.prior if opened.card else opened.settings.prior
    names = tuple(opened.registry.names("priors")) if "all" in others else others
    for name in names:
        opened.registry.get("priors", name)  # one that is typed wrong is said at once
    return list(dict.fromkeys((first, *names)))


def _ways(
    opened: Workspace, split: Split, priors: list[str], engine: str | None, known: bool
) -> dict[str, Callable[[], Recommender]]:
    """What is compared; recommenders are made when it is their turn."""
    if known:
        opened.catalog.retire(split.future)  # in memory, for as long as this command runs
    prior = opened.fitted_prior(priors[0], split=split)

    def by_prior(name: str) -> Recommender:
        fitted = prior if name == priors[0] else opened.fitted_prior(name, split=split)
        return opened.recommender(engine="none", prior=fitted)

    ways: dict[str, Callable[[], Recommender]] = {name: partial(by_prior, name) for name in priors}
    if opened.engine_name(engine) != "none":
        ways["model"] = partial(opened.recommender, engine=engine, scoring="masked", prior=prior)
        ways["both"] = partial(opened.recommender, engine=engine, scoring="fused", prior=prior)
    return ways


def look(file: Path, cuts: list[str], asked: dict[str, Any]) -> int:
    """Take down that held-out choices were looked at; how often these have been, this time included."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "cuts": cuts, **asked}
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
    return 1 + sum(bool(set(json.loads(one)["cuts"]) & set(cuts)) for one in lines)
