"""Several voices as one: a log-linear mixture whose weights are fitted by likelihood.

    log p(item) = sum over the voices k of  w(k) · log p(item | k)  + constant,   w(k) >= 0

Each voice is fitted to what came before the latest moments, the weights to those moments, and then each voice to
everything; so no voice is weighed by what it has learned by heart. One that adds nothing gets no weight. How much each
has to do with an item is its share. Knows distributions only, nothing of how the voices come by theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Context
from genrec.history import History, Moment
from genrec.priors.base import Prior, State, goes_with_fit
from genrec.priors.loglinear import SAMPLED, Events, fitted_weights, normalised
from genrec.sources.times import is_zone

_LEAST = 25.0  # nats below its likeliest item that a voice puts one at most: none has a veto
_LATEST = 0.2  # share of all moments, the latest ones, that weights are fitted to at most


@dataclass(kw_only=True)
class Blend(Prior):
    """Other priors in one, each with the weight that makes the latest choices likeliest."""

    members: tuple[str, ...] = ("sequence", "repeat")
    """Names of the priors; each has the options of its own table."""
    n_fit: int = 1000
    """Choices that the weights are fitted to, the latest ones."""

    def __post_init__(self) -> None:
        if not self.members or len(set(self.members)) < len(self.members) or "blend" in self.members or self.n_fit < 0:
            raise ConfigError(
                "the prior 'blend' needs members, each once and none of them 'blend', and n_fit from 0",
                hint='Write it like members = ["sequence", "repeat"] below [priors.blend] in genrec.toml.',
            )
        self.voices: dict[str, Prior] = {}
        """The members by name; whoever knows what names stand for puts them here before `fit`."""
        self.weights = np.full(len(self.members), 1 / len(self.members))
        """How much each counts, none below 0. Shape ``(n_members,)``."""

    @classmethod
    def of(cls, voices: Mapping[str, Prior], **options: int) -> Blend:
        """Blend priors that are there already, by any names."""
        blend = cls(members=tuple(voices), **options)
        blend.voices = dict(voices)
        return blend

    def relate(self, edges: Iterable[pa.RecordBatch]) -> None:
        """Tell each voice; see `Prior.relate`."""
        batches = list(edges)
        for voice in self.voices.values():
            voice.relate(batches)

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        """Fit the voices to what came before the latest moments, weigh them there, fit them to all; see `Prior.fit`."""
        batches = list(events)
        cases = _latest(catalog, Events.read(catalog, batches), self.n_fit)
        if cases:
            cut = pa.scalar(min(case.at for case, _, _ in cases), pa.timestamp("us", "UTC"))
            self._fit_voices(catalog, [batch.filter(pc.less(batch["at"], cut)) for batch in batches])
        self.weigh(cases)
        self._fit_voices(catalog, batches)

    def weigh(self, cases: Iterable[tuple[History, Context, int]], *, held_out: bool = False) -> None:
        """Fit the weights to choices that the voices have not seen; of too few, all weigh the same.

        Args:
            cases: What came before each choice, the context of the choice, and the catalogue row that was chosen.
            held_out: Whether others may count whenever it was; see `Prior.log_mass_held_out`.
        """
        choices = [
            (self._said(self.members, history, now, held_out=held_out).astype(np.float32), np.ones(1), row)
            for history, now, row in cases
        ]
        self.weights = np.zeros(len(self.members))
        kept = np.arange(len(self.members))
        while len(kept):
            start = np.full((1, len(kept)), 1 / len(self.members))
            weights = fitted_weights([(said[kept], gate, row) for said, gate, row in choices], start)[0]
            if weights.min() >= 0:
                self.weights[kept] = weights
                break
            kept = np.delete(kept, weights.argmin())

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each item as the person's next one; see `Prior.log_mass`."""
        return self._mixed(history, now)

    def log_mass_held_out(self, history: History, now: Context) -> np.ndarray:
        """The same, by voices that have seen nothing of the person; see `Prior.log_mass_held_out`."""
        return self._mixed(history, now, held_out=True)

    def state(self) -> State | None:
        """The weights, and what each voice keeps; nothing where one of them keeps nothing. See `Prior.state`."""
        found: dict[str, Any] = {"weights": self.weights}
        for member, voice in self.voices.items():
            state = voice.state() if goes_with_fit(voice, "state") else None
            if state is None:
                return None
            found |= {f"{member}/{name}": value for name, value in state.items()}
        return found

    def restore(self, catalog: Catalog, state: State) -> None:
        """Take all of it back; see `Prior.restore`."""
        for member, voice in self.voices.items():
            own = f"{member}/"
            voice.restore(catalog, {n.removeprefix(own): value for n, value in state.items() if n.startswith(own)})
        self.weights = state["weights"]

    def shares(self, history: History, now: Context, row: int) -> dict[str, float]:
        """How much each voice has to do with an item being likelier than the average one.

        Args:
            history: The person's events before ``history.at``.
            now: Context of the moment.
            row: The item's row in the catalogue.

        Returns:
            By name, from 0 to 1; they sum to one, or are all 0 where no voice speaks for the item.
        """
        said = self._said(self.members, history, now)
        terms = np.maximum(self.weights * (said[:, row] - said.mean(axis=1)), 0)
        return dict(zip(self.members, (terms / (terms.sum() or 1.0)).tolist(), strict=True))

    def _fit_voices(self, catalog: Catalog, batches: list[pa.RecordBatch]) -> None:
        if set(self.voices) != set(self.members):
            raise ConfigError(f"the voices of a blend are {list(self.voices)}, its members {list(self.members)}")
        for voice in self.voices.values():
            voice.fit(catalog, batches)

    def _mixed(self, history: History, now: Context, *, held_out: bool = False) -> np.ndarray:
        """Log-probability of each item; a voice without weight is not asked. Shape ``(n_items,)``."""
        heard = {name: w for name, w in zip(self.members, self.weights.tolist(), strict=True) if w}
        heard = heard or dict.fromkeys(self.members, 0.0)
        return normalised(np.array(list(heard.values())) @ self._said(heard, history, now, held_out=held_out))

    def _said(self, names: Iterable[str], history: History, now: Context, *, held_out: bool = False) -> np.ndarray:
        """What voices say of each item, nats. Shape ``(n_names, n_items)``."""
        voices = [self.voices[name] for name in names]
        found = [(one.log_mass_held_out if held_out else one.log_mass)(history, now) for one in voices]
        n_items = max(len(said) for said in found)
        found = [np.maximum(said, said.max() - _LEAST) for said in found]
        return np.stack([np.pad(said, (0, n_items - len(said)), constant_values=said.min()) for said in found])


