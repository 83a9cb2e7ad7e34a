"""From a history to a prompt: the history line is the prompt.

One line a moment, oldest first, `context | item; item;`, in the assistant's turn of a chat; the line for "now" is the
same line with its items missing, so the model goes on by naming an item. Prompts are assembled as token ids, piece by
piece, so that what training sees before an item and what serving sees are the same ids. Templates hold the words around
the lines; they never see items or events, and nothing from data can open a chat turn or leave its line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, ValidationError

from genrec.catalog import BAR, SEPARATOR, EncodedCatalog
from genrec.context import FEATURES, Feature, Words, line
from genrec.errors import PromptError
from genrec.events import Context
from genrec.history import History, Moment
from genrec.text import clean
from genrec.tokenizer import Tokenizer

SUFFIX = ".md.j2"
"""How a template's file name ends; its name is the rest of its path."""
ALIGN = 32
"""A prompt's length is one more than a multiple of this many tokens, so that an engine whose cache holds whole blocks
(16 tokens on GPU, 32 on CPU) reads nothing of it twice."""
NOW_TOKENS = 64
"""Room kept for the line for "now", so that its words never decide where the window starts."""
MAX_RENDERED = 20_000
"""Longest turn that a template may write, in characters."""
MAX_STEPS = 10_000
"""How often all loops of a template together may go round."""


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    description: str = ""
    context: list[Feature] = list(FEATURES)


@dataclass(frozen=True, kw_only=True)
class Template:
    """The words around the history lines."""

    name: str
    description: str
    features: tuple[Feature, ...]
    """Context features that it writes."""
    source: str
    """The file's text."""
    environment: jinja2.Environment
    """Where it finds the templates that it extends."""

    @property
    def fingerprint(self) -> str:
        """Hash of what it writes for a sample person, and of its features: equal fingerprints mean equal prompts."""
        sample = self.turns({"age": "35-44", "household": "2"})
        return hashlib.sha256(repr((sample, self.features)).encode()).hexdigest()[:16]

    def turns(self, profile: Mapping[str, str]) -> list[tuple[str, str]]:
        """Render the blocks `system` and `user`, each for itself.

        Args:
            profile: The person's attributes, cleaned; the only variable that a template sees.

        Returns:
            ``(role, text)`` for each block that is not empty.

        Raises:
            PromptError: If the template is wrong or does too much.
        """
        steps = iter(range(MAX_STEPS))

        def bounded_range(*arguments: int) -> Iterator[int]:
            for number in range(*arguments):
                if next(steps, None) is None:
                    raise PromptError(
                        f"the prompt template {self.name!r} loops more than {MAX_STEPS} times",
                        hint="A template holds a few sentences; take the loop out.",
                    )
                yield number

        turns: list[tuple[str, str]] = []
        try:
            template = self.environment.get_template(self.name + SUFFIX)
            context = template.new_context({"profile": dict(profile), "range": bounded_range})
            for _ in template.root_render_func(context):
                pass  # running the root collects the blocks of the templates it extends
            for role in ("system", "user"):
                if role in context.blocks:
                    turns.append((role, self._bounded(context.blocks[role][0](context))))
        except PromptError:
            raise
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise self._error(error) from error
        return [(role, text) for role, text in turns if text]

    def _bounded(self, parts: Iterator[str]) -> str:
        text = ""
        for part in parts:
            text += part
            if len(text) > MAX_RENDERED:
                raise PromptError(
                    f"the prompt template {self.name!r} writes more than {MAX_RENDERED} characters",
                    hint="Instructions belong into a few sentences; the history takes the rest of the prompt.",
                )
        return text.strip()

    def _error(self, error: Exception) -> PromptError:
        where = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        return PromptError(
            f"the prompt template {self.name!r} cannot be rendered{where}: {error}",
            hint="A template sees one variable, `profile`; see docs/prompts.md.",
        )


def bundled_prompts() -> Traversable:
    """The folder of templates that come with genrec, in a wheel or a checkout."""
    inside = files("genrec") / "prompts"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "prompts"


