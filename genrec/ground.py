"""Free text to catalogue items, for a language model that can be asked for words but not for probabilities.

Such a model is asked for titles several times. Every title it writes is looked for in the catalogue, exactly first and
then by the nearest vector; what is not found is lost, and counted. The list is a vote: an answer gives 1 to the title
it names first, 1/2 to the second, 1/3 to the third and so on, lost ones included, and an item's weight is its share of
all that was given. That share is no probability. Knows nothing of who answers or over what wire.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.catalog import BAR, SEPARATOR, Catalog
from genrec.prompt import Prompt
from genrec.vectors import ALIKE, TextVectors

MAX_TITLES = 200
"""Most titles read of one answer."""
MAX_CHARS = 200
"""Most characters read of one title."""
INSTRUCTION = "(The {n} most likely {which}, the most likely first, each closed by a semicolon.)"
WHICH = {False: "items", True: "items that were not named before"}
"""By whether only items that are new to the person are wanted."""

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_NUMBERING = re.compile(r"^(?:[-*•–+]|\(?\d{1,3}[.):]|#\d{1,3})\s+")
_COMMENT = re.compile(r"\s+[-–—]\s+|:\s|\s+\(")
_EDGES = " \t\"'`*_“”„‘’«»"
_PUNCTUATION = _EDGES + ".,;:!?…"


@dataclass(frozen=True, kw_only=True)
class Grounded:
    """Items of a catalogue by what the answers gave them, best first."""

    rows: np.ndarray
    """Catalogue rows, shape ``(k,)`` or fewer, int64."""
    weights: np.ndarray
    """Their shares of all that the answers gave, lost titles included; at most 1 together. Same shape, float64."""
    n_answers: int
    n_exact: int
    """Titles that are an item's, word for word; one that an answer repeats counts once, here and below."""
    n_near: int
    """Titles taken for the item with the nearest vector."""
    n_lost: int
    """Titles that no item is like."""
    n_barred: int
    """Titles found, exactly or nearly, that name an item which may not be recommended."""

    @property
    def n_titles(self) -> int:
        """Titles in all."""
        return self.n_exact + self.n_near + self.n_lost

    @property
    def logprobs(self) -> np.ndarray:
        """Logarithms of the weights, nats: what stands where a search has log-probabilities."""
        logprobs: np.ndarray = np.log(self.weights)
        return logprobs

    def note(self, model: str) -> str:
        """How many titles were written and found, in one sentence."""
        barred = f" {self.n_barred} of those found may not be recommended." if self.n_barred else ""
        return (
            f"{model} wrote {self.n_titles} titles in {self.n_answers} answers: {self.n_exact} are in the catalogue by "
            f"name, {self.n_near} by the nearest vector, {self.n_lost} are lost.{barred}"
        )


class Grounder:
    """Looks written titles up in one catalogue.

    Args:
        catalog: What can be recommended.
        vectors: Of the catalogue's texts, by row; without them only exact matches count.
        threshold: Least cosine of a near match.
    """

    def __init__(self, catalog: Catalog, vectors: TextVectors | None = None, *, threshold: float = ALIKE) -> None:
        self.catalog, self.vectors, self.threshold = catalog, vectors, threshold
        self._exact: dict[str, int] = {}
        self._n_known = 0
        self._learn()

    def _learn(self) -> None:
        """Take in the names of items that came since the last time; their vectors come with the next start."""
        known, self._n_known = self._n_known, len(self.catalog)
        for names in (self.catalog.texts, self.catalog.titles):  # texts are unique, so they come first
            for row in range(known, self._n_known):
                self._exact.setdefault(normalise(names[row]), row)

    def ground(self, answers: Sequence[str], *, k: int, live: np.ndarray | None = None) -> Grounded:
        """Turn one person's answers into a list.

        Args:
            answers: What the model wrote, each answer a list of titles, best first.
            k: Most items.
            live: Which rows may be recommended; all when None. Others are left out, and no weight changes by that.
        """
        self._learn()
        lists = [_distinct(titles_of(answer)) for answer in answers]
        exact = {key: row for titles in lists for key in titles if (row := self._look_up(titles[key])) is not None}
        near = self._near({key: title for titles in lists for key, title in titles.items() if key not in exact})
        found = exact | near
        votes: dict[int, float] = {}
        total = 0.0
        for titles in lists:
            named: set[int] = set()
            for place, key in enumerate(titles, start=1):
                row = found.get(key)
                if row is None or row not in named:
                    total += 1 / place
                if row is not None and row not in named:
                    named.add(row)
                    votes[row] = votes.get(row, 0.0) + 1 / place
        keys = [key for titles in lists for key in titles]
        barred = {row for row in votes if live is not None and not (row < len(live) and live[row])}
        best = sorted((row for row in votes if row not in barred), key=lambda row: -votes[row])[:k]  # first named first
        return Grounded(
            rows=np.array(best, np.int64),
            weights=np.array([votes[row] / total for row in best], np.float64),
            n_answers=len(answers),
            n_exact=sum(key in exact for key in keys),
            n_near=sum(key in near for key in keys),
            n_lost=sum(key not in found for key in keys),
            n_barred=sum(found.get(key) in barred for key in keys),
        )

    def _look_up(self, title: str) -> int | None:
        """The item of that very name, a comment behind the name or not."""
        row = self._exact.get(normalise(title))
        return row if row is not None else self._exact.get(normalise(_COMMENT.split(title, maxsplit=1)[0]))

    def _near(self, titles: dict[str, str]) -> dict[str, int]:
        """Items by key of the titles that are near enough to one."""
        if self.vectors is None or not titles:
            return {}
        rows, cosines = self.vectors.nearest(list(titles.values()))
        return {
            key: int(row)
            for key, row, cosine in zip(titles, rows[:, 0], cosines[:, 0], strict=True)
            if cosine >= self.threshold
        }


