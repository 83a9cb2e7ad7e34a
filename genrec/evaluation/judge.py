"""What ways to recommend are worth: the places of what people chose, by way and by slice, with intervals and verdicts.

Each case is asked as serving would be asked, at the instant of the choice, with nothing told of its place or device.
Knows recommenders and cases; where both come from is `genrec.workspace`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genrec.evaluation.metrics import difference, summary
from genrec.evaluation.split import Split
from genrec.history import History
from genrec.recommendation import Query
from genrec.recommender import Recommender

WITHIN = 20
"""How far down a list is looked."""
_AT_ONCE = 64  # cases between two signs of life


def places(
    recommender: Recommender, cases: Sequence[History], *, advance: Callable[[int], None] = lambda n: None
) -> list[int]:
    """Find the place of the first item of each case's last moment, exactly up to `WITHIN`.

    Args:
        recommender: Who is asked.
        cases: People up to the choice that judges.
        advance: Is told how many more cases are done.
    """
    found: list[int] = []
    for start in range(0, len(cases), _AT_ONCE):
        some = cases[start : start + _AT_ONCE]
        queries = [Query(user_id=case.user_id, at=case.moments[-1].at) for case in some]
        found += recommender.places(queries, [case.moments[-1].item_ids[0] for case in some], within=WITHIN)
        advance(len(some))
    return found


def slices(split: Split, cases: Sequence[History]) -> dict[str, np.ndarray]:
    """Which cases are of which kind. Shape ``(n_cases,)`` each, bool."""
    known = {item for person in split.learn for moment in person.moments for item in moment.item_ids}
    target = [case.moments[-1].item_ids[0] for case in cases]
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
    ways: Mapping[str, Callable[[], Recommender]],
    split: Split,
    *,
    progress: Callable[[str, int], Any],
) -> dict[str, Any]:
    """Compare ways to recommend on the same cases.

    Args:
        ways: Makes each recommender when it is its turn; the first is what the others are compared with.
        split: The cases.
        progress: Given a way and the number of cases, a context manager that gives what `places` calls `advance`.

    Returns:
        ``cut`` and ``n``; ``ways``, figures by way with their intervals, seconds a person and figures by slice; and
        ``differences`` to the first way, paired, each with whether it is tied.
    """
    cases = split.judge
    people = [case.user_id for case in cases]
    kinds = slices(split, cases)
    found: dict[str, list[int]] = {}
    rows: dict[str, Any] = {}
    for name, make in ways.items():
        recommender = make()
        with progress(name, len(cases)) as advance:
            started_s = time.perf_counter()
            found[name] = places(recommender, cases, advance=advance)
        ranks = np.array(found[name])
        rows[name] = {
            **summary(ranks, people),
            "seconds_a_person": round((time.perf_counter() - started_s) / len(cases), 4),
            "slices": {
                kind: summary(ranks[which], [p for p, w in zip(people, which, strict=True) if w])
                for kind, which in kinds.items()
                if which.any()
            },
        }
    first, *others = found
    return {
        "cut": split.cut.isoformat(),
        "n": len(cases),
        "ways": rows,
        "differences": {f"{name} - {first}": difference(found[name], found[first], people) for name in others},
    }
