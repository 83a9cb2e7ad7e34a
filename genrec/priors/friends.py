"""What people take whom somebody knows: recent events at the other ends of their relations.

    score(i) = sum over friends f of  w(f) · sum over f's events e with i of  2^(-age(e) / half life)  / sum of w(f)

A relation counts in both directions. Nothing that happened after the moment counts, for nobody; but relations have no
date, so one that was made later does. It knows something of people who have done nothing yet, if they know somebody.
The community somebody belongs to (Louvain; Blondel, Guillaume, Lambiotte and Lefebvre 2008) can be one friend more, who
took on average what its members took. Knows relations and events; no influence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from genrec.errors import ConfigError
from genrec.priors.loglinear import Past
from genrec.priors.scored import Scored

_DAY_US = 86_400_000_000


@dataclass(kw_only=True)
class Friends(Scored):
    """What people take whom somebody knows, the recent most, weighted by likelihood."""

    half_life_days: float = 60.0
    """Days after which an event of a friend counts half."""
    kinds: tuple[str, ...] = ()
    """Kinds of relations that count; all when there is none."""
    community: float = 0.0
    """Weight of the person's community, as of one more friend."""

    def __post_init__(self) -> None:
        if not (self.half_life_days > 0 and self.n_fit >= 0 and self.community >= 0):
            raise ConfigError("the prior 'friends' needs half_life_days above 0, n_fit and community from 0")
        self._edges: list[tuple[str, str, float]] = []
        super().__post_init__()

    def relate(self, edges: Iterable[pa.RecordBatch]) -> None:
        """Remember who knows whom; see `Prior.relate`."""
        self._edges = [
            (row["from_id"], row["to_id"], row["weight"])
            for rows in edges
            for row in rows.to_pylist()
            if row["weight"] > 0 and row["from_id"] != row["to_id"] and (not self.kinds or row["kind"] in self.kinds)
        ]

    def _learn(self) -> None:
        """Give everybody their friends by number, those without events, too."""
        super()._learn()
        numbers = self._log.users
        # Those without events come last, before anybody asks the log where each person's events begin.
        self._friends: dict[int, dict[int, float]] = {}
        for one, other, weight in self._edges:
            a, b = (numbers.setdefault(name, len(numbers)) for name in (one, other))
            for person, friend in ((a, b), (b, a)):
                known = self._friends.setdefault(person, {})
                known[friend] = known.get(friend, 0.0) + weight
        if self.community:
            self._communities = self._part(
                "communities", Communities, lambda: Communities.among(self._friends, list(numbers), self._log.user)
            )

    def _scores(self, past: Past) -> np.ndarray:
        """What each friend took of late, on average. Shape ``(n_items,)``, float64."""
        log, friends = self._log, self._friends.get(past.person, {})
        whole = sum(friends.values())
        heard: list[tuple[slice | np.ndarray, float]] = [
            (slice(int(log.first[one]), int(log.first[one + 1])), weight) for one, weight in friends.items()
        ]
        if friends and self.community:
            events, n_members = self._communities.around(past.person)
            heard.append((events[log.user[events] != past.person], self.community / max(n_members - 1, 1)))
            whole += self.community
        rows, counts = [np.empty(0, np.int32)], [np.empty(0)]
        for theirs, weight in heard:
            age = (past.now - log.at[theirs]).astype(np.int64) / _DAY_US
            rows.append(log.row[theirs])
            each = weight * 0.5 ** (np.maximum(age, 0) / self.half_life_days) * log.weight[theirs]
            counts.append(np.where(age > 0, each, 0.0))
        scores = np.bincount(np.concatenate(rows), np.concatenate(counts), minlength=self._n_items)
        return scores / (whole or 1.0)


@dataclass(frozen=True, kw_only=True)
class Communities:
    """Who belongs together, and what they did."""

    of: np.ndarray
    """Number of each person's community; -1 for who knows nobody. Shape ``(n_people,)``."""
    size: np.ndarray
    """People of each. Shape ``(n_communities,)``."""
    events: np.ndarray
    """Numbers of the events of people who are in one, community by community."""
    first: np.ndarray
    """Where each community's begin in `events`, and the end of all. Shape ``(n_communities + 1,)``."""

    @classmethod
    def among(cls, friends: Mapping[int, Mapping[int, float]], names: list[str], user: np.ndarray) -> Communities:
        """Find them.

        Args:
            friends: Who knows whom in both directions, by number, with weights.
            names: What everybody is called, by number.
            user: Whose each event is.

        Raises:
            ConfigError: If networkx is missing.
        """
        try:
            import networkx
        except ImportError as error:
            raise ConfigError("communities need the package networkx", hint="pip install 'genrec[graph]'") from error
        graph = networkx.Graph()
        people = sorted(friends, key=names.__getitem__)  # or what is found would hang on who did something first
        rank = {person: i for i, person in enumerate(people)}
        for person in people:
            edges = sorted((rank[other], weight) for other, weight in friends[person].items())
            graph.add_weighted_edges_from((rank[person], other, weight) for other, weight in edges)
        found = networkx.community.louvain_communities(graph, seed=0)
        of = np.full(len(names), -1)
        for number, some in enumerate(found):
            of[[people[i] for i in some]] = number
        events = np.argsort(of[user], kind="stable")
        first = np.searchsorted(of[user][events], np.arange(len(found) + 1))
        return cls(of=of, size=np.array([len(some) for some in found], np.int64), events=events, first=first)

    def around(self, person: int) -> tuple[np.ndarray, int]:
        """The events of the community of a person who knows somebody, and how many people it has."""
        number = int(self.of[person])
        return self.events[self.first[number] : self.first[number + 1]], int(self.size[number])
