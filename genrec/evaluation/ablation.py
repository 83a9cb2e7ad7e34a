"""What is known, with one part of it left out: a feature of the context, all of them, the profile, some of the events.

A part is left out of everything: of the prompts, of what is learned from and of what the prior hears. Shuffling or
silencing it in the last line alone says how much an answer that was made with it leans on it, and no more. Knows
people, words and priors; what trains and answers is not its business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genrec.catalog import Catalog
from genrec.context import Words, clock
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import place_by_weight, score, search
from genrec.engines.base import Search
from genrec.evaluation.judge import WITHIN
from genrec.evaluation.metrics import bootstrap, difference, figures, paired, summary
from genrec.evaluation.report import document, versus, with_intervals
from genrec.evaluation.split import Split
from genrec.events import User
from genrec.history import History, Moment, read_history
from genrec.priors.base import Prior
from genrec.prompt import Template, words_for
from genrec.store import Store
from genrec.text import clean
from genrec.trie import AnyTrie

Told = Literal["none", "request", "exact"]
"""What is known of when the choice is made: nothing, when it was asked for, or its very instant."""
Kind = Literal["action", "source"]
"""What events can be told apart by."""
CLOCK = tuple("weekday weekend part_of_day hour daylight season holiday ahead since session".split())
"""Features whose words tell the time."""
REQUEST_H = 3
"""Hours of the clock that a request is told by: it comes when the last of them begins before the choice, or right after
what the person did since."""
_SOON = timedelta(seconds=1)
_COMPARED = {"HR@1": "HR@1", "NDCG@10": "NDCG@10", "nats": "the model's nats"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is left out together; by default nothing."""

    name: str
    """What a user types."""
    features: tuple[str, ...] = ()
    """Of the context."""
    profile: bool = False
    """Whether all that is told of people above the lines is: their attributes, and traits."""
    events: tuple[Kind, str] | None = None
    """Which events are."""

    @property
    def ways(self) -> tuple[str, ...]:
        """How it can be told otherwise; see `otherwise`."""
        return ("silenced",) if self.events else ("shuffled", "silenced")

    def log(self, store: Store) -> Store | None:
        """The events that are left; None for all."""
        return store.without(*self.events) if self.events else None

    def template(self, template: Template) -> Template:
        """The template that writes what is left."""
        features = tuple(f for f in template.features if f not in self.features)
        return replace(template, features=features, traits=() if self.profile else template.traits)

    def split(self, split: Split, store: Store, *, max_events: int) -> Split:
        """People as they are known without it; what they chose stays."""
        log = self.log(store)

        def known(person: History, *choice: Moment) -> History:
            if self.profile and person.user:
                person = replace(person, user=replace(person.user, attributes={}))
            if log is None:
                return person
            past = read_history(log, person.user_id, person.at, max_events=max_events)
            return replace(person, moments=(*past.moments, *choice), friends_took=past.friends_took)

        learn = [known(person) for person in split.learn]
        fit, judge = ([known(case, case.moments[-1]) for case in some] for some in (split.fit, split.judge))
        return replace(split, learn=[person for person in learn if person.moments], fit=fit, judge=judge)


def parts(
    template: Template, said: Collection[str], people: Sequence[History], events: Mapping[Kind, Iterable[str]]
) -> list[Part]:
    """All that can be left out.

    Args:
        template: Names the features, and may speak of the profile.
        said: Features that ever say something.
        people: Those who may have a profile.
        events: Actions and sources there are; one alone cannot be left out.
    """
    found = [Part(name=feature, features=(feature,)) for feature in template.features if feature in said]
    if len(found) > 1:
        found.append(Part(name="all", features=template.features))
    written = any("profile" in body for body in template.bodies.values())
    if written and (template.traits or any(person.user and person.user.attributes for person in people)):
        found.append(Part(name="profile", profile=True))
    for kind, names in events.items():
        if len(every := sorted(names)) > 1:
            found += [Part(name=f"{kind}:{name}", events=(kind, name)) for name in every]
    return found


