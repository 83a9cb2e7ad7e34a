"""The history lines: one a moment, oldest first, `context | item; item;`, and the open line for "now".

Prompts are assembled as token ids, piece by piece, so what training sees before an item and what serving sees are the
same ids, and one more event only appends. Nothing from data can open a chat turn or leave its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np

from genrec.catalog import BAR, SEPARATOR, EncodedCatalog
from genrec.context import Words, line
from genrec.errors import PromptError
from genrec.events import Context, User
from genrec.history import History, Moment
from genrec.prompt.template import Template
from genrec.text import clean
from genrec.tokenizer import Tokenizer

ALIGN = 32
"""A prompt's length is one more than a multiple of this many tokens, so that an engine whose cache holds whole blocks
(16 tokens on GPU, 32 on CPU) reads nothing of it twice."""
NOW_TOKENS = 64
"""Room for the line for "now" is kept in steps of this many tokens, so that its words hardly ever decide where the
window starts."""

MAX_ATTRIBUTES = 16
"""Most attributes of a person that a template sees."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model reads."""

    token_ids: tuple[int, ...]
    turns: tuple[tuple[str, str], ...]
    """``(role, text)`` of the instructions."""
    lines: tuple[str, ...]
    """The history lines as text; the last one is open."""
    n_stable: int
    """Ids before filler and the line for "now": the part that the next event leaves as it is."""
    n_history_tokens: int
    """Ids of the history lines, without the one for "now"."""
    n_moments: int
    """Moments written."""
    n_dropped: int
    """Older moments left out to fit the budget."""
    n_unknown: int
    """Items of the history left out because the catalogue does not have them."""

    @property
    def text(self) -> str:
        """The prompt as a person would read it."""
        return "\n".join([*(f"[{role}] {text}" for role, text in self.turns), "", *self.lines])


