"""Why an item is on the list: one thing that is known is left out, and the same question is asked again.

What is left out, model and prior both do without: an event is in neither the prompt nor the history that the prior
sees, a word is not in the line for "now", though the prior still knows what time it is. The catalogue and its filters
stay as they are, and so does what everybody's events have taught the prior. An event is one item of one moment and not
the whole moment, for a basket of twenty things explains nothing. Changes do not add up: of two events that say the
same, either can be left out at no loss.

Under `fused` scoring each voice is left out as well, by its weight: without the model the item has what the prior gives
it, without the prior what the model's weight times its log-probabilities come to, both renormalised as ever.

Makes the questions and reads the answers; knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.catalog import Catalog
from genrec.context import FEATURES, Feature
from genrec.context.device import device
from genrec.context.place import place
from genrec.decoding.scoring import Scoring
from genrec.events import Context
from genrec.history import History
from genrec.recommendation import Evidence, Recommendation

MAX_EVENTS = 32
"""Most events that are left out one by one, the latest; the older ones are left out together."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The same question without one thing."""

    without: Evidence
    """What is left out; what that changes is not known yet."""
    history: History
    now: Context
    silent: Feature | None = None
    """The feature of which the line for "now" says nothing."""
    scoring: Scoring | None = None
    """What a step is worth; the recommender's own when None."""


def variants(
    history: History, now: Context, *, catalog: Catalog, said: Mapping[str, str], scoring: Scoring | None
) -> Iterator[Variant]:
    """All that is left out for one person, in the order in which their prompts share most of their beginnings.

    Args:
        history: What the person did; events whose items the catalogue lacks say nothing and are not left out.
        now: Context of "now".
        catalog: Tells the titles.
        said: The words of the line for "now" by feature; empty without a language model. Place and device are left out
            in any case, for a prior may know of them.
        scoring: What a step is worth; None without a language model.
    """
    if scoring is not None and scoring.name == "fused":
        for what, deaf in (("the model", replace(scoring, gamma=0.0)), ("the prior", replace(scoring, beta=0.0))):
            without = Evidence(kind="voice", what=what, change=0.0)
            yield Variant(without=without, history=history, now=now, scoring=deaf)

    words = {"place": place(now), "device": device(now)} | dict(said)
    for feature in FEATURES:
        if word := words.get(feature):
            without = Evidence(kind="context", what=word, change=0.0, feature=feature)
            less = replace(
                now,
                place=None if feature == "place" else now.place,
                device=None if feature == "device" else now.device,
            )
            yield Variant(without=without, history=history, now=less, silent=feature)

    moments, zone = history.moments, history.at.tzinfo
    events = [(i, item) for i, moment in enumerate(moments) for item in moment.item_ids if item in catalog.row]
    for i, item in reversed(events[-MAX_EVENTS:]):
        without = Evidence(
            kind="event",
            what=catalog.items[catalog.row[item]].title,
            change=0.0,
            item_id=item,
            at=moments[i].at.astimezone(zone),
        )
        rest = tuple(other for other in moments[i].item_ids if other != item)
        kept = [replace(moments[i], item_ids=rest)] if rest else []
        left = replace(history, moments=(*moments[:i], *kept, *moments[i + 1 :]))
        yield Variant(without=without, history=left, now=now)

    if older := events[:-MAX_EVENTS]:
        first = events[-MAX_EVENTS][0]
        rest = tuple(item for i, item in events[-MAX_EVENTS:] if i == first)
        left = replace(history, moments=(replace(moments[first], item_ids=rest), *moments[first + 1 :]))
        what = f"{len(older):,} older event{'s' * (len(older) > 1)}"
        without = Evidence(kind="older", what=what, change=0.0, at=moments[older[-1][0]].at.astimezone(zone))
        yield Variant(without=without, history=left, now=now)


def explained(
    answer: Recommendation, left_out: Sequence[Variant], weights: Sequence[np.ndarray], seconds: float
) -> Recommendation:
    """An answer with the evidence for each of its items.

    Args:
        answer: The answer.
        left_out: What was left out; nothing where nobody asked.
        weights: The items' log-probabilities in each variant, nats, shape ``(n_items_of_the_answer,)`` each.
        seconds: How long that took.
    """
    if not left_out:
        return answer
    items = []
    for n, item in enumerate(answer.items):
        found = [
            replace(variant.without, change=item.logprob - float(weight[n]))
            for variant, weight in zip(left_out, weights, strict=True)
        ]
        items.append(replace(item, evidence=tuple(sorted(found, key=lambda one: -one.change))))
    notes = [
        f"The latest {MAX_EVENTS} events were left out one by one, the {variant.without.what} together."
        for variant in left_out
        if variant.without.kind == "older"
    ]
    return replace(
        answer,
        items=tuple(items),
        timings_s={**answer.timings_s, "explain": seconds},
        notes=(*answer.notes, *notes),
    )
