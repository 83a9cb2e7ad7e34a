"""`genrec tune`: which training options suit these people."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from genrec.cli._common import json_option, print_json, table, workspace_option
from genrec.cli.train import SETTING, read_options
from genrec.errors import ConfigError


@click.command("tune")
@workspace_option
@click.option("--trials", default=10, show_default=True, help="How many, those of earlier runs included.")
@click.option("--minutes-each", default=0.0, help="When a trial stops training by itself.")
@click.option("--try", "tried", type=SETTING, multiple=True, help="learning_rate=1e-4..3e-3, rank=8|16|32; repeat.")
@click.option("--set", "fixed", type=SETTING, multiple=True, help="What all trials have in common.")
@click.option("--held-out", default=0.1, show_default=True, help="Share of all moments, the last ones, to judge by.")
@click.option("--cases", default=200, show_default=True, help="Most people to judge by, and to fit weights to.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the trials into a PNG.")
@json_option
def command(
    workspace: Path,
    trials: int,
    minutes_each: float,
    tried: tuple[tuple[str, str], ...],
    fixed: tuple[tuple[str, str], ...],
    held_out: float,
    cases: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Try training options, and say which did best on people held out.

    Trials that are behind others at the same step are given up. Their results are kept in the workspace, so the same
    command goes on where it was stopped.
    """
    try:
        import optuna

        from genrec.finetune.options import Options
        from genrec.finetune.tune import Choice, tune
    except ImportError as error:
        raise ConfigError(
            f"tuning needs a package that is missing: {error.name}", hint="pip install 'genrec[tune]'"
        ) from error
    from genrec.workspace import CACHE, open_workspace

    defaults = {f.name: f.default for f in fields(Options)}
    tried = tuple((name.replace("-", "_"), text) for name, text in tried)
    if unknown := [name for name, _ in tried if name not in defaults]:
        raise ConfigError(f"no training option {unknown[0]!r}", hint="genrec train --show-options")
    space = [Choice.read(name, text, defaults[name]) for name, text in tried] or [
        Choice(name="learning_rate", low=1e-4, high=3e-3),
        Choice(name="rank", values=(8, 16, 32)),
    ]
    say = (lambda line: click.echo(line, err=True)) if as_json else click.echo
    with open_workspace(workspace, adapter="none") as opened:
        session = opened.training(held_out=held_out, n_cases=cases, say=say)
        folder = opened.folder / CACHE / "tune"
        options = read_options(dict(fixed))
        study = tune(session, options, space, folder, n_trials=trials, minutes_each=minutes_each or math.inf)
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    rows = [{"trial": t.number, "nats": t.value, **t.params} for t in sorted(done, key=lambda t: t.value or 0.0)]
    if plot is not None:
        _draw(rows, plot)
    if as_json:
        print_json(rows)
    elif rows:
        click.echo(table(rows[:10]))
        best = " ".join(f"--set {name}={value}" for name, value in (*fixed, *study.best_params.items()))
        click.echo(f"genrec train {best}")


def _draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Each trial's figure, and the best so far."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="trial", ylabel="nats a target, held out")
    by_trial = sorted(rows, key=lambda row: row["trial"])
    trials, nats = [row["trial"] for row in by_trial], [row["nats"] for row in by_trial]
    axes.plot(trials, nats, "o")
    axes.step(trials, [min(nats[: i + 1]) for i in range(len(nats))], where="post")
    figure.savefig(file, dpi=120)
