"""The data sets of priors.py under their protocols, as people to train on and cases to judge; all data sets by name.

Check-ins and smart homes are written with context: when it was, and at check-ins also what the place where somebody was
before means to them. A data set called `…-plain` is the same without any.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import priors
from rows import Amazon, MovieLens, Rows

from genrec.context.usual import Whereabouts
from genrec.events import Context, Event, Item
from genrec.filters import LATITUDE, LONGITUDE
from genrec.history import History, Moment, moments
from genrec.prompt import ALIGN

HOURS = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
"""Hours in words, one token each; the part of day says which of two."""


class Protocol(Rows):
    """A data set under its protocol, beside the prior that was best there on validation cases.

    The model is trained once, on what comes before the first round's validation and is asked for in no round; where
    rounds learn from different people, for one round. The prior is fitted anew for each round. The model learns from
    each person's last moments; a prompt shows 20 to 29, or fewer that fit 512 tokens: where it begins moves on by ten,
    so that a person's next case finds most of its prompt read.

    Args:
        name: Of the data set.
        data: The folder of all.
        model: Name or folder of the language model.
        way: The way in which it is asked, see priors.py.
        fold: The round that counts, where rounds learn from different people.
    """

    max_tokens = 512
    n_learned = 50
    """Latest moments of a person that are learned from."""
    usual_way = ""
    """The way in which it is asked where none is named."""
    voices: tuple[str, ...] = ()
    """The priors that stand beside the model, with the protocol's options; what was tuned when empty."""

    def __init__(self, name: str, data: Path, model: str, way: str | None = None, fold: int = 0) -> None:
        self.name, source = name, name.removesuffix(PLAIN)
        if source != name:
            self.features = ()
        ways, way = priors.DATA[source], self.usual_way if way is None else way
        if way not in ways:
            raise click.ClickException(f"{name} is not asked with {way!r} but with one of: {', '.join(ways)}")
        self._data = priors.DATA[source][way](data)
        self.way = hyphened(way)
        self.silent = "since" if way == "time unknown" else None
        self._rounds = self._data.rounds
        if self._data.apart:
            self._rounds, self.fold = self._rounds[fold : fold + 1], f"-fold-{fold}"
        if self.voices:
            named = self._data.options or {}
            best: dict[str, Any] = {"options": {voice: named.get(voice, {}) for voice in self.voices}}
        else:
            best = priors.best_of(source)
        self._fitted_to = partial(priors.fitted, best)
        first = self._rounds[0]
        self._fits: dict[int, Any] = {}
        self._told: dict[int, tuple[Any, Any]] = {}
        """The part and the case behind each history that `cases` gave, by its id."""
        self._cases: dict[str, list[History]] = {}
        asked = {(c.history.user_id, c.item_id) for one in self._rounds for p in (one.tune, one.test) for c in p.cases}
        by_user: dict[str, list[Event]] = {}
        for event in first.tune.learn:
            if not (self._data.unseen and (event.user_id, event.item_id) in asked):
                by_user.setdefault(event.user_id, []).append(event)
        texts, people = self.texts(self._data.items), []
        for user, events in by_user.items():
            past = self.tell(moments(sorted(events, key=lambda event: event.at)))[-self.n_learned :]
            people.append(History(user_id=user, user=None, at=past[-1].at, moments=past))
        super().__init__(model, self._data.items, people, texts)

    def texts(self, items: Sequence[Item]) -> dict[str, str] | None:
        """What items are called in prompts, by id; their short titles when None."""
        return None

    def tell(self, past: Sequence[Moment]) -> tuple[Moment, ...]:
        """A person's moments with the context that is written of them, each told from those before it.

        Args:
            past: All that are known, oldest first.
        """
        return tuple(past)

    def cases(self, split: str) -> list[History]:
        """The cases of all rounds; those of validation, once each."""
        if split not in self._cases:
            parts = [one.tune if split == "valid" else one.test for one in self._rounds]
            self._cases[split] = [
                self._case(part, case) for part in {id(part): part for part in parts}.values() for case in part.cases
            ]
        return self._cases[split]

    def _case(self, part: Any, case: Any) -> History:
        past = case.history.moments
        target = Moment(at=case.history.at, context=case.now, item_ids=(case.item_id,))
        shown = replace(case.history, moments=(*past[max(len(past) - 20, 0) // 10 * 10 :], target))
        self._told[id(shown)] = part, case
        return shown

    def whose(self, case: History) -> str:
        """Whose cases hang together with this one."""
        return str(self._told[id(case)][1].cluster)

    def prompt(self, case: History, align: int | None = ALIGN) -> tuple[int, ...]:
        """What the model reads before a case's target, its context told from all that came before."""
        if id(case) in self._told:
            whole = (*self._told[id(case)][1].history.moments, case.moments[-1])
            case = replace(case, moments=self.tell(whole)[-len(case.moments) :])
        return super().prompt(case, align)

    def _fit(self, part: Any) -> Any:
        """The prior that judges a part."""
        if id(part) not in self._fits:
            n = next(n for n, one in enumerate(self._rounds) if part is one.tune or part is one.test)
            self._fits[id(part)] = self._fitted_to(self.catalog, part, n)
        return self._fits[id(part)]

    @cached_property
    def prior(self) -> Any:
        """The prior, fitted to what comes before the first round's validation."""
        return self._fit(self._rounds[0].tune)

    def go_live(self) -> None:
        """A protocol says itself what a prior counts.

        Raises:
            ClickException: Always.
        """
        raise click.ClickException(f"{self.name} is judged in rounds, each with a prior of its own: leave out --live")

    def log_mass(self, case: History) -> np.ndarray:
        """Log prior probability of each item before a case's target, by the prior of its round."""
        part, told = self._told[id(case)]
        found: np.ndarray = priors.say(self._fit(part), told, self._data)
        return found

    def live(self, case: History) -> np.ndarray | None:
        """What is ranked: where the protocol says so, what the person does not have yet."""
        if not self._data.unseen:
            return None
        live = np.ones(len(self.catalog), bool)
        had = self._told[id(case)][1].history.moments
        live[[self.catalog.row[item] for one in had for item in one.item_ids]] = False
        return live


class CheckIns(Protocol):
    """Check-ins. A place, which has no name, is called by its kind, its map square and a letter: `Food K7c`.

    An event's position would be its place and give the answer away. What is told of it is where the person was before,
    and only what that place means to them by what they did until then: home, work, a usual place. The hour is written
    beside the part of day, as `around seven`. Where the moment's time is unknown, it counts as a second after the last
    one, so that no word of the clock is new, and "soon after" is left out.

    A line takes 15 tokens, 7 without context. Twenty moments of a person fit one row: of 535 people 10,645 targets, in
    188,000 tokens an epoch (230 steps of at most 1,024), and in about half of that without context.
    """

    template = "places"
    features = ("weekday", "part_of_day", "since", "place", "extra")
    n_learned = 20
    usual_way = "time known"
    voices = ("repeat",)
    square = 0.018, 0.024
    """Degrees north and east of a map square in New York, about 2 km each."""

    def texts(self, items: Sequence[Item]) -> dict[str, str]:
        """Kind, square (lettered from the south, numbered from the west), and a letter or two by a hash."""
        self._position = {i.item_id: (float(i.attributes[LATITUDE]), float(i.attributes[LONGITUDE])) for i in items}
        corner = np.min(list(self._position.values()), axis=0)
        found, taken = {}, Counter[str]()
        for item in sorted(items, key=lambda item: hashlib.blake2b(item.item_id.encode()).digest()):
            north, east = ((self._position[item.item_id] - corner) / self.square).astype(int).tolist()
            spot = f"{(item.category or 'Place').split()[0]} {letters(north).upper()}{east + 1}"
            found[item.item_id] = spot + letters(taken[spot])
            taken[spot] += 1
        return found

    def tell(self, past: Sequence[Moment]) -> tuple[Moment, ...]:
        """Moments with the hour, and with what the place of the one before means to the person."""
        been, before, told = Whereabouts(), Context(), []
        for one in past:
            usual = been.usual_place(been.find(before, one.at))
            told.append(replace(one, context=Context(place=usual, extra=hour(one))))
            north, east = self._position[one.item_ids[0]]
            before = Context(latitude=north, longitude=east)
            been.add(before, one.at)
        return tuple(told)


class Homes(Protocol):
    """Device actions in homes. An action is called by its device and its command: `air conditioner set fan mode`.

    Weekday and three hours are known of each; the hour at which these begin is written beside the part of day.
    """

    template = "smart-home"
    features = ("weekday", "part_of_day", "extra")
    voices = ("repeat", "sequence", "popularity")

    def texts(self, items: Sequence[Item]) -> dict[str, str]:
        """Device and command, with the capability between them where that is taken, else with a number."""
        found: dict[str, str] = {}
        for item in items:
            device, _, rest = item.title.partition(":")
            forms = (f"{device} {rest.split()[-1]}", f"{device} {rest}", *(f"{device} {rest} {n}" for n in range(2, 9)))
            plain = (re.sub(r"(?<=[a-z])(?=[A-Z])", " ", form).lower() for form in forms)
            found[item.item_id] = next(form for form in plain if form not in found.values())
        return found

    def tell(self, past: Sequence[Moment]) -> tuple[Moment, ...]:
        """Moments with the hour."""
        return tuple(replace(m, context=Context(extra=hour(m))) for m in past)


def hour(moment: Moment) -> dict[str, str]:
    """The hour of a moment, as context that is written beside the part of day."""
    return {"around": HOURS[moment.at.hour % 12]}


def hyphened(way: str) -> str:
    """A way of asking as it stands in names of files: each word behind a hyphen."""
    return "".join(f"-{word}" for word in way.split())


def letters(number: int) -> str:
    """A number in letters: a to z, then aa, ab and so on."""
    return (letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


PLAIN = "-plain"
"""Ends the name of a data set that is written without context."""
PROTOCOLS: dict[str, type[Protocol]] = {
    **dict.fromkeys(("movielens-last-five", "complete-journey", "online-retail"), Protocol),
    **dict.fromkeys(("foursquare-nyc", f"foursquare-nyc{PLAIN}"), CheckIns),
    **dict.fromkeys(("smartthings-fr", f"smartthings-fr{PLAIN}"), Homes),
}
DATA: dict[str, Callable[..., Rows]] = {
    "amazon-industrial": Amazon,
    "movielens-100k": MovieLens,
    **{name: partial(protocol, name) for name, protocol in PROTOCOLS.items()},
}


def options(command: Any) -> Any:
    """What all stages take."""
    for option in (
        click.option("--dataset", type=click.Choice(list(DATA)), default="amazon-industrial", show_default=True),
        click.option("--data", type=click.Path(path_type=Path), default="../shared/data", show_default=True),
        click.option("--work", type=click.Path(path_type=Path), required=True, help="Keeps checkpoints and models."),
        click.option("--model", default="smollm2-135m", show_default=True),
        click.option("--name", default="plain", show_default=True, help="Names the run."),
    ):
        command = option(command)
    return command
