"""The history lines: one a moment, oldest first, `context | item; item;`, and the open line for "now".

Prompts are assembled as token ids, piece by piece, so what training sees before an item and what serving sees are the
same ids, and one more event only appends. Nothing from data can open a chat turn or leave its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from genrec.catalog import BAR, SEPARATOR, EncodedCatalog
from genrec.context import Words, line, said
from genrec.errors import PromptError
from genrec.events import Context
from genrec.history import History, Moment
from genrec.prompt.template import Template
from genrec.text import clean
from genrec.tokenizer import Tokenizer
from genrec.traits import FRIENDS, Trait, friends_took, tags

ALIGN = 32
"""A prompt's length is a multiple of this many tokens, or a little more: an engine whose cache holds whole blocks (16
tokens on GPU, 32 on CPU) then reads hardly any of it twice."""
NOW_TOKENS = 64
"""Room for the line for "now" is kept in steps of this many tokens, so that its words hardly ever decide where the
window starts."""

MAX_ATTRIBUTES = 16
"""Most attributes of a person that a template sees."""
TRAIT_TOKENS = 64
"""Room kept for each trait that a template names, so that what is told of a person never decides where the window
starts."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model reads."""

    token_ids: tuple[int, ...]
    turns: tuple[tuple[str, str], ...]
    """``(role, text)`` of the instructions."""
    lines: tuple[str, ...]
    """The history lines as text; the last one is open."""
    told_at: datetime
    """When the first of the history lines was, or now without any: what the profile tells of others is as of then."""
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
    said: Mapping[str, str] = field(default_factory=dict)
    """The words of the line for "now", by feature."""

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
    tail: int = 0,
    instead: Mapping[str, str] | None = None,
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
        align: Repeat the line break before the line for "now" until the prompt's length, but for `tail`, is a multiple
            of this; None for no filler.
        tail: See `Engine.prompt_tail`.
        instead: By feature, what the line for "now" says instead of the word of its own; empty for nothing.

    Raises:
        PromptError: If not even the instructions and the line for "now" fit.
    """
    writer = _Writer(encoded, tokenizer, words_for(template, history, words), history, now, instead)
    heads = _Heads(template, history, writer, max_tokens // 2)
    open_line = writer.now(max_tokens // 4)
    lines = writer.window(max_tokens - heads.n_most - _room(len(open_line.ids), align))
    turns, head = heads.above(writer.n_past - len(lines))
    if not lines:
        open_line = writer.now(max_tokens // 4, follows=False)
    ids = [*head, *(i for written in lines for i in written.ids)]
    n_ids = len(ids) + len(open_line.ids)
    filler = (tail - n_ids) % align if align else 0
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
        told_at=writer.moments[writer.n_past - len(lines)].at,
        n_stable=len(ids),
        n_history_tokens=len(ids) - len(head),
        n_moments=len(lines),
        n_dropped=len(writer.moments) - 1 - len(lines),
        n_unknown=writer.n_unknown,
        said=open_line.said,
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """Neighbouring moments of one person, written as one sequence for training."""

    token_ids: np.ndarray
    """The ids from the instructions to the end of the last target. Shape ``(n,)``, int32."""
    position: np.ndarray
    """Where each target's open line ends: the id there is the last that serving would show. Shape ``(m,)``, int32."""
    target: np.ndarray
    """Catalogue row of each target, the first item of its moment. Shape ``(m,)``, int32."""
    moment: np.ndarray
    """Index of each target's moment in the history. Shape ``(m,)``, int32."""

    def last(self) -> Row:
        """The same ids with the last target alone."""
        return replace(self, position=self.position[-1:], target=self.target[-1:], moment=self.moment[-1:])