def question(prompt: Prompt, n_titles: int, *, new_only: bool = False) -> tuple[tuple[str, str], ...]:
    """A prompt as a conversation in which the model has written every earlier line itself.

    The context of a moment is the user's turn and its items are the assistant's, so the history shows the form of an
    answer and the names that items go by.

    Args:
        prompt: Rendered for a model that goes on with its last line.
        n_titles: How many titles to ask for.
        new_only: Whether to ask for none that the history holds.

    Returns:
        ``(role, text)`` turns that end in the user's.
    """
    turns = [turn for turn in prompt.turns if turn[0] != "user"]
    before = [text for role, text in prompt.turns if role == "user"]
    for written in prompt.lines:
        context, _, items = written.partition(BAR)
        before.append(context.strip() or "…")
        if items:
            turns += [("user", "\n\n".join(before)), ("assistant", items.strip())]
            before = []
    ask = INSTRUCTION.format(n=n_titles, which=WHICH[new_only])
    return (*turns, ("user", "\n\n".join([*before, ask])))


def titles_of(answer: str) -> list[str]:
    """The titles in an answer, in its order.

    Reads one title a line, numbered or with bullets, titles between semicolons, history lines (what is behind the bar)
    and JSON lists, cut off ones too. Thoughts, headings and code fences are passed over.
    """
    answer = _THOUGHTS.sub("", answer)
    found = (_tidied(title) for title in _json_strings(answer) or _lines(answer))
    return [title for title in found if title][:MAX_TITLES]


def normalise(title: str) -> str:
    """A title as it is compared: without case, widths, runs of spaces and punctuation at its ends."""
    folded = " ".join(unicodedata.normalize("NFKC", title).casefold().split())
    return folded.strip(_PUNCTUATION) or folded


def _lines(answer: str) -> Iterator[str]:
    for line in answer.splitlines():
        if not line.lstrip().startswith("```") and not line.rstrip(" *").endswith(":"):
            yield from line.rpartition(BAR)[2].split(SEPARATOR)


def _json_strings(answer: str) -> list[str]:
    """The strings of a JSON list, or the titles of its objects; none where the answer is no such list."""
    start = answer.find("[")
    if start < 0 or not re.match(r"\[\s*[\"{]", answer[start:]):
        return []
    try:
        values, _ = json.JSONDecoder().raw_decode(answer[start:])
    except ValueError:  # cut off
        return _QUOTED.findall(answer[start:])
    named = [value.get("title") or value.get("name") if isinstance(value, dict) else value for value in values]
    return [value for value in named if isinstance(value, str)]


def _tidied(title: str) -> str:
    line = " ".join(title[: 4 * MAX_CHARS].split()).strip(_EDGES)
    return _NUMBERING.sub("", line).strip(_EDGES)[:MAX_CHARS].rstrip()


def _distinct(titles: Sequence[str]) -> dict[str, str]:
    """Titles by what they are compared by, each once, in their order."""
    distinct: dict[str, str] = {}
    for title in titles:
        distinct.setdefault(normalise(title), title)
    return distinct