def render(
    template: Template,
    history: History,
    now: Context,
    encoded: EncodedCatalog,
    tokenizer: Tokenizer,
    *,
    words: Words | None = None,
    max_tokens: int = 1024,
    align: int | None = ALIGN,
) -> Prompt:
    """Write a person's history and the moment to recommend for.

    The window holds as many moments as fit. When it overflows, whole chunks of a quarter of it are dropped at the old
    end, so the prompt begins with the same ids from event to event until the next chunk goes. A last moment too long
    for the whole window keeps as many of its items as fit. Moments of which the catalogue knows no item are left out.

    Args:
        template: The words around.
        history: What the person did; ``history.at`` is "now".
        now: Context of "now".
        encoded: The catalogue in the tokenizer's ids.
        tokenizer: The language model's.
        words: How contexts are put into words; what the template switches off is off.
        max_tokens: Longest prompt.
        align: Repeat the line break before the line for "now" until the prompt's length is one more than a multiple
            of this; None for no filler.

    Raises:
        PromptError: If not even the instructions and the line for "now" fit.
    """
    words = words or Words()
    own_zone = history.user.time_zone if history.user else None
    words = replace(
        words,
        features=tuple(f for f in words.features if f in template.features),
        time_zone=own_zone or words.time_zone,
    )
    writer = _Writer(encoded, tokenizer, words, history, now)
    turns, head = _head(template, history.user, tokenizer, max_tokens // 2)
    open_line = writer.now(max_tokens // 4)
    room = -(-len(open_line.ids) // NOW_TOKENS) * NOW_TOKENS + (align or 1) - 1
    lines = writer.window(max_tokens - len(head) - room)
    if not lines:
        open_line = writer.now(max_tokens // 4, follows=False)
    ids = [*head, *(i for written in lines for i in written.ids)]
    n_ids = len(ids) + len(open_line.ids)
    filler = (1 - n_ids) % align if align else 0
    if n_ids + filler > max_tokens:
        filler = 0
    if n_ids > max_tokens:
        raise PromptError(
            f"the instructions take {len(head)} tokens and the line for now {len(open_line.ids)}: "
            f"no room in a prompt of {max_tokens}",
            hint="Raise history.max_tokens in genrec.toml, or shorten the template.",
        )
    return Prompt(
        token_ids=(*ids, *[writer.newline[-1]] * filler, *open_line.ids),
        turns=tuple(turns),
        lines=(*(written.text for written in lines), open_line.text),
        n_stable=len(ids),
        n_history_tokens=len(ids) - len(head),
        n_moments=len(lines),
        n_dropped=len(writer.moments) - 1 - len(lines),
        n_unknown=writer.n_unknown,
    )


def _head(
    template: Template, user: User | None, tokenizer: Tokenizer, budget: int
) -> tuple[list[tuple[str, str]], list[int]]:
    """The instructions with the person's profile; its last attributes are left out where they are too long."""
    cleaned = {clean(key, max_chars=40): clean(value) for key, value in user.attributes.items()} if user else {}
    profile = [(key, value) for key, value in cleaned.items() if key and value][:MAX_ATTRIBUTES]
    while True:
        turns = template.turns(dict(profile))
        head = tokenizer.chat(turns)
        if len(head) <= budget or not profile:
            return turns, head
        profile.pop()


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A moment as text and ids."""

    text: str
    ids: list[int]


class _Writer:
    """Writes the lines of one history. "Now" is its last moment, one without items."""

    def __init__(
        self, encoded: EncodedCatalog, tokenizer: Tokenizer, words: Words, history: History, now: Context
    ) -> None:
        self.encoded, self.tokenizer = encoded, tokenizer
        row = encoded.catalog.row
        known = [replace(m, item_ids=tuple(i for i in m.item_ids if i in row)) for m in history.moments]
        self.n_unknown = sum(len(m.item_ids) for m in history.moments) - sum(len(m.item_ids) for m in known)
        self.moments = [*(m for m in known if m.item_ids), Moment(at=history.at, context=now, item_ids=())]
        self.words = [words.of(moment, before) for before, moment in pairwise([None, *self.moments]) if moment]
        [self.newline] = tokenizer.encode(["\n"], after=SEPARATOR)
        [self.bar] = tokenizer.encode([f" {BAR}"], after="x")
        [self.bar_alone] = tokenizer.encode([BAR], after="\n")

    def now(self, budget: int, *, follows: bool = True) -> _Line:
        """The open line, behind the last moment's or alone; in a small budget its last words are left out."""
        words = dict(self.words[-1])
        before = self.words[-2] if follows and len(self.words) > 1 else None
        while True:
            [ids] = self._contexts([text := line(words, before)])
            if len(ids) <= budget or not words:
                return _Line(text=f"{text} {BAR}".lstrip(), ids=ids)
            words.popitem()

    def window(self, budget: int) -> list[_Line]:
        """The lines of the latest moments, in at most `budget` ids."""
        if len(self.moments) == 1:
            return []
        changes = [line(words, before) for before, words in pairwise([None, *self.words[:-1]]) if words is not None]
        lines = [self._line(*one) for one in zip(changes, self._contexts(changes), self.moments[:-1], strict=True)]
        lengths = np.array([len(one.ids) for one in lines])
        before_each = np.cumsum(lengths) - lengths
        chunk = max(1, budget // 4)
        for n_chunks in range(int(before_each[-1]) // chunk + 1):
            start = int(np.searchsorted(before_each, n_chunks * chunk))
            if int(lengths[start + 1 :].sum()) < budget:
                first = self._first(start)
                if len(first.ids) + int(lengths[start + 1 :].sum()) <= budget:
                    return [first, *lines[start + 1 :]]
        last = self._first(len(lines) - 1)
        items = [len(self.encoded.ids(self.encoded.catalog.row[i])) for i in self.moments[-2].item_ids]
        shortest = len(last.ids) - sum(items)
        n_items = sum(shortest + total <= budget for total in accumulate(items))
        return [self._first(len(lines) - 1, n_items)] if n_items else []

    def _first(self, index: int, n_items: int | None = None) -> _Line:
        """A moment as the first line of a window: its context in full."""
        moment = self.moments[index]
        text = line(self.words[index], None)
        [ids] = self._contexts([text])
        return self._line(text, ids, replace(moment, item_ids=moment.item_ids[:n_items]))

    def _contexts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of context texts, each with its bar."""
        encoded = self.tokenizer.encode(texts, after="\n")
        return [[*ids, *self.bar] if text else [*self.bar_alone] for text, ids in zip(texts, encoded, strict=True)]

    def _line(self, text: str, context: Sequence[int], moment: Moment) -> _Line:
        rows = [self.encoded.catalog.row[item] for item in moment.item_ids]
        return _Line(
            text=f"{text} {BAR}".lstrip() + "".join(f" {self.encoded.catalog.texts[r]}{SEPARATOR}" for r in rows),
            ids=[*context, *(i for r in rows for i in self.encoded.ids(r)), *self.newline],
        )
