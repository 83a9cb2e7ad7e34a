"""What in the data would flatter an evaluation: counted, and said in words.

A check looks at columns of events, at the cases that judge or at the catalogue, and gives a finding or nothing. Works
on values: a store that is cut in time and rows that others have split go the same way. What is a share is worth saying
from `WORTH_SAYING` on; what must not be at all, from the first. Knows no files and no language model; whether a model
knows the data by heart is asked in `genrec.evaluation.memory`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from genrec.catalog import Catalog
from genrec.decoding.search import place_by_weight
from genrec.evaluation.log import DAY_US, Log, microseconds
from genrec.events import Context
from genrec.history import History
from genrec.priors.base import Prior
from genrec.priors.popularity import Popularity
from genrec.priors.sequence import Sequence as SequencePrior

WORTH_SAYING = 0.01
"""Share from which something that real data have a little of is a finding."""
SOLVED = 0.1
"""Share of the choices among a heuristic's first ten from which the heuristic is a finding."""
WINDOW = 10
"""Events of a window, the choice included; of shorter cases, as many as the longest has."""
_HOUR_US = DAY_US // 24


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that would flatter an evaluation."""

    name: str
    n: int
    """How many were counted."""
    of: int
    """Of how many."""
    counted: str
    """What was counted, in words that go on from the two numbers."""
    means: str
    """What that means, one sentence."""
    do: str
    """What to do about it, one sentence."""


def audit(
    log: Log, cases: Sequence[History], catalog: Catalog, *, now: datetime | None = None, n_solved: int = 200
) -> tuple[Finding, ...]:
    """Look for what would flatter an evaluation.

    Takes seconds for a million events; heuristics are tried on a sample of the cases.

    Args:
        log: Everything that is known, with what is held out marked; nothing need be.
        cases: Who judges: the last moment of each is the choice. With none, only the events are looked at.
        catalog: The items; the same that `log` was made with.
        now: Events after it are in the future; this instant when omitted.
        n_solved: Most cases that heuristics are tried on; 0 leaves them out.

    Returns:
        The findings, in the order of the checks.
    """
    checks: list[Callable[[], Finding | None]] = [
        lambda: ties(log),
        lambda: order(log, catalog),
        lambda: midnights(log),
        lambda: in_the_future(log, now or datetime.now(UTC)),
        lambda: duplicates(log, catalog),
        lambda: items_of_the_future(log),
        lambda: learned_too_late(log),
        lambda: overlap(log),
        lambda: repeats(cases),
        lambda: windows(log, cases),
        lambda: solved(log, cases[:: max(1, -(-len(cases) // n_solved))] if n_solved else (), catalog),
    ]
    return tuple(finding for check in checks if (finding := check()))


def sentences(findings: Sequence[Finding]) -> list[str]:
    """Each finding in words, to be read beside a result."""
    return [f"{f.n:,} of {f.of:,} {f.counted} ({percent(f.n / f.of)}). {f.means} {f.do}" for f in findings]


def percent(share: float) -> str:
    """A share with as many digits as it is worth."""
    return f"{share:.0%}" if share == 0 or share >= 0.1 else f"{share:.1%}"


def ties(log: Log) -> Finding | None:
    """Events whose order is not known, because they share person and instant with another one."""
    size = np.diff(log.moment_starts, append=len(log))
    return _from_a_share(
        name="ties",
        n=int(size[size > 1].sum()),
        of=len(log),
        counted="events share person and instant with another one",
        means="The order inside an instant is not real, and what a model makes of it is an artefact of the file.",
        do="Predict a moment from earlier ones only, never one of its items from another.",
    )


def order(log: Log, catalog: Catalog) -> Finding | None:
    """Whether events of one instant are stored in an order that could be learned.

    Looked at are neighbours of one instant with different items: do they ascend by id, by title, in the catalogue; were
    the same two neighbours before, more often than they would be if each instant were shuffled; and if so, do they
    stand as they stood then?
    """
    a, b = _neighbours(log, log.by_moment)
    titles = [*catalog.titles, *([""] * (len(log.item_ids) - log.n_items))]
    found: list[tuple[str, int, int, float]] = []  # in words, how many of how many, how many by chance
    for key, rank in (
        ("are stored by item id", _rank(log.item_ids)),
        ("are stored by title", _rank(titles)),
        ("are stored as in the catalogue", np.arange(len(log.item_ids))),
    ):
        n, n_up = int((rank[a] != rank[b]).sum()), int((rank[a] < rank[b]).sum())
        found.append((key, max(n_up, n - n_up), n, n / 2))
    n_again, n_alike = _again(a, b, len(log.item_ids))
    found.append(("that were neighbours before stand as they stood then", n_alike, n_again, n_again / 2))
    shuffled = np.lexsort((np.random.default_rng(0).permutation(len(log)), log.at_us, log.user))
    n_by_chance, _ = _again(*_neighbours(log, shuffled), len(log.item_ids))
    found.append(("were neighbours before", n_again, len(a), n_by_chance))

    def errors_away(n: int, of: int, by_chance: float) -> float:
        return (n - by_chance) / math.sqrt(max(by_chance * (1 - by_chance / max(of, 1)), 1))

    key, n, of, by_chance = max(found, key=lambda one: errors_away(*one[1:]))
    if n < 1.1 * by_chance or errors_away(n, of, by_chance) < 4:
        return None
    return Finding(
        name="order",
        n=n,
        of=of,
        counted=f"neighbours of one instant {key}, where chance gives {percent(by_chance / of)}",
        means="A model that reads ties as they are stored can learn the file's order and be right for it.",
        do="Let ties be ordered by a hash, as genrec's histories are, in every method that is compared.",
    )


def midnights(log: Log) -> Finding | None:
    """Events of which only the day is known: at midnight far more than at other full hours."""
    hour, beyond = np.divmod(log.wall_us % DAY_US, _HOUR_US)
    at_hour = np.bincount(hour[beyond == 0], minlength=24)
    if at_hour[0] <= 4 * at_hour[1:].max():
        return None
    return _from_a_share(
        name="midnights",
        n=int(at_hour[0]),
        of=len(log),
        counted="events are stamped midnight to the microsecond",
        means="Of these only the day is known, so their part of day and the order within a day are made up.",
        do="Import full times if there are any; else switch the part of day off in the template and judge by days.",
    )


def in_the_future(log: Log, now: datetime) -> Finding | None:
    """Events that cannot have happened yet."""
    return _if_any(
        name="in the future",
        n=int((log.at_us > microseconds(now)).sum()),
        of=len(log),
        counted=f"events lie after {now:%Y-%m-%d %H:%M %Z}",
        means="They cannot have happened, and a cut in time puts them among what is predicted.",
        do="Look for a wrong clock, time zone or date format, and import them again.",
    )


def duplicates(log: Log, catalog: Catalog) -> Finding | None:
    """Items that are called the same."""
    titles = [" ".join(title.split()).casefold() for title in catalog.titles]
    count = Counter(titles)
    same = np.array([count[title] > 1 for title in titles] + [False] * (len(log.item_ids) - len(titles)), bool)
    events = same[log.item].mean() if len(log) else 0.0
    held_out = f" and {percent(same[log.item[log.held_out]].mean())} of what is held out" if log.held_out.any() else ""
    return _if_any(
        name="duplicate titles",
        n=int(same.sum()),
        of=log.n_items,
        counted="items share their title with another one",
        means=f"{percent(events)} of the events{held_out} name one of them: matched by title, either counts as a hit.",
        do="Match by item id, or merge them before the import.",
    )


def items_of_the_future(log: Log) -> Finding | None:
    """Items of the catalogue that nobody chose before the first held-out choice, and what is held out of them."""
    if log.held_out.all():
        return None
    known = np.bincount(log.item[~log.held_out], minlength=len(log.item_ids)) > 0
    later = np.bincount(log.item[log.held_out], minlength=len(log.item_ids)) > 0
    n, n_held_out = int((later & ~known)[: log.n_items].sum()), int(log.held_out.sum())
    n_cold = int((~known)[log.item[log.held_out]].sum())
    if n / max(log.n_items, 1) < WORTH_SAYING and n_cold / max(n_held_out, 1) < WORTH_SAYING:
        return None
    return _if_any(
        name="items of the future",
        n=n,
        of=log.n_items,
        counted="items of the catalogue are chosen for the first time in what is held out",
        means=f"{percent(n_cold / n_held_out)} of what is held out is of items that no training data show: counts "
        "cannot find them, and if they were new then, whoever ranks them needs a catalogue that was not there yet.",
        do="Report these choices apart, and say that the catalogue is that of the end.",
    )


def learned_too_late(log: Log) -> Finding | None:
    """Events that are learned from though they lie after the first held-out choice."""
    learned = ~log.held_out
    if learned.all():
        return None
    late = learned & (log.at_us > log.at_us[log.held_out].min()) & ~_shared(log)
    return _if_any(
        name="learned too late",
        n=int(late.sum()),
        of=int(learned.sum()),
        counted="events that are learned from lie after the first choice that is held out",
        means="The future helps to predict the past, which it will not do when it matters.",
        do="Split at one instant over everybody, or say beside the result that the split is not in time.",
    )


def overlap(log: Log) -> Finding | None:
    """What is held out and learned from all the same: person, item and instant agree."""
    return _if_any(
        name="overlap",
        n=int((_shared(log) & log.held_out).sum()),
        of=int(log.held_out.sum()),
        counted="held-out choices are among what is learned from, with person, item and instant",
        means="They are remembered, not predicted.",
        do="Take them out of what is learned from.",
    )


def repeats(cases: Sequence[History]) -> Finding | None:
    """Choices that the person had made before."""
    n = n_last = 0
    for case in cases:
        *before, now = case.moments
        n += any(now.item_ids[0] in moment.item_ids for moment in before)
        n_last += bool(before) and now.item_ids[0] in before[-1].item_ids
    return _from_a_share(
        name="repeats",
        n=n,
        of=len(cases),
        counted="held-out choices repeat what the person had before",
        means=f"{percent(n_last / max(len(cases), 1))} of all repeat the very moment before, which takes no model.",
        do="Report repeats and discoveries apart, beside own frequency.",
    )


def windows(log: Log, cases: Sequence[History]) -> Finding | None:
    """Windows of one log that stand on both sides of a split under different names.

    A window is the latest of a case's history and the choice, `WINDOW` events; leaking is one that shares all but a
    tenth of them, one after the other, with what is learned from somebody else: the same items at the same times of the
    week, which is all that windows without a date can be compared by.
    """
    width = min(WINDOW, 1 + max((sum(len(m.item_ids) for m in case.moments[:-1]) for case in cases), default=0))
    if width < 5 or log.held_out.all():
        return None
    n_shared = width - -(-width // WINDOW)
    ordered = all(len(moment.item_ids) == 1 for case in cases for moment in case.moments)
    learned = log.by_moment if ordered else np.lexsort((log.item, log.at_us, log.user))  # baskets have no order
    learned = learned[~log.held_out[learned]]
    user = log.user[learned]
    run = _runs(log.item[learned], log.at_us[learned], n_shared)
    whole = user[: len(run)] == user[n_shared - 1 :]
    run, user = run[whole], user[: len(run)][whole]
    by_run = np.lexsort((user, run))
    run, user = run[by_run], user[by_run]
    number = {name: code for code, name in enumerate(log.users)}
    code = {item_id: code for code, item_id in enumerate(log.item_ids)}
    n = n_answers = of = 0
    for case in cases:
        *before, now = [[(microseconds(m.at), code.get(item_id, -1)) for item_id in m.item_ids] for m in case.moments]
        past = [event for moment in before for event in sorted(moment)]
        if len(past) < width - 1:
            continue
        at_us, item = np.array([*past[1 - width :], now[0]], np.int64).T
        ours = _runs(item, at_us, n_shared)
        first, last = np.searchsorted(run, ours, "left"), np.searchsorted(run, ours, "right") - 1
        there = first <= last
        own = number.get(case.user_id, -1)
        others = (user[first[there]] != own) | (user[last[there]] != own)
        of += 1
        n += bool(others.any())
        n_answers += bool(there[-1] and others[-1])
    return _from_a_share(
        name="leaking windows",
        n=n,
        of=of,
        counted=f"held-out windows of {width} events share {n_shared} in a row with what is learned from somebody else",
        means=f"In {percent(n_answers / max(of, 1))} the choice is among the {n_shared}, so that it can be looked up; "
        "without times, plain habits look alike too.",
        do="Keep all windows of one log on one side of the split.",
    )


def solved(log: Log, cases: Sequence[History], catalog: Catalog) -> Finding | None:
    """How many choices counting alone finds, learned from the same events."""
    if not cases or log.held_out.all():
        return None
    ranks: dict[str, np.ndarray] = {}
    heuristics: dict[str, Prior] = {"popularity": Popularity(), "sequence": SequencePrior()}
    for name, prior in heuristics.items():
        prior.fit(catalog, [log.batch(~log.held_out)])
        ranks[name] = np.array([_place(prior, case, catalog) for case in cases])
    best = max(ranks, key=lambda name: int((ranks[name] < 10).sum()))
    n = int((ranks[best] < 10).sum())
    if n < SOLVED * len(cases):
        return None
    figures = " and ".join(
        f"{name} has HR@1 {(found < 1).mean():.3f} and HR@10 {(found < 10).mean():.3f}" for name, found in ranks.items()
    )
    return Finding(
        name="solved without a model",
        n=n,
        of=len(cases),
        counted=f"sampled choices are among the first ten of the prior {best!r}, without any language model",
        means=f"On this sample {figures}.",
        do="Claim only what a model adds to that: genrec evaluate shows them side by side.",
    )


def _place(prior: Prior, case: History, catalog: Catalog) -> int:
    row = catalog.row.get(case.moments[-1].item_ids[0])
    return len(catalog) if row is None else place_by_weight(prior.log_mass(case.before(-1), Context()), row)


def _if_any(*, n: int, **said: object) -> Finding | None:
    return Finding(n=n, **said) if n else None  # type: ignore[arg-type]


def _from_a_share(*, n: int, of: int, **said: object) -> Finding | None:
    return Finding(n=n, of=of, **said) if of and n >= WORTH_SAYING * of else None  # type: ignore[arg-type]


def _rank(texts: Sequence[str]) -> np.ndarray:
    """Place of each text among all in order; equal texts have one. Shape as `texts`, int64."""
    place = {text: n for n, text in enumerate(sorted(set(texts)))}
    return np.array([place[text] for text in texts], np.int64)


def _neighbours(log: Log, by_moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items that follow each other within a moment and differ. Shape ``(n,)`` each, int64."""
    first, then = by_moment[:-1], by_moment[1:]
    a, b = log.item[first], log.item[then]
    beside = (log.user[first] == log.user[then]) & (log.at_us[first] == log.at_us[then]) & (a != b)
    return a[beside], b[beside]