class Speech:
    """Puts the moments of people into words.

    Args:
        template: Says which.
        words: How contexts are put into words.
        catalog: The items.
    """

    def __init__(self, template: Template, words: Words, catalog: Catalog) -> None:
        self._template, self._words, self._catalog = template, words, catalog

    def of(self, person: History) -> list[dict[str, str]]:
        """The words of each of a person's moments in full, by feature."""
        row, categories = self._catalog.row, self._catalog.categories
        words = words_for(self._template, person, self._words)
        return list(words.each(person.moments, lambda item: categories[row[item]] if item in row else None))

    def features(self, people: Iterable[History]) -> set[str]:
        """Those that ever say something."""
        return {f for person in people for words in self.of(person) for f, word in words.items() if word}

    def told(self, case: History, now: Told) -> History:
        """A case whose last moment is no better known than that, and comes after all others."""
        *past, choice = case.moments
        if now == "exact" or (now == "none" and not past):
            return case
        at = choice.at
        if now == "request":
            zone = choice.context.time_zone or words_for(self._template, case, self._words).time_zone
            wall = at.astimezone(clock(zone))
            at = wall.replace(hour=wall.hour // REQUEST_H * REQUEST_H, minute=0, second=0, microsecond=0)
        if past:
            at = past[-1].at + _SOON if now == "none" else max(at, past[-1].at + _SOON)
        at = min(at, choice.at)
        return replace(case, at=at, moments=(*past, replace(choice, at=at)))


def otherwise(
    part: Part, how: str, split: Split, without: Split, speech: Speech
) -> tuple[list[History], Callable[[History], dict[str, str]]]:
    """The judging cases with a part told otherwise.

    Args:
        part: What is told otherwise.
        how: ``shuffled``, as of the next person in the order of a hash, or ``silenced``, not at all.
        split: The cases as they are.
        without: The same without the part.
        speech: How their moments are put into words.

    Returns:
        The cases, and what the last line of each says by feature instead of words of its own.
    """
    cases = split.judge
    other = {case.user_id: one for case, one in zip(cases, [*cases[1:], *cases[:1]], strict=True)}
    if part.features:
        if how == "silenced":
            return cases, lambda case: dict.fromkeys(part.features, "")
        return cases, lambda case: {f: speech.of(other[case.user_id])[-1][f] for f in part.features}
    if how == "silenced":
        return without.judge, lambda case: {}
    return [_lent(case, other[case.user_id]) for case in cases], lambda case: {}


def _lent(case: History, other: History) -> History:
    """A case with another's attributes and friends."""
    user, attributes = case.user or User(user_id=case.user_id), other.user.attributes if other.user else {}
    return replace(case, user=replace(user, attributes=attributes), friends_took=other.friends_took)


def targets(case: History, catalog: Catalog) -> list[int]:
    """Catalogue rows of all that a case chose: of a basket, everything in it."""
    return [catalog.row[item] for item in case.moments[-1].item_ids]


def places_by_prior(prior: Prior, cases: Sequence[History], catalog: Catalog) -> list[list[int]]:
    """Places of all that each case chose on the list of a prior alone, over the whole catalogue."""
    found = []
    for case in cases:
        log_mass = prior.log_mass(case.before(len(case.moments) - 1), case.moments[-1].context)
        found.append([min(place_by_weight(log_mass, row), WITHIN) for row in targets(case, catalog)])
    return found


def placed(
    trie: AnyTrie, rows: Sequence[int], scoring: Scoring, log_mass: np.ndarray
) -> Search[tuple[list[int], list[float]]]:
    """Where some items stand on one list, and what each costs under the model alone.

    Args:
        trie: Over the items' token sequences.
        rows: The items.
        scoring: What orders the list.
        log_mass: The prior's log-probability of each row, nats. Shape ``(n_items,)``.

    Returns:
        A search that returns places from 0, `WITHIN` for what is not above that, and negative log-probabilities among
        all items of the catalogue, nats.
    """
    ranking = yield from search(trie, k=WITHIN, scoring=scoring, log_mass=log_mass)
    alone = yield from score(trie, rows, scoring=Scoring(name="masked"))
    place = {row: i for i, row in enumerate(ranking.rows.tolist())}
    return [place.get(row, WITHIN) for row in rows], (-alone).tolist()


def row(found: Mapping[str, Any], whole: Mapping[str, Any], people: Sequence[str]) -> dict[str, Any]:
    """Figures of one way and, where it is not the whole itself, its paired difference to that.

    Every item that was chosen counts once; intervals are over people.

    Args:
        found: Of each case the ``places`` of what it chose and, where a model answers, its ``nats``, both None for a
            case that could not be asked; and what else is known of it.
        whole: The same with nothing left out.
        people: Whose case each is.
    """
    asked = [i for i in range(len(people)) if found["places"][i] is not None and whole["places"][i] is not None]
    users = [people[i] for i in asked for _ in found["places"][i]]

    def each(one: Mapping[str, Any], name: str) -> np.ndarray:
        return np.concatenate([one[name][i] for i in asked])

    ranks = each(found, "places")
    made: dict[str, Any] = {**figures(ranks, WITHIN), **summary(ranks, users), "people": len(asked)}
    against = difference(ranks, each(whole, "places"), users)
    if "nats" in found:
        nats = each(found, "nats")
        made["nats"] = round(float(nats.mean()), 4)
        made["interval"]["nats"] = [round(end, 4) for end in bootstrap(nats, users)]
        against["nats"] = paired(nats - each(whole, "nats"), users)
    rest = {name: value for name, value in found.items() if name not in ("places", "nats")}
    return made | rest | ({} if found is whole else {"difference": against})


def tables(found: Mapping[str, Any]) -> list[tuple[str, list[dict[str, str]]]]:
    """What leaving out costs and, apart from it, what the whole is sensitive to."""

    def line(name: str, one: Mapping[str, Any]) -> dict[str, str]:
        values = {_COMPARED.get(metric, metric): value for metric, value in with_intervals(one).items()}
        against = {
            f"{title} - whole": versus(one["difference"][metric]) if "difference" in one else ""
            for metric, title in _COMPARED.items()
            if metric in one
        }
        return {"": clean(name), **values, **against}

    left = [line("whole, another seed", found["again"])] if found["again"] else []
    left += [line(f"without {name}", one) for name, one in found["without"].items()]
    made = [(title(found), [line("whole", found["whole"]), *left])]
    if found["sensitivity"]:
        rows = [line(name, one) for name, one in found["sensitivity"].items()]
        made.append(("Sensitivity alone: the whole as it is, told something else or nothing", rows))
    return made


def title(found: Mapping[str, Any]) -> str:
    """What was judged, on one line."""
    cut = found["cut"][:16].replace("T", " ")
    return f"{found['n']} choices: all that {found['people']} people chose at their first moment after {cut}"


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Write ``ablation.json`` and ``ablation.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ablation.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = document("What each part of the context is worth", tables(found), found["notes"])
    (folder / "ablation.md").write_text(text, encoding="utf-8")
