"""Templates: the words around the history lines, and what a template may do.

A template is a few sentences with holes. It sees one variable, the person's profile, which it may test, print and loop
over; whatever could run for long, write much or reach into Python is refused when it is loaded, with the line it stands
in. Knows nothing of items, events or token ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import yaml
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genrec.context import FEATURES, OPTIONAL, Feature
from genrec.errors import PromptError
from genrec.prompt.rules import refusal
from genrec.traits import TRAITS, Trait

SUFFIX = ".md.j2"
"""How a template's file name ends; its name is the rest of its path."""
ROLES = ("system", "user")
"""The blocks that are read, each a turn of its own."""
MAX_CHARS = 20_000
"""Longest template file, and longest turn that a template may write."""
MAX_PARENTS = 4
"""How many templates may extend one another."""
SAMPLE_PROFILE: Mapping[str, str] = MappingProxyType({"age": "35-44", "household": "2 adults"})
"""A profile to try a template with."""

_HINT = "A template may print, test and loop over `profile`; see docs/prompts.md."


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    description: str = ""
    context: list[Feature] = [f for f in FEATURES if f not in OPTIONAL]
    traits: list[Trait] = []
    caution: str = Field(default="", max_length=300)
    review: bool = False


@dataclass(frozen=True, kw_only=True)
class Template:
    """The words around the history lines."""

    name: str
    description: str
    features: tuple[Feature, ...]
    """Context features that its lines write."""
    traits: tuple[Trait, ...] = ()
    """What its profile tells of a person beside their attributes."""
    caution: str = ""
    """What goes with every list: how far such advice can be trusted, and what it must not be used for."""
    review: bool = False
    """Whether a person must check every list before anything is done."""
    source: str
    """The text of its file."""
    bodies: Mapping[str, str]
    """What stands below the front matter of it and of the templates that it extends, by name, its own first."""
    environment: jinja2.Environment
    """Holds the bodies."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what it writes: equal fingerprints mean equal prompts."""
        decides = (list(self.bodies.values()), self.features, *([self.traits] if self.traits else []))
        return hashlib.sha256(repr(decides).encode()).hexdigest()[:16]

    def turns(self, profile: Mapping[str, str]) -> list[tuple[str, str]]:
        """Render the blocks `system` and `user`, each for itself.

        Args:
            profile: The person's attributes, and what is told of them, cleaned.

        Returns:
            ``(role, text)`` for each block that is not empty.

        Raises:
            PromptError: If the template asks for what the profile does not have, or writes too much.
        """
        try:
            template = self.environment.get_template(next(iter(self.bodies)))
            context = template.new_context({"profile": dict(profile)})
            for _ in template.root_render_func(context):
                pass  # running the root collects the blocks of the templates it extends
            turns = [
                (role, "".join(context.blocks[role][0](context)).strip()) for role in ROLES if role in context.blocks
            ]
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            name, line = _where(error) or (self.name, None)
            raise _wrong(name, line, str(error)) from error
        for role, text in turns:
            if len(text) > MAX_CHARS:
                raise _wrong(self.name, None, f"its {role} turn has {len(text):,} characters, {MAX_CHARS:,} is most")
        return [(role, text) for role, text in turns if text]


def bundled_prompts() -> Traversable:
    """The folder of templates that come with genrec, in a wheel or a checkout."""
    inside = files("genrec") / "prompts"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "prompts"