def _again(a: np.ndarray, b: np.ndarray, n_items: int) -> tuple[int, int]:
    """How many pairs were there before, either way round, and how many of them stood as they stood then."""
    pair = np.minimum(a, b) * n_items + np.maximum(a, b)
    by_pair = np.argsort(pair, kind="stable")
    again = pair[by_pair][1:] == pair[by_pair][:-1]
    up = (a < b)[by_pair]
    return int(again.sum()), int((up[1:] == up[:-1])[again].sum())


def _shared(log: Log) -> np.ndarray:
    """Which events have a twin on the other side of the split. Shape ``(n_events,)``, bool."""
    pair = log.user * len(log.item_ids) + log.item
    by_event = np.lexsort((log.at_us, pair))
    changes = (np.diff(pair[by_event]) != 0) | (np.diff(log.at_us[by_event]) != 0)
    group = np.empty(len(log), np.int64)
    group[by_event] = np.cumsum(np.r_[0, changes])
    held_out = np.bincount(group, log.held_out)
    both: np.ndarray = (held_out > 0) & (held_out < np.bincount(group))
    return both[group]


def _runs(item: np.ndarray, at_us: np.ndarray, length: int) -> np.ndarray:
    """A hash of each run of so many events: their items and times of the week. Shape ``(n - length + 1,)``, uint64."""
    event = (item * (7 * DAY_US) + at_us % (7 * DAY_US)).astype(np.uint64)
    event = (event ^ (event >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)  # spread the bits
    event ^= event >> np.uint64(29)
    n = max(0, len(event) - length + 1)
    total = np.zeros(n, np.uint64)
    for i in range(length):
        total = total * np.uint64(0xBF58476D1CE4E5B9) + event[i : i + n]
    return total
