"""What ways to recommend are worth: the places of what people chose, by way and by slice, with intervals and verdicts.

Each case is asked as serving would be asked, at the instant of the choice, with nothing told of its place or device.
Knows recommenders and cases; where both come from is `genrec.workspace`'s business.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genrec.catalog import Catalog
from genrec.evaluation.metrics import calibration, coverage, difference, diversity, figures, ndcg, novelty, summary
from genrec.evaluation.split import Split
from genrec.history import History
from genrec.priors.text import Words
from genrec.recommendation import Query
from genrec.recommender import Recommender

WITHIN = 20
"""How far down a list is looked."""
N_SHOWN = 10
"""Length of the lists that are judged as a whole."""
_AT_ONCE = 64  # cases between two signs of life

Ways = Mapping[str, Callable[[], Recommender]]
"""Makes each recommender when it is its turn."""
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Given what is done and in how many units, a context manager that gives what is told of those done."""


@dataclass(kw_only=True)
class _Found:
    """What one way made of the cases so far."""

    places: list[int] = field(default_factory=list)
    seconds: float = 0.0
    n_tokens: int = 0


def places(recommender: Recommender, cases: Sequence[History]) -> list[int]:
    """Find the place of the first item of each case's last moment, exactly up to `WITHIN`."""
    queries = [Query(user_id=case.user_id, at=case.moments[-1].at) for case in cases]
    return recommender.places(queries, [_target(case) for case in cases], within=WITHIN)


def slices(split: Split, cases: Sequence[History]) -> dict[str, np.ndarray]:
    """Which cases are of which kind. Shape ``(n_cases,)`` each, bool."""
    known = {item for person in split.learn for moment in person.moments for item in moment.item_ids}
    target = [_target(case) for case in cases]
    had = [{item for moment in case.moments[:-1] for item in moment.item_ids} for case in cases]
    repeats = np.array([item in before for item, before in zip(target, had, strict=True)])
    cold = np.array([item not in known for item in target])
    gap_h = [
        (case.moments[-1].at - case.moments[-2].at).total_seconds() / 3600 if len(case.moments) > 1 else np.inf
        for case in cases
    ]
    soon, short = np.array(gap_h) < 24, np.array([len(case.moments) <= 5 for case in cases])
    return {
        "again": repeats,
        "new to the person": ~repeats & ~cold,
        "never seen before": cold & ~repeats,
        "within a day": soon,
        "later": ~soon,
        "up to 4 moments known": short,
    }


