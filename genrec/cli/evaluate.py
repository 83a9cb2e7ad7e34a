"""`genrec evaluate`: how good recommendations are, judged by what people chose last."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli._common import json_option, print_json, progress, table, workspace_option
from genrec.errors import ConfigError

if TYPE_CHECKING:
    from genrec.recommender import Recommender
    from genrec.workspace import Workspace


@click.command("evaluate")
@workspace_option
@click.option("--held-out", default=0.1, show_default=True, help="Share of all moments, the last ones, to judge by.")
@click.option("--cases", default=500, show_default=True, help="Most people to judge by, one choice each.")
@click.option("--engine", metavar="NAME", help="auto, vllm, transformers, or none for the priors alone.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the JSON to this file.")
@json_option
def command(workspace: Path, held_out: float, cases: int, engine: str | None, out: Path | None, as_json: bool) -> None:
    """Say how good recommendations are: each prior, the model alone, and the settings' prior and the model together.

    What happened last is held out: priors are fitted to what came before, and each person's first choice after it is
    looked for on exact lists over the whole catalogue. Brackets are 95 % intervals, bootstrapped over people; "tied"
    means that the interval of a paired difference holds zero.
    """
    if not 0 < held_out < 1 or cases < 1:
        raise ConfigError("held-out is a share between 0 and 1, and cases at least 1")
    from genrec.evaluation.judge import judge
    from genrec.workspace import open_workspace

    with open_workspace(workspace) as opened:
        split = opened.split(held_out=held_out, n_cases=cases)
        if opened.card and datetime.fromisoformat(opened.card.data["before"]) > split.cut:
            raise ConfigError(
                f"the adapter {opened.card.name!r} has learned from what happened until {opened.card.data['before']}, "
                f"and would be judged by what happened after {split.cut.isoformat()}",
                hint="Lower --held-out, bring in newer events, or judge without it: genrec adapters use none",
            )
        ways = _ways(opened, split.cut, engine)
        found = judge(ways, split, progress=lambda name, n: progress(f"judging {name}", n))
        found["settings"] = {"model": opened.settings.model, "adapter": opened.adapter_name, "held_out": held_out}
    if out:
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['n']} people, judged by their first choice after {found['cut']}\n")
    click.echo(table([{"": name} | _figures(row) for name, row in found["ways"].items()]))
    for kind in next(iter(found["ways"].values()))["slices"]:
        rows = [{"": name} | _figures(row["slices"][kind]) for name, row in found["ways"].items()]
        click.echo(f"\n{kind}: {found['ways'][rows[0]['']]['slices'][kind]['n']}\n{table(rows)}")
    click.echo()
    for name, parts in found["differences"].items():
        said = [
            f"{metric} {part['difference']:+.4f} [{part['interval'][0]:+.4f}, {part['interval'][1]:+.4f}]"
            + (" tied" if part["tied"] else "")
            for metric, part in parts.items()
        ]
        click.echo(f"{name}: {', '.join(said)}")


def _ways(opened: Workspace, cut: datetime, engine: str | None) -> dict[str, Callable[[], Recommender]]:
    """What is compared, the prior first; recommenders are made when it is their turn."""
    first = opened.card.prior if opened.card else opened.settings.prior
    prior = opened.fitted_prior(first, before=cut)

    def by_prior(name: str) -> Recommender:
        fitted = prior if name == first else opened.fitted_prior(name, before=cut)
        return opened.recommender(engine="none", prior=fitted)

    names = [first, *(name for name in opened.registry.names("priors") if name != first)]
    ways: dict[str, Callable[[], Recommender]] = {name: partial(by_prior, name) for name in names}
    if opened.engine_name(engine) != "none":
        ways["model"] = partial(opened.recommender, engine=engine, scoring="masked", prior=prior)
        ways["both"] = partial(opened.recommender, engine=engine, scoring="fused", prior=prior)
    return ways


def _figures(row: dict[str, Any]) -> dict[str, str]:
    """A row's figures with their intervals."""
    return {metric: f"{row[metric]:.3f} [{low:.3f}, {high:.3f}]" for metric, (low, high) in row["interval"].items()} | (
        {"s a person": f"{row['seconds_a_person']:.3f}"} if "seconds_a_person" in row else {}
    )