def render_rows(
    template: Template,
    history: History,
    encoded: EncodedCatalog,
    tokenizer: Tokenizer,
    *,
    words: Words | None = None,
    max_tokens: int = 1024,
    align: int | None = ALIGN,
    filler: bool = False,
    instead: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Write every moment of a person as `render` would have when it was "now", many in one sequence.

    The ids up to a target's position are those of the prompt that `render` makes of what came before, without its
    filler; where the window moves on, a new row begins, whose older moments are context alone. Moments of which the
    catalogue knows no item are no targets; neither is one in which nothing was chosen but weakly, nor one whose prompt
    would show a moment or a context cut short.

    Args:
        template: As for `render`, like all that is not said here.
        history: What the person did; `at` does not matter.
        encoded: The catalogue in the tokenizer's ids.
        tokenizer: The language model's.
        words: How contexts are put into words.
        max_tokens: Longest prompt.
        align: What serving aligns prompts to.
        filler: Fill up before the last target of each row as serving does.
        instead: As for `render`, of the last moment.

    Yields:
        Rows in the order of time; each moment is a target of at most one.
    """
    writer = _Writer(encoded, tokenizer, words_for(template, history, words), history, None, instead)
    heads = _Heads(template, history, writer, max_tokens // 2)
    lines = [writer.line(i) for i in range(writer.n_past)]
    groups: dict[int, list[int]] = {}
    for i in range(len(lines)):
        n_open = len(writer.contexts[i]) if i else len(writer.first(0).ids) - len(writer.item_ids(0))
        if n_open > max_tokens // 4 or writer.moments[i].item_ids[0] in writer.moments[i].weak:
            continue
        start = writer.start(i, max_tokens - heads.n_most - _room(n_open, align))
        if start is not None or i == 0:
            groups.setdefault(start or 0, []).append(i)
    for start, targets in groups.items():
        ids, position, end = [*heads.above(start)[1]], [], targets[-1]
        for i in range(start, end + 1):
            context = writer.first(start).ids if i == start else lines[i].ids
            n_open = len(context) - len(writer.item_ids(i))
            if i == end and filler and align:
                ids += [writer.newline[-1]] * (-(len(ids) + n_open) % align)
            if i in targets:
                position.append(len(ids) + n_open - 1)
            ids += context
        target = [encoded.catalog.row[writer.moments[i].item_ids[0]] for i in targets]
        del ids[position[-1] + 1 + len(encoded.ids(target[-1])) :]
        yield Row(
            token_ids=np.array(ids, np.int32),
            position=np.array(position, np.int32),
            target=np.array(target, np.int32),
            moment=np.array([writer.index[i] for i in targets], np.int32),
        )


def words_for(template: Template, history: History, words: Words | None = None) -> Words:
    """How contexts are written for one person under one template."""
    words = words or Words()
    own_zone = history.user.time_zone if history.user else None
    return replace(
        words,
        features=tuple(f for f in words.features if f in template.features),
        time_zone=own_zone or words.time_zone,
    )


def _room(n_open: int, align: int | None) -> int:
    """Ids kept free for a line for "now" and its filler."""
    return -(-n_open // NOW_TOKENS) * NOW_TOKENS + (align or 1) - 1


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A moment as text and ids."""

    text: str
    ids: list[int]
    said: Mapping[str, str] = field(default_factory=dict)
    """Of the open line, its words by feature."""


class _Writer:
    """Writes the lines of one history. "Now", where there is one, is its last moment, one without items."""

    def __init__(
        self,
        encoded: EncodedCatalog,
        tokenizer: Tokenizer,
        words: Words,
        history: History,
        now: Context | None,
        instead: Mapping[str, str] | None,
    ) -> None:
        self.encoded, self.tokenizer = encoded, tokenizer
        row = encoded.catalog.row
        known = [replace(m, item_ids=tuple(i for i in m.item_ids if i in row)) for m in history.moments]
        self.n_unknown = sum(len(m.item_ids) for m in history.moments) - sum(len(m.item_ids) for m in known)
        self.index = [i for i, moment in enumerate(known) if moment.item_ids]  # of each moment in the history
        self.moments = [known[i] for i in self.index]
        self.n_past = len(self.moments)
        if now is not None:
            self.moments.append(Moment(at=history.at, context=now, item_ids=()))
        categories = encoded.catalog.categories
        self.local = words.local
        self.words = list(words.each(self.moments, lambda item: categories[row[item]]))
        if self.words and instead:
            self.words[-1] = {f: instead.get(f, word) for f, word in self.words[-1].items()}
        [self.newline] = tokenizer.encode(["\n"], after=SEPARATOR)
        [self.bar] = tokenizer.encode([f" {BAR}"], after="x")
        [self.bar_alone] = tokenizer.encode([BAR], after="\n")
        self._firsts: dict[int, _Line] = {}

    def now(self, budget: int, *, follows: bool = True) -> _Line:
        """The open line, behind the last moment's or alone; in a small budget its last words are left out."""
        words = dict(self.words[-1])
        before = self.words[-2] if follows and len(self.words) > 1 else None
        while True:
            [ids] = self._contexts([text := line(words, before)])
            if len(ids) <= budget or not words:
                return _Line(text=f"{text} {BAR}".lstrip(), ids=ids, said=said(words, before))
            words.popitem()

    def window(self, budget: int) -> list[_Line]:
        """The lines of the latest moments, in at most `budget` ids."""
        n = self.n_past
        if not n:
            return []
        if (start := self.start(n, budget)) is not None:
            return [self.first(start), *(self.line(i) for i in range(start + 1, n))]
        last = self.first(n - 1)
        items = [self.encoded.n_ids(self.encoded.catalog.row[i]) for i in self.moments[n - 1].item_ids]
        shortest = len(last.ids) - sum(items)
        n_items = sum(shortest + total <= budget for total in accumulate(items))
        return [self._cut(n - 1, n_items)] if n_items else []

    @cached_property
    def contexts(self) -> list[list[int]]:
        """Ids of what changes from moment to moment, each with its bar."""
        return self._contexts(self._changes)

    def line(self, index: int) -> _Line:
        """A past moment, behind the one before."""
        return self._line(self._changes[index], self.contexts[index], self.moments[index])

    @cached_property
    def _changes(self) -> list[str]:
        past = self.words[: self.n_past]
        return [line(words, before) for before, words in pairwise([None, *past]) if words is not None]

    @cached_property
    def _ends(self) -> np.ndarray:
        """Ids up to the end of each line. Shape ``(n_past + 1,)``, from 0."""
        row, n_ids, n_more = self.encoded.catalog.row, self.encoded.n_ids, len(self.newline)
        each = zip(self.contexts, self.moments[: self.n_past], strict=True)
        return np.cumsum([0, *(len(ids) + sum(n_ids(row[i]) for i in m.item_ids) + n_more for ids, m in each)])

    def start(self, n: int, budget: int) -> int | None:
        """Which line a window over the first `n` begins with; None where not even the last fits whole."""
        if not n:
            return None
        ends, chunk = self._ends, max(1, budget // 4)
        for n_chunks in range(int(ends[n - 1]) // chunk + 1):
            start = int(np.searchsorted(ends[:n], n_chunks * chunk))
            rest = int(ends[n] - ends[start + 1])
            if rest < budget and len(self.first(start).ids) + rest <= budget:
                return start
        return None

    def item_ids(self, index: int) -> list[int]:
        """What stands behind the bar of a line."""
        row = self.encoded.catalog.row
        return [*(i for item in self.moments[index].item_ids for i in self.encoded.ids(row[item])), *self.newline]

    def first(self, index: int) -> _Line:
        """A moment as the first line of a window: its context in full."""
        if index not in self._firsts:
            self._firsts[index] = self._cut(index, None)
        return self._firsts[index]

    def _cut(self, index: int, n_items: int | None) -> _Line:
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


class _Heads:
    """What can stand above the lines: the instructions with the person's profile.

    The profile is what was given, then what is told of the moments that the window leaves out, and what friends took
    before its first moment. So it never looks at what follows, and stays the same until the window moves. Its last
    attributes are left out where they are too long.
    """

    def __init__(self, template: Template, history: History, writer: _Writer, budget: int) -> None:
        self._template, self._writer, self._friends_took = template, writer, history.friends_took
        user = history.user
        self._struck = user.struck if user else frozenset()
        given = {clean(key, max_chars=40): clean(value) for key, value in user.attributes.items()} if user else {}
        self._profile = dict([(key, value) for key, value in given.items() if key and value][:MAX_ATTRIBUTES])
        self._told: list[Trait] = [trait for trait in template.traits if not given.get(trait)]
        self._plain = self._written(self._profile)
        while len(self._plain[1]) > budget and self._profile:
            self._profile.popitem()
            self._plain = self._written(self._profile)
        n_plain = len(self._plain[1])
        self.n_most = max(n_plain, min(n_plain + TRAIT_TOKENS * len(self._told), budget))
        """Ids of the longest of them."""

    def above(self, start: int) -> tuple[list[tuple[str, str]], list[int]]:
        """The turns and their ids above a window that starts with the line of this number."""
        by_trait = self._found(start)
        while any(by_trait.values()):
            said = {t: ("; " if t == FRIENDS else ", ").join(texts) for t, texts in by_trait.items() if texts}
            written = self._written(self._profile | said)
            if len(written[1]) <= self.n_most:
                return written
            max(by_trait.values(), key=len).pop()
        return self._plain

    def _found(self, start: int) -> dict[Trait, list[str]]:
        """What is told above a window that starts with the line of this number."""
        writer, found = self._writer, dict[Trait, list[str]]()
        catalog, inferred = writer.encoded.catalog, [trait for trait in self._told if trait != FRIENDS]
        if start and inferred:
            told = tags(writer.moments[:start], catalog, local=writer.local, struck=self._struck)
            found |= {trait: [tag.text for tag in told if tag.trait == trait] for trait in inferred}
        if FRIENDS in self._told and FRIENDS not in self._struck and self._friends_took:
            at = writer.moments[start].at
            found[FRIENDS] = friends_took(self._friends_took(at), at, catalog)
        return found

    def _written(self, profile: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[int]]:
        turns = self._template.turns(profile)
        return turns, self._writer.tokenizer.chat(turns)