def load_template(name: str, folders: Sequence[Traversable]) -> Template:
    """Find a template by name, or by the path of a file, and check it.

    Args:
        name: A name such as ``next-item``, or a path that ends in ``.md.j2``.
        folders: Where to look for it and for what it extends, first to last.

    Raises:
        PromptError: If there is no such template, or it is wrong or does what no template may.
    """
    if name.endswith(SUFFIX):
        path = Path(name)
        folders, name = [path.parent, *folders], path.name.removesuffix(SUFFIX)
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.globals.clear()
    chain: list[_File] = []
    wanted: str | None = name
    while wanted is not None:
        file = _read(wanted, folders, extended_by=chain[-1].name if chain else None)
        if any(file.name == other.name for other in chain) or len(chain) == MAX_PARENTS:
            what = "it extends itself" if len(chain) < MAX_PARENTS else f"it extends more than {MAX_PARENTS} others"
            raise _wrong(name, None, what, hint="Give a template of yours a name that what it extends does not have.")
        chain.append(file)
        wanted = _check(file, environment)
    settings: dict[str, Any] = {"context": _FrontMatter().context}
    for file in reversed(chain):
        settings |= file.front_matter()
    bodies = {file.name: file.body for file in chain}
    environment.loader = jinja2.FunctionLoader(lambda wanted: bodies.get(wanted.removesuffix(SUFFIX)))
    template = Template(
        name=name,
        description=settings.get("description", ""),
        features=tuple(f for f in FEATURES if f in settings["context"]),
        traits=tuple(trait for trait in TRAITS if trait in settings.get("traits", ())),
        caution=" ".join(settings.get("caution", "").split()),
        review=settings.get("review", False),
        source=chain[0].text,
        bodies=bodies,
        environment=environment,
    )
    if not template.turns({}) + template.turns(SAMPLE_PROFILE):
        raise _wrong(name, None, "it has neither a block `system` nor a block `user` with words in it")
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


@dataclass(frozen=True, kw_only=True)
class _File:
    """A template's file, taken apart."""

    name: str
    text: str
    head: str
    """The YAML between the two ``---``."""
    body: str
    """The rest, below as many blank lines as the head has, so that errors name the true line."""

    def front_matter(self) -> dict[str, Any]:
        try:
            return _FrontMatter.model_validate(yaml.safe_load(self.head) or {}).model_dump(exclude_unset=True)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"][:1]) or "front matter"
            what = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
            known = (
                f"The front matter may hold: description, caution, review, context (a list of {', '.join(FEATURES)}), "
                f"traits (a list of {', '.join(TRAITS)})."
            )
            raise _wrong(self.name, None, f"{key}: {what}", hint=known) from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else None
            raise _wrong(self.name, line, f"its front matter is not YAML: {error}") from error


def _read(name: str, folders: Sequence[Traversable], *, extended_by: str | None) -> _File:
    text = _text(name, folders)
    if text is None:
        known = ", ".join(template_names(folders))
        by = f", which {extended_by!r} extends" if extended_by else ""
        raise PromptError(f"no prompt template {name!r}{by}. There are: {known}.", hint="See: genrec prompts list")
    if len(text) > MAX_CHARS:
        raise _wrong(name, None, f"it has {len(text):,} characters, {MAX_CHARS:,} is most")
    if not text.startswith("---\n"):
        return _File(name=name, text=text, head="", body=text)
    head, closed, body = text.removeprefix("---").partition("\n---\n")
    if not closed:
        raise _wrong(name, 1, "its front matter is not closed", hint="End it with a line of three dashes.")
    return _File(name=name, text=text, head=head, body="\n" * (head.count("\n") + 2) + body)


def _text(name: str, folders: Sequence[Traversable]) -> str | None:
    parts = (name + SUFFIX).split("/")
    if ".." in parts or "\0" in name:
        return None
    for folder in folders:
        found = folder
        for part in parts:
            found = found / part
        if found.is_file():
            try:
                return found.read_text(encoding="utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
            except (OSError, UnicodeDecodeError) as error:
                raise _wrong(name, None, f"its file cannot be read: {error}", hint="Save it as UTF-8.") from error
    return None


def _check(file: _File, environment: jinja2.Environment) -> str | None:
    """Refuse a file that is no template or does what none may.

    Returns:
        The name of the template that this one extends.
    """
    try:
        parsed = environment.parse(file.body, file.name)
        if refused := refusal(parsed):
            raise _wrong(file.name, *refused)
        environment.compile(parsed, file.name)
    except jinja2.TemplateSyntaxError as error:
        raise _wrong(file.name, error.lineno, str(error.message)) from error
    except RecursionError as error:
        raise _wrong(file.name, None, "it is nested too deeply") from error
    extended = parsed.find(nodes.Extends)
    return extended.template.as_const().removesuffix(SUFFIX) if extended else None


def _where(error: Exception) -> tuple[str, int] | None:
    """The template and line in which an error came up while rendering."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            found = template.name.removesuffix(SUFFIX), template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return found


def _wrong(name: str, line: int | None, what: str, *, hint: str = _HINT) -> PromptError:
    where = f", line {line}" if line else ""
    return PromptError(f"the prompt template {name!r}{where}: {what}", hint=hint)
