"""Why an item is on the list: one thing that is known is left out, and the same question is asked again.

What is left out, model and prior both do without: an item of the history, with all that the person did with it, is in
neither the prompt nor the history that the prior sees; a word is not in the line for "now", though the prior still
knows what time it is. The catalogue and its filters stay as they are, and so does what everybody's events have taught
the prior, and what the prompt tells of friends. It is all events of an item and not one, for of eight purchases of milk
nobody misses the third. Changes do not add up: where two things say the same, either can be left out at little loss.

Under `fused` scoring each voice is left out as well, by its weight: an item has without the model what the prior alone
gives it, and without the prior what the model's share gives it, both renormalised in the trie as ever.

Makes the questions and reads the answers; knows no engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.catalog import Catalog
from genrec.context import FEATURES
from genrec.context.device import device
from genrec.context.place import place
from genrec.decoding.scoring import Scoring
from genrec.events import Context
from genrec.history import History
from genrec.recommendation import Evidence, RankedItem, Recommendation

ALL_WORDS = "all words of now"
MAX_ITEMS = 24
"""Most items of a history that are left out one by one: those on the list, up to half, then the latest."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The same question without one thing."""

    without: Evidence
    """What is left out; what that changes is not known yet."""
    history: History
    now: Context
    instead: Mapping[str, str] | None = None
    """By feature, what the line for "now" says instead of the word of its own."""
    scoring: Scoring | None = None
    """What a step is worth; the recommender's own when None."""


def variants(
    history: History,
    now: Context,
    listed: Sequence[str],
    *,
    catalog: Catalog,
    said: Mapping[str, str],
    scoring: Scoring | None,
    context_only: bool = False,
) -> Iterator[Variant]:
    """All that is left out for one person, in the order in which prompts share most of their beginnings.

    Args:
        history: What the person did; what the catalogue lacks says nothing and is not left out.
        now: Context of "now".
        listed: The items to be explained, by their ids.
        catalog: Tells the titles.
        said: The words of the line for "now" by feature; empty without a language model. Place and device are left out
            in any case, for a prior may know of them.
        scoring: What a step is worth; None without a language model.
        context_only: Whether the history stays whole.
    """
    if scoring is not None and scoring.name == "fused":
        for what, deaf in (("the model", replace(scoring, gamma=0.0)), ("the prior", replace(scoring, beta=0.0))):
            yield Variant(without=Evidence(kind="voice", what=what), history=history, now=now, scoring=deaf)

    words = {"place": place(now), "device": device(now)} | dict(said)
    known = [feature for feature in FEATURES if words.get(feature)]
    single = [(Evidence(kind="context", what=words[feature], feature=feature), [feature]) for feature in known]
    for without, features in [*single, (Evidence(kind="now", what=ALL_WORDS), known)]:
        if features:
            yield Variant(
                without=without,
                history=history,
                now=replace(
                    now,
                    place=None if "place" in features else now.place,
                    device=None if "device" in features else now.device,
                ),
                instead=dict.fromkeys(features, ""),
            )
    if context_only:
        return

    events = [(item, m.at) for m in history.moments for item in m.item_ids if item in catalog.row]
    first, last = dict(reversed(events)), dict(events)
    latest = sorted(last, key=last.__getitem__, reverse=True)
    tried = list(dict.fromkeys([*[item for item in listed if item in last][: MAX_ITEMS // 2], *latest]))[:MAX_ITEMS]
    for item in sorted(tried, key=first.__getitem__, reverse=True):
        title = catalog.items[catalog.row[item]].title
        yield _without(history, now, {item}, Evidence(kind="item", what=title, item_id=item))
    if others := set(last).difference(tried):
        what = f"all {len(others):,} other items" if len(others) > 1 else "one other item"
        yield _without(history, now, others, Evidence(kind="others", what=what))


def explained(
    answer: Recommendation, left_out: Sequence[Variant], weights: Sequence[np.ndarray], seconds: float
) -> Recommendation:
    """An answer with the evidence for each of its items.

    Args:
        answer: The answer.
        left_out: What was left out; nothing where there was nothing to leave out.
        weights: The items' log-probabilities in each variant, nats, shape ``(n_items_of_the_answer,)`` each.
        seconds: How long that took.
    """
    items = []
    for n, item in enumerate(answer.items):
        found = [
            replace(variant.without, change=item.logprob - float(weight[n]))
            for variant, weight in zip(left_out, weights, strict=True)
        ]
        items.append(replace(item, evidence=tuple(sorted(found, key=lambda one: -one.change))))
    notes = [
        f"Of the history, {MAX_ITEMS} items were left out one by one, {variant.without.what} together."
        for variant in left_out
        if variant.without.kind == "others"
    ]
    return replace(
        answer,
        items=tuple(items),
        timings_s={**answer.timings_s, "explain": seconds},
        notes=(*answer.notes, *notes),
    )


@dataclass(frozen=True, kw_only=True)
class Move:
    """How far an item's log-probability moved between two moments of one person, and what moved it; all in nats."""

    item_id: str
    title: str
    change: float
    """Of the log-probability: the later moment's minus the earlier's. The sum of `prior`, `past` and `words`."""
    prior: float | None
    """The change under the prior alone; None where one voice answered, so that there is nothing to tell apart."""
    past: float
    """What the rest of it is where neither line for "now" says a word: what the lines before them do to the model."""
    words: float
    """What all words of the later line for "now" do to the item, minus what those of the earlier one do."""
    alone: Mapping[str, float]
    """The same of each single word, by feature. Single words do not add up to `words`."""


def moves(before: Recommendation, after: Recommendation) -> list[Move]:
    """What moved items between two moments, those first whom the words of "now" raised most.

    Args:
        before: What was answered for the earlier moment, with evidence.
        after: The same for the later moment. An item that only one of them has is passed over: ask for candidates.
    """
    earlier = {item.item_id: item for item in before.items}
    found = [_move(earlier[item.item_id], item) for item in after.items if item.item_id in earlier]
    return sorted(found, key=lambda move: -move.words)


def _move(before: RankedItem, after: RankedItem) -> Move:
    was, now = ({(one.kind, one.feature or one.what): one.change for one in i.evidence or ()} for i in (before, after))
    by = {key: _gain(now.get(key, 0.0), was.get(key, 0.0)) for key in [*was, *now]}
    change, words = _gain(after.logprob, before.logprob), by.get(("now", ALL_WORDS), 0.0)
    prior = _gain(change, by["voice", "the model"]) if ("voice", "the model") in by else None
    return Move(
        item_id=after.item_id,
        title=after.title,
        change=change,
        prior=prior,
        past=_gain(_gain(change, prior or 0.0), words),
        words=words,
        alone={feature: by["context", feature] for feature in FEATURES if ("context", feature) in by},
    )


def _gain(now: float, was: float) -> float:
    """How much more it is; nothing where both are the same infinity, as for an item that is impossible both times."""
    return 0.0 if now == was else now - was


def _without(history: History, now: Context, items: Collection[str], what: Evidence) -> Variant:
    """A history in which these items never were; a moment that had nothing else is gone."""
    kept = [replace(m, item_ids=tuple(item for item in m.item_ids if item not in items)) for m in history.moments]
    dropped = [m.at for m in history.moments for item in m.item_ids if item in items]
    return Variant(
        without=replace(what, n_events=len(dropped), at=dropped[-1].astimezone(history.at.tzinfo)),
        history=replace(history, moments=tuple(moment for moment in kept if moment.item_ids)),
        now=now,
    )
