"""The settings of a workspace: what they are, where each value comes from, and the file that holds them.

A value is taken from the first place that names it: a command-line flag, a variable ``GENREC_…``, ``genrec.toml`` in
the workspace, the user's own ``genrec.toml``, the default. Knows names and values only; making objects of them is
`genrec.workspace`'s business.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from genrec.actions import Actions
from genrec.errors import ConfigError, meant
from genrec.plugins import from_environment

FILE = "genrec.toml"
"""Name of the file that makes a folder a workspace."""

OPTION_TABLES = ("sources", "rerankers", "priors", "engines", "media")
"""Tables that hold plugins' options, ``[sources.NAME]`` and so on."""


class HistorySettings(BaseModel):
    """How much of a person's past goes into a prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_events: int = Field(default=200, ge=1, le=100_000)
    """Most events that are read back from the store for one person."""
    max_tokens: int = Field(default=1024, ge=32, le=1_000_000)
    """Longest prompt, in tokens; the oldest lines go first."""


class SearchSettings(BaseModel):
    """Where the search for the best items may stop before it is certain."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_expansions: int = Field(default=0, ge=0)
    """Most branches of the catalogue's trie opened for one person; 0 for as many as an exact list takes."""
    beam_width: int = Field(default=0, ge=0)
    """Most branches opened at one depth; 0 for as many as an exact list takes."""


class ServeSettings(BaseModel):
    """How `genrec serve` answers over HTTP."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on; any other than this machine's own needs an API key."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    api_key: str = ""
    """Where the key is that clients must send: env:NAME."""
    api_key_file: str = ""
    """A file of such keys, one a line, in the workspace unless the path is absolute."""
    max_queue: int = Field(default=256, ge=1, le=100_000)
    """Most people under way or waiting at once; who comes then is told to come back."""
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """Longest time for one request, in seconds."""
    prior_when_down: bool = False
    """Whether the prior alone answers, with a note, while the engine fails; otherwise that is an error."""


class Settings(BaseModel):
    """Everything ``genrec.toml`` can say; the sentence under a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    store: str = Field(default="genrec.db", min_length=1)
    """Where events and items are kept: a SQLite file in the workspace, or a database URL such as env:DATABASE_URL."""
    model: str = Field(default="smollm2-135m", min_length=1)
    """The language model: an alias (genrec models list), a Hugging Face id or a local folder."""
    engine: str = Field(default="auto", min_length=1)
    """What runs the model: auto, vllm, vllm-server, transformers, chat, or none to answer from the prior alone."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the model's weights."""
    embedding: str = Field(default="minilm-l6-v2", min_length=1)
    """The sentence-transformers model that turns titles into vectors: an alias, a Hugging Face id or a folder."""
    prompt: str = Field(default="next-item", min_length=1)
    """The prompt template (genrec prompts list)."""
    prior: str = Field(default="popularity", min_length=1)
    """The untrained voice that answers without a model."""
    adapter: str = "current"
    """What training made of the language model: an adapter's name, current for the one in use, or none."""
    rerank: tuple[str, ...] = ()
    """Rerankers, in the order they are applied."""
    scoring: Literal["auto", "joint", "masked", "fused"] = "auto"
    """What a step towards an item is worth: joint, masked or fused; auto is fused, the model with the prior."""
    k: int = Field(default=10, ge=1, le=10_000)
    """How many items to recommend."""
    time_zone: str = "UTC"
    """Where a clock on the wall says the time that prompts speak of, e.g. Europe/Berlin."""
    country: str = Field(default="", pattern=r"^([A-Z]{2})?$")
    """Whose public holidays count: two letters such as US; empty for none."""
    actions: dict[str, Any] = {}
    """What an action counts, by its name: 1 for a choice, 0 for what was only shown, -1 for a refusal."""
    history: HistorySettings = HistorySettings()
    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()
    sources: dict[str, dict[str, Any]] = {}
    rerankers: dict[str, dict[str, Any]] = {}
    priors: dict[str, dict[str, Any]] = {}
    engines: dict[str, dict[str, Any]] = {}
    media: dict[str, dict[str, Any]] = {}

    @field_validator("actions")
    @classmethod
    def _actions_count(cls, told: dict[str, Any]) -> dict[str, Any]:
        Actions.of(told)
        return told

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            advice = meant(name, zoneinfo.available_timezones()) or "Write it like Europe/Berlin."
            raise ValueError(f"there is no time zone {name!r}. {advice}") from None
        return name

    @field_validator("country")
    @classmethod
    def _country_has_holidays(cls, code: str) -> str:
        if code:
            from holidays import list_supported_countries

            if code not in list_supported_countries():
                raise ValueError(f"no public holidays are known for the country {code!r}")
        return code

    def store_in(self, workspace: Path) -> str | Path:
        """Where the store is: a database URL as it stands, a file name as a path below the workspace.

        Raises:
            ConfigError: If the value names an environment variable that is not set.
        """
        where = str(from_environment(self.store))
        return where if "://" in where else workspace / where


