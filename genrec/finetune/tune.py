"""A search for good training options: Optuna's trials, pruned where others were better at the same step, resumable.

A trial trains as `Session.run` does, judges by the negative log-probability of held-out choices under the fitted
weights of model and prior, and releases nothing. Knows Optuna; what is trained and judged is the session's business.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.errors import ConfigError, TrainingError
from genrec.finetune.methods import load_model
from genrec.finetune.options import Options
from genrec.finetune.session import Session
from genrec.finetune.weighing import choice_logits, fit_weights, mean_loss

if TYPE_CHECKING:
    import optuna

_RANGE = re.compile(r"(-?[\d.eE+-]+?)\.\.(-?[\d.eE+-]+)")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What may be tried of one option."""

    name: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()
    """These alone; a range where there are none."""

    @classmethod
    def read(cls, name: str, text: str, default: Any) -> Choice:
        """Read what was typed: ``0.0001..0.003`` for a range, ``8|16|32`` for some values.

        Raises:
            ConfigError: If it is neither.
        """
        kind = type(default) if isinstance(default, (int, float, str)) else int if name == "last_layers" else float
        try:
            if found := _RANGE.fullmatch(text):
                low, high = float(found[1]), float(found[2])
                if low < high and kind is not str:
                    return cls(name=name, low=low, high=high)
            elif "|" in text:
                return cls(name=name, values=tuple(kind(part.strip()) for part in text.split("|")))
        except ValueError:
            pass
        raise ConfigError(
            f"{name}={text} says not what to try", hint="Write it like learning_rate=0.0001..0.003 or rank=8|16|32."
        )

    def suggest(self, trial: optuna.Trial, default: Any) -> Any:
        """Let a trial choose; ranges over more than a factor of ten are tried by their logarithm."""
        if self.values:
            return trial.suggest_categorical(self.name, self.values)
        log = self.low > 0 and self.high / self.low > 10
        if isinstance(default, int) or self.name == "last_layers":
            return trial.suggest_int(self.name, round(self.low), round(self.high), log=log)
        return trial.suggest_float(self.name, self.low, self.high, log=log)


def tune(
    session: Session,
    options: Options,
    space: Sequence[Choice],
    folder: Path,
    *,
    n_trials: int,
    minutes_each: float = math.inf,
) -> optuna.Study:
    """Try options, going on with the trials that the folder's storage remembers.

    Args:
        session: What to train on and judge by.
        options: What all trials have in common.
        space: What they differ in.
        folder: Keeps ``study.db``.
        n_trials: Trials in all, those remembered included.
        minutes_each: When a trial stops training by itself.

    Returns:
        The study; its values are nats a target, lower is better.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="train",
        storage=f"sqlite:///{folder / 'study.db'}",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        load_if_exists=True,
    )
    study.sampler = optuna.samplers.TPESampler(seed=options.seed + len(study.trials))  # no first draw twice
    options = replace(options, eval_every=options.eval_every or 10)
    judge, fit = session.steps(session.judged, options), session.steps(session.cases(session.split.fit), options)
    defaults: Mapping[str, Any] = vars(options)

    def attempt(trial: optuna.Trial) -> float:
        tried = replace(options, **{one.name: one.suggest(trial, defaults[one.name]) for one in space})

        def look(step: int, loss: float) -> bool:
            trial.report(loss, step)
            return bool(trial.should_prune())

        checkpoints = folder / f"trial-{trial.number}"
        try:
            model = load_model(session.base)
            result = session.learn(model, tried, checkpoints, fit, max_minutes=minutes_each, on_look=look)
        finally:
            shutil.rmtree(checkpoints, ignore_errors=True)
        if trial.should_prune():
            raise optuna.TrialPruned
        gamma, beta, _ = fit_weights(choice_logits(result.model, fit), fit)
        nats = mean_loss(choice_logits(result.model, judge), judge, gamma, beta)
        session.say(f"trial {trial.number}: {nats:.4f} nats with {trial.params}")
        return nats

    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    n_left = n_trials - len(study.get_trials(states=finished))
    if n_left > 0:
        study.optimize(attempt, n_trials=n_left, catch=(TrainingError,))
    return study