def judge(
    ways_of: Callable[[Split], Ways],
    splits: Sequence[Split],
    *,
    priors: Sequence[str],
    n_lists: int = 100,
    training_s: float = 0.0,
    kept: Path | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Compare ways to recommend on the same cases, from one or several origins in time.

    Args:
        ways_of: Gives the ways that know what a split lets them learn from.
        splits: The cases, of one origin each; what several judge is pooled.
        priors: Which of the ways need no model. The others are compared with the best of these, as it is found on the
            split's other cases, so that no one is chosen by those that judge.
        n_lists: Cases of each origin of which whole lists are judged, too.
        training_s: Seconds it took to train what is compared with the priors; 0 for nothing.
        kept: A file of what was found so far, for a run that goes on where another was stopped; removed in the end.
        progress: Is told how it goes.

    Returns:
        ``origins``, the cut of each and which choices judge; ``n``, cases; ``best_prior``; ``ways``, figures by way
        with their intervals, cost a person, ``lists``, ``calibration`` and figures by slice; ``differences`` to the
        best prior, paired, each with whether it is tied; ``buys``, what a model adds to it and costs.
    """
    memory = _Memory(kept)
    found: dict[str, _Found] = {}
    lists: dict[str, list[dict[str, Any]]] = {}
    fitted: dict[str, float] = {}
    kinds: dict[str, list[np.ndarray]] = {}
    for split in splits:
        background: _Background | None = None
        for kind, which in slices(split, split.judge).items():
            kinds.setdefault(kind, []).append(which)
        for name, make in ways_of(split).items():
            recommender = make()
            with progress(name, len(split.judge)) as advance:
                one = memory.places(f"{split.cut.isoformat()} {name}", recommender, split.judge, advance)
            so_far = found.setdefault(name, _Found())
            so_far.places += one.places
            so_far.seconds += one.seconds
            so_far.n_tokens += one.n_tokens
            if name in priors:
                gains = ndcg(np.array(places(recommender, split.fit)), 10)
                fitted[name] = fitted.get(name, 0.0) + float(gains.sum())
            if n_lists:
                background = background or _Background.of(recommender.catalog, split)
                lists.setdefault(name, []).append(_whole_lists(recommender, background, split.judge[:n_lists]))
    cases = [case for split in splits for case in split.judge]
    people = [case.user_id for case in cases]
    best = max(priors, key=lambda name: fitted[name])
    rows: dict[str, Any] = {}
    for name, one in found.items():
        ranks = np.array(one.places)
        rows[name] = {
            **figures(ranks, WITHIN),
            **summary(ranks, people),
            "seconds_a_person": round(one.seconds / len(cases), 4),
            "tokens_a_person": round(one.n_tokens / len(cases)),
            "slices": {
                kind: summary(ranks[chosen], [p for p, w in zip(people, chosen, strict=True) if w])
                for kind, chosen in ((kind, np.concatenate(parts)) for kind, parts in kinds.items())
                if chosen.any()
            },
            **(_pooled(lists[name]) if name in lists else {}),
        }
    memory.forget()
    return {
        "origins": [
            {
                "cut": split.cut.isoformat(),
                "target": split.target,
                "n": len(split.judge),
                "future_items": len(split.future),
            }
            for split in splits
        ],
        "n": len(cases),
        "best_prior": best,
        "ways": rows,
        "differences": {
            f"{name} - {best}": difference(one.places, found[best].places, people)
            for name, one in found.items()
            if name != best
        },
        "buys": {name: _buys(rows[name], rows[best], training_s) for name in rows if name not in priors},
    }


class _Memory:
    """Places by origin and way, in a file while a run is under way: a line of JSON for each stretch of cases."""

    def __init__(self, file: Path | None) -> None:
        self.file, self._lines = file, {}  # type: Path | None, dict[tuple[str, int], dict[str, Any]]
        for line in file.read_text(encoding="utf-8").splitlines() if file and file.is_file() else []:
            try:
                one = json.loads(line)
            except json.JSONDecodeError:  # a run was stopped while it wrote
                continue
            self._lines[one["way"], one["first"]] = one

    def places(
        self, way: str, recommender: Recommender, cases: Sequence[History], advance: Callable[[int], None]
    ) -> _Found:
        found = _Found()
        while some := cases[len(found.places) : len(found.places) + _AT_ONCE]:
            first = len(found.places)
            line = self._lines.get((way, first))
            if line is None:
                started_s, before = time.perf_counter(), _n_tokens(recommender)
                line = {"way": way, "first": first, "places": places(recommender, some)}
                line |= {"seconds": time.perf_counter() - started_s, "n_tokens": _n_tokens(recommender) - before}
                self._keep(line)
            found.places += line["places"]
            found.seconds += line["seconds"]
            found.n_tokens += line["n_tokens"]
            advance(len(line["places"]))
        return found

    def _keep(self, line: dict[str, Any]) -> None:
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as out:
                out.write("\n" + json.dumps(line))  # behind a line that was cut off, on one of its own

    def forget(self) -> None:
        if self.file:
            self.file.unlink(missing_ok=True)


def _n_tokens(recommender: Recommender) -> int:
    return recommender.engine.usage.n_computed_tokens if recommender.engine else 0


def _target(case: History) -> str:
    return case.moments[-1].item_ids[0]


@dataclass(frozen=True, kw_only=True)
class _Background:
    """What lists are seen against, the same for all ways."""

    taken: np.ndarray
    """How often each item was, in what is learned from. Shape ``(n_items,)``, int64."""
    like: Callable[[int], np.ndarray]
    """Likeness of a row's title to each."""

    @classmethod
    def of(cls, catalog: Catalog, split: Split) -> _Background:
        taken = np.zeros(len(catalog), np.int64)
        for person in split.learn:
            rows = [catalog.row[item] for moment in person.moments for item in moment.item_ids if item in catalog.row]
            np.add.at(taken, rows, 1)
        return cls(taken=taken, like=Words.of(catalog.titles).like)


def _whole_lists(recommender: Recommender, background: _Background, cases: Sequence[History]) -> dict[str, Any]:
    """What people would be shown, as sums that can be pooled."""
    catalog = recommender.catalog
    queries = [Query(user_id=case.user_id, at=case.moments[-1].at, k=N_SHOWN) for case in cases]
    answers = recommender.recommend_many(queries)
    lists = [[catalog.row[item.item_id] for item in answer.items] for answer in answers]
    pairs = [
        (item.probability, item.item_id == _target(case))
        for case, answer in zip(cases, answers, strict=True)
        for item in answer.items
        if item.probability is not None
    ]
    chosen = [[catalog.row[_target(case)]] for case in cases if _target(case) in catalog.row]
    return {
        "coverage": coverage(lists, len(catalog)),
        "novelty": novelty(lists, background.taken),
        "novelty_of_choices": novelty(chosen, background.taken),
        "diversity": diversity(lists, background.like),
        "pairs": pairs,
        "n": len(lists),
    }


def _pooled(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of whole lists over all origins."""
    pairs = [pair for part in parts for pair in part["pairs"]]
    names = ("coverage", "novelty", "novelty_of_choices", "diversity")
    pooled: dict[str, Any] = {name: round(float(np.mean([part[name] for part in parts])), 4) for name in names}
    found: dict[str, Any] = {"lists": {**pooled, "n": sum(part["n"] for part in parts)}}
    if pairs:
        probabilities, hits = zip(*pairs, strict=True)
        found["calibration"] = calibration(probabilities, hits)
    return found


def _buys(way: Mapping[str, Any], prior: Mapping[str, Any], training_s: float) -> dict[str, float]:
    """What a way adds to a prior, for how much waiting of each person and for how much training."""
    gained = way["NDCG@10"] - prior["NDCG@10"]
    added_ms = 1000 * (way["seconds_a_person"] - prior["seconds_a_person"])
    per_ms = round(gained / added_ms, 8) if added_ms > 0 else 0.0
    found = {"NDCG@10": round(gained, 4), "added_ms": round(added_ms, 1), "NDCG@10_per_ms": per_ms}
    if training_s:
        found |= {"training_s": training_s, "NDCG@10_per_hour": round(gained / training_s * 3600, 4)}
    return found