def load_template(name: str, folders: Sequence[Traversable]) -> Template:
    """Find a template by name, or by the path of a file.

    Args:
        name: A name such as ``next-item``, or a path that ends in ``.md.j2``.
        folders: Where to look, first to last.

    Raises:
        PromptError: If there is no such template, or its front matter is wrong.
    """
    if name.endswith(SUFFIX):
        folders = [Path(name).parent, *folders]
        name = Path(name).name.removesuffix(SUFFIX)
    loader = _Loader(folders)
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    try:
        meta, source = loader.front_matter(name + SUFFIX), loader.text(name + SUFFIX)
        merged = _FrontMatter(**_inherited(loader, environment, name + SUFFIX) | meta)
    except jinja2.TemplateNotFound:
        known = ", ".join(template_names(folders))
        raise PromptError(f"no prompt template {name!r}. There are: {known}", hint="genrec prompts list") from None
    except jinja2.TemplateSyntaxError as error:
        raise PromptError(f"the prompt template {name!r}, line {error.lineno}: {error.message}") from error
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise PromptError(
            f"the front matter of the prompt template {name!r} is wrong: {error}",
            hint=f"It may hold: description, context (of {', '.join(FEATURES)}).",
        ) from error
    template = Template(
        name=name,
        description=merged.description,
        features=tuple(f for f in FEATURES if f in merged.context),
        source=source,
        environment=environment,
    )
    template.turns({})
    return template


def template_names(folders: Sequence[Traversable]) -> list[str]:
    """Names of all templates in the folders."""
    return sorted({name for folder in folders for name in _names(folder)})


def _names(folder: Traversable, prefix: str = "") -> Iterator[str]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            yield prefix + entry.name.removesuffix(SUFFIX)


def _inherited(loader: _Loader, environment: jinja2.Environment, file: str) -> dict[str, Any]:
    """Front matter of the templates that a template extends, the nearest strongest."""
    merged: dict[str, Any] = {}
    parsed = environment.parse(loader.body(file))
    for node in parsed.find_all(jinja2.nodes.Extends):
        parent = node.template.as_const()
        merged = _inherited(loader, environment, parent) | loader.front_matter(parent) | merged
    return merged


class _Loader(jinja2.BaseLoader):
    """Finds templates in folders; blank lines stand for front matter, so errors name the true line."""

    def __init__(self, folders: Sequence[Traversable]) -> None:
        self.folders = folders

    def text(self, file: str) -> str:
        parts = file.split("/")
        if ".." not in parts:
            for folder in self.folders:
                found = folder
                for part in parts:
                    found = found / part
                if found.is_file():
                    return found.read_text(encoding="utf-8")
        raise jinja2.TemplateNotFound(file)

    def _split(self, file: str) -> tuple[str, str]:
        text = self.text(file)
        if text.startswith("---\n") and (end := text.find("\n---\n", 3)) >= 0:
            return text[4 : end + 1], text[end + 5 :]
        return "", text

    def front_matter(self, file: str) -> dict[str, Any]:
        return yaml.safe_load(self._split(file)[0]) or {}

    def body(self, file: str) -> str:
        head, body = self._split(file)
        return "\n" * (head.count("\n") + 2 if head else 0) + body

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str | None, None]:
        return self.body(template), template, None


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
    n_moments: int
    """Moments written."""
    n_dropped: int
    """Older moments left out to fit the budget."""
    n_unknown: int
    """Items left out because the catalogue does not have them."""

    @property
    def text(self) -> str:
        """The prompt as a person would read it."""
        return "\n".join([*(f"[{role}] {text}" for role, text in self.turns), "", *self.lines])


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A moment as text and ids."""

    text: str
    ids: list[int]


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
    end, so the prompt begins with the same ids from event to event until the next chunk goes.

    Args:
        template: The words around.
        history: What the person did; ``history.at`` is "now".
        now: Context of "now".
        encoded: The catalogue in the tokenizer's ids.
        tokenizer: The language model's.
        words: How contexts are put into words, besides what the template switches off.
        max_tokens: Longest prompt.
        align: Repeat the line break before the line for "now" until the prompt's length is one more than a multiple
            of this; None for no filler.

    Raises:
        PromptError: If not even the instructions and the line for "now" fit.
    """
    words = replace(words or Words(), features=template.features)
    writer = _Writer(encoded, tokenizer, words, history)
    attributes = history.user.attributes if history.user else {}
    profile = {clean(key, max_chars=40): clean(value) for key, value in attributes.items()}
    turns = template.turns(profile)
    head = tokenizer.chat(turns)
    budget = max_tokens - len(head) - NOW_TOKENS - (align or 1)
    if budget < 0:
        raise PromptError(
            f"the instructions take {len(head)} tokens, which leaves no room for the line for now in {max_tokens}",
            hint="Raise history.max_tokens in genrec.toml, or shorten the template.",
        )
    lines = writer.window(budget)
    open_line = writer.now(history, now, follows=bool(lines))
    ids = head + [i for written in lines for i in written.ids]
    filler = [writer.newline[-1]] * ((1 - len(ids) - len(open_line.ids)) % align) if align else []
    return Prompt(
        token_ids=(*ids, *filler, *open_line.ids),
        turns=tuple(turns),
        lines=(*(written.text for written in lines), open_line.text),
        n_stable=len(ids),
        n_moments=len(lines),
        n_dropped=len(history.moments) - len(lines),
        n_unknown=sum(
            item not in encoded.catalog.row
            for moment in history.moments[len(history.moments) - len(lines) :]
            for item in moment.item_ids
        ),
    )