TABLES: Mapping[str, type[BaseModel]] = {
    "history": HistorySettings,
    "search": SearchSettings,
    "serve": ServeSettings,
}
"""Tables of settings of our own, ``[history]`` and so on."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One value and the place it was taken from."""

    key: str
    """Dotted name, e.g. ``history.max_events`` or ``sources.files.time_zone``."""
    value: Any
    origin: str
    """``default``, a file's path, ``env GENREC_…`` or ``command line``."""
    help: str
    """The sentence that explains it; empty for a plugin's options."""


def load_settings(workspace: Path, **overrides: Any) -> Settings:
    """Read the settings that hold in a workspace.

    Args:
        workspace: A folder with a ``genrec.toml``.
        overrides: Values of command-line flags by field name; ``None`` stands for a flag not given.

    Raises:
        ConfigError: If the folder is not a workspace, or a place holds a wrong key or value.
    """
    values: dict[str, Any] = {}
    for _, layer in _layers(workspace, overrides):
        for path, value in _leaves(layer):
            table = values
            for name in path[:-1]:
                table = table.setdefault(name, {})
            table[path[-1]] = value
    return _validated("settings", values)


def explain_settings(workspace: Path, **overrides: Any) -> list[Setting]:
    """Each setting with its origin, in the order of the file; raises as `load_settings` does."""
    settings = load_settings(workspace, **overrides)
    origin = {path: place for place, layer in _layers(workspace, overrides) for path, _ in _leaves(layer)}
    return [
        Setting(key=".".join(path), value=value, origin=origin.get(path, "default"), help=_help(path))
        for path, value in _leaves(settings.model_dump(mode="json"))
    ]


def create_workspace(folder: Path, values: Mapping[str, Any] | None = None) -> Path:
    """Make a folder a workspace by writing its ``genrec.toml``.

    Args:
        folder: Made if missing.
        values: Settings that differ from their defaults, by top-level field name.

    Returns:
        The file written. Every plain setting stands in it with its explanation, defaults as comments.

    Raises:
        ConfigError: If the folder already is a workspace, cannot be written, or a value is wrong.
    """
    values = dict(values or {})
    settings = _validated("new workspace", values)
    lines = [
        '# Settings of a genrec workspace. A line behind "#" shows a default; `genrec config` shows what holds.',
        "",
    ]
    for name, field in Settings.model_fields.items():
        if field.description and name != "actions":
            mark = "" if name in values else "# "
            lines += [f"# {field.description}", f"{mark}{name} = {_toml(getattr(settings, name))}", ""]
    for table, model in TABLES.items():
        lines += [f"[{table}]"]
        for name, field in model.model_fields.items():
            mark = "" if name in values.get(table, {}) else "# "
            lines += [f"# {field.description}", f"{mark}{name} = {_toml(getattr(getattr(settings, table), name))}"]
        lines += [""]
    lines += ["[actions]", f"# {_help(('actions',))}"]
    lines += [*(f"{toml_key(name)} = {_toml(what)}" for name, what in settings.actions.items()), ""]
    for kind in OPTION_TABLES:
        for name, options in getattr(settings, kind).items():
            lines += [
                f"[{kind}.{toml_key(name)}]",
                *(f"{toml_key(key)} = {_toml(v)}" for key, v in options.items()),
                "",
            ]
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            try:
                out.write("\n".join(lines))
                out.flush()
            except OSError:  # half a file would be taken for a workspace
                file.unlink()
                raise
    except FileExistsError:
        raise ConfigError(
            f"{folder} already is a workspace, or something else is in the way of {file}",
            hint=f"See its settings with: genrec config --workspace {folder}",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot write {file}: {error.strerror or error}",
            hint="Choose a folder that you may write to, or make room.",
        ) from error
    return file