def _latest(catalog: Catalog, log: Events, n: int) -> list[tuple[History, Context, int]]:
    """The latest moments with a target and something before them: the person until then, the context, a target."""
    start = log.start[log.n_targets > 0]  # first of all: where the latest moments are weak, earlier ones are fitted to
    n = min(n, int(_LATEST * len(start)), SAMPLED // max(len(catalog), 1))
    if not n:
        return []
    cut = np.sort(log.at[start])[-n]
    rng = np.random.default_rng(0)
    late = start[(log.at[start] >= cut) & (start > log.first[log.user[start]])]
    n_targets = dict(zip(log.start.tolist(), log.n_targets.tolist(), strict=True))
    names, found = list(log.users), []
    for i in rng.permutation(late)[:n].tolist():  # many may share an instant
        begin = int(log.first[log.user[i]])
        end = i + int(np.searchsorted(log.at[i : log.first[log.user[i] + 1]], log.at[i], side="right"))
        *before, now = _moments(catalog, log, begin, end)
        history = History(user_id=names[log.user[i]], user=None, at=now.at, moments=tuple(before))
        found.append((history, now.context, int(log.row[rng.integers(i, i + n_targets[i])])))
    return found


def _moments(catalog: Catalog, log: Events, begin: int, end: int) -> list[Moment]:
    """A stretch of one person's events as moments."""

    def context(i: int) -> Context:
        zone, place = log.zones[log.zone[i]], int(log.place[i])
        known = zone if zone and is_zone(zone) else None
        return Context(time_zone=known, place=log.places[place] if place >= 0 else None)

    return [
        Moment(
            at=log.at[some[0]].item().replace(tzinfo=UTC),
            context=context(some[0]),
            item_ids=tuple(catalog.item_ids[row] for row in log.row[some].tolist()),
        )
        for _, group in groupby(range(begin, end), key=lambda i: log.at[i])
        for some in [list(group)]
    ]