class _Writer:
    """Writes the lines of one history."""

    def __init__(self, encoded: EncodedCatalog, tokenizer: Tokenizer, words: Words, history: History) -> None:
        self.encoded, self.tokenizer, self.words = encoded, tokenizer, words
        self.moments = history.moments
        self.zone = history.user.time_zone if history.user else None
        [self.newline] = tokenizer.encode(["\n"], after=SEPARATOR)
        [self.bar] = tokenizer.encode([f" {BAR}"], after="x")
        [self.bar_alone] = tokenizer.encode([BAR], after="\n")

    def describe(self, moment: Moment, before: Moment | None) -> dict[str, str]:
        """The words of one moment's context."""
        context = moment.context
        if context.time_zone is None:
            context = replace(context, time_zone=self.zone)
        return self.words.of(moment.at, context, before.at if before else None)

    def write(self, contexts: Sequence[str], moments: Sequence[Moment], *, is_open: bool = False) -> list[_Line]:
        """Lines from contexts in words and moments; an open one ends at the bar."""
        row = self.encoded.catalog.row
        written = []
        for text, words, moment in zip(contexts, self.tokenizer.encode(contexts, after="\n"), moments, strict=True):
            rows = [row[item] for item in moment.item_ids if item in row]
            ids = [*words, *self.bar] if text else list(self.bar_alone)
            line_text = f"{text} {BAR}".lstrip() + "".join(f" {self.encoded.catalog.texts[r]}{SEPARATOR}" for r in rows)
            if not is_open:
                ids += [token for r in rows for token in self.encoded.ids(r)] + self.newline
            written.append(_Line(text=line_text, ids=ids))
        return written

    def window(self, budget: int) -> list[_Line]:
        """The lines of the latest moments, in at most `budget` ids."""
        moments = self.moments
        if not moments:
            return []
        words = [self.describe(m, before) for before, m in zip([None, *moments], moments, strict=False)]
        contexts = [line(now, before) for before, now in zip([None, *words], words, strict=False)]
        lines = self.write(contexts, moments)
        lengths = np.array([len(one.ids) for one in lines])
        before_each = np.cumsum(lengths) - lengths
        chunk = max(1, budget // 4)
        for n_chunks in range(int(before_each[-1]) // chunk + 1):
            start = int(np.searchsorted(before_each, n_chunks * chunk))
            [first] = self.first(moments[start])
            if len(first.ids) + int(lengths[start + 1 :].sum()) <= budget:
                return [first, *lines[start + 1 :]]
        # Not even the last moment fits: as many of its items as do, a random choice by their order.
        for n_items in range(len(moments[-1].item_ids) - 1, 0, -1):
            [cut] = self.first(replace(moments[-1], item_ids=moments[-1].item_ids[:n_items]))
            if len(cut.ids) <= budget:
                return [cut]
        return []

    def first(self, moment: Moment) -> list[_Line]:
        """A moment as the first line of a window: its context in full."""
        return self.write([line(self.describe(moment, None), None)], [moment])

    def now(self, history: History, context: Context, *, follows: bool) -> _Line:
        """The open line, behind the last moment's or alone."""
        moment = Moment(at=history.at, context=context, item_ids=())
        previous = None
        if follows:
            last = self.moments[-1]
            previous = self.describe(last, self.moments[-2] if len(self.moments) > 1 else None)
        words = self.describe(moment, self.moments[-1] if follows else None)
        [written] = self.write([line(words, previous)], [moment], is_open=True)
        return written