def _layers(workspace: Path, overrides: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place that names settings, the weakest first, each checked on its own so that an error names the place."""
    file = workspace / FILE
    if not file.is_file():
        name = "this folder" if workspace == Path() else str(workspace)
        raise ConfigError(
            f"{name} is not a genrec workspace: it holds no {FILE}",
            hint=f"Make it one with: genrec init{'' if workspace == Path() else f' {workspace}'}; "
            "or name another with --workspace DIR.",
        )
    users = user_config_path("genrec") / FILE
    for place in (users, file):
        if place.is_file():
            values = _read(place)
            _validated(str(place), values)
            yield str(place), values
    for path in _plain_paths():
        variable = "GENREC_" + "_".join(path).upper()
        text = os.environ.get(variable)
        if text is not None:
            value: Any = [part.strip() for part in text.split(",") if part.strip()] if path == ("rerank",) else text
            layer = {path[0]: value} if len(path) == 1 else {path[0]: {path[1]: value}}
            checked = _validated(f"env {variable}", layer).model_dump(mode="json", exclude_unset=True)
            yield f"env {variable}", checked
    given = {name: value for name, value in overrides.items() if value is not None}
    _validated("command line", given)
    yield "command line", given


def _plain_paths() -> Iterator[tuple[str, ...]]:
    for name in Settings.model_fields:
        if name in TABLES:
            yield from ((name, inner) for inner in TABLES[name].model_fields)
        elif name not in (*OPTION_TABLES, "actions"):
            yield (name,)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values of settings that are overridden one by one; a plugin's option is one value, table or not."""
    for name, value in values.items():
        depth = 3 if name in OPTION_TABLES else 2 if name in TABLES or name == "actions" else 1
        yield from _below((name,), value, depth)


def _below(path: tuple[str, ...], value: Any, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    if len(path) == depth or not value:
        if value or len(path) == depth:
            yield path, value
        return
    for name, inner in value.items():
        yield from _below((*path, name), inner, depth)


def _validated(place: str, values: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            known = TABLES.get(path[0], Settings).model_fields
            advice = meant(path[-1], known) or f"Known are: {', '.join(known)}."
            raise ConfigError(f"{place}: there is no setting {key!r}. {advice}") from None
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place}: {key} = {first['input']!r} is wrong: {what}", hint=_help(path) or None) from None


def _help(path: tuple[str, ...]) -> str:
    inside = path[0] in TABLES and len(path) > 1
    field = TABLES[path[0]].model_fields.get(path[1]) if inside else Settings.model_fields.get(path[0])
    return (field.description or "") if field else ""


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's spelling of strings, numbers, booleans and lists is TOML's too."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # the one character TOML escapes and JSON not


def toml_key(name: str) -> str:
    """A name as TOML writes a key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def without_password(value: Any) -> Any:
    """The value with the password of a URL in it blotted out, fit to be shown."""
    return re.sub(r"(://[^:/@\s]*:)[^/\s]*@", r"\1***@", value) if isinstance(value, str) else value
