"""Finding plugins and looking names up in them.

Every distribution that declares an entry point in the group ``genrec`` is a plugin, core among them. One that fails
to import is logged as one warning and kept in `Registry.broken`; it is an error only when asked for by name.
Knows nothing of what the hooks return beyond "a mapping from names".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pluggy
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from genrec import hookspecs
from genrec.errors import ConfigError, PluginError, meant

GROUP = "genrec"
"""The entry-point group of plugins."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A plugin that is installed but cannot be used."""

    owner: str
    """Distribution and version, e.g. ``genrec-recency 0.1``."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin that works, and what it offers."""

    owner: str
    """Distribution and version."""
    offers: Mapping[str, tuple[str, ...]]
    """Kind (``sources``, ``rerankers`` …) → names."""


class Registry:
    """What all plugins offer, by hook and name.

    Args:
        modules: Plugin modules by owner; the installed ones when omitted. Tests pass their own.
    """

    def __init__(self, modules: Mapping[str, ModuleType | object] | None = None) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._broken: list[Broken] = []
        if modules is None:
            modules = dict(self._installed())
        for owner, module in modules.items():
            self._register(owner, module)

    def _installed(self) -> Iterator[tuple[str, ModuleType]]:
        """Import the installed plugins, one by one: pluggy's own loader lets one broken plugin end the program."""
        allowed = os.environ.get("GENREC_PLUGINS")
        for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name != "core", _owner(e))):
            if allowed is not None and entry.name not in ("core", *allowed.split(",")):
                continue
            try:
                yield f"{_owner(entry)}:{entry.name}", entry.load()
            except (Exception, SystemExit) as error:
                self._leave_out(_owner(entry), error)

    def _register(self, owner: str, module: ModuleType | object) -> None:
        try:
            self._manager.register(module, name=owner)
            self._manager.check_pending()
        except Exception as error:
            if self._manager.has_plugin(owner):
                self._manager.unregister(name=owner)
            self._leave_out(owner.split(":")[0], error)

    def _leave_out(self, owner: str, error: BaseException, where: str = "") -> None:
        self._broken.append(Broken(owner=owner, reason=f"{where}{type(error).__name__}: {error}"))
        log.warning("warning: the plugin %s is broken and left out: %s", owner, self._broken[-1].reason)

    @cached_property
    def _offers(self) -> dict[str, dict[str, list[tuple[str, Any]]]]:
        """Hook name → offered name → (owner, class) of each plugin that offers it."""
        offers: dict[str, dict[str, list[tuple[str, Any]]]] = {}
        for hook in vars(self._manager.hook).values():
            table = offers.setdefault(hook.name.removeprefix("genrec_"), {})
            for implementation in hook.get_hookimpls():
                owner = implementation.plugin_name.split(":")[0]
                try:
                    offered = dict(implementation.function())
                except Exception as error:
                    self._leave_out(owner, error, f"{hook.name}: ")
                    continue
                for name, value in offered.items():
                    table.setdefault(name, []).append((owner, value))
        return offers

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins that work, core first, each with all that it offers."""
        offers: dict[str, dict[str, tuple[str, ...]]] = {
            name.split(":")[0]: {} for name, _ in self._manager.list_name_plugin()
        }
        for kind, table in self._offers.items():
            for name, owners in sorted(table.items()):
                for owner, _ in owners:
                    offers[owner][kind] = (*offers[owner].get(kind, ()), name)
        return tuple(Plugin(owner=owner, offers=offered) for owner, offered in offers.items())

    @property
    def broken(self) -> tuple[Broken, ...]:
        """Plugins that failed to import, and hooks that failed when they were asked."""
        _ = self._offers
        return tuple(self._broken)

    def names(self, kind: str) -> dict[str, str]:
        """Offered names of one kind (``sources``, ``rerankers`` …) with the plugin that offers each."""
        return {name: owners[0][0] for name, owners in sorted(self._offers.get(kind, {}).items())}

    def get(self, kind: str, name: str) -> Any:
        """Look up what a name stands for.

        Raises:
            PluginError: If no plugin offers the name, or more than one does.
        """
        found = self._offers.get(kind, {}).get(name, [])
        if len(found) == 1:
            return found[0][1]
        singular = kind.removesuffix("s")
        if found:
            owners = " and ".join(owner for owner, _ in found)
            raise PluginError(
                f"the {singular} {name!r} is registered by both {owners}",
                hint="Uninstall one of them, or name the plugins to load in GENREC_PLUGINS.",
            )
        message = f"no {singular} {name!r}. {meant(name, self.names(kind))}".rstrip()
        installed = ", ".join(f"{offered} ({owner})" for offered, owner in self.names(kind).items())
        message += f" Installed: {installed or 'none'}."
        for broken in self.broken:
            message += f" {broken.owner} is installed but broken: {broken.reason}."
        raise PluginError(message, hint="See what is installed with: genrec plugins list")

    def build(self, kind: str, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Make the named thing from its options; a value ``env:NAME`` is read from the environment.

        Raises:
            PluginError: If the name is unknown or ambiguous.
            ConfigError: If an option is unknown, missing, of another type or names an unset variable.
        """
        cls = self.get(kind, name)
        what = f"{kind.removesuffix('s')} {name!r}"
        known = {f.name: f for f in fields(cls) if f.init} if is_dataclass(cls) else {}
        types = _types(cls) if known else {}
        values: dict[str, Any] = {}
        for key, value in (options or {}).items():
            if key not in known:
                advice = meant(key, known) or f"It has: {', '.join(sorted(known)) or 'none'}."
                raise ConfigError(f"{what} has no option {key!r}. {advice}")
            values[key] = _typed(f"{what}: option {key}", types.get(key), value)
        missing = [
            key
            for key, f in known.items()
            if key not in values and f.default is MISSING and f.default_factory is MISSING
        ]
        if missing:
            raise ConfigError(
                f"{what} needs the option {' and '.join(missing)}",
                hint=f"Set it in genrec.toml, below [{kind}.{name}].",
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"cannot set up {what}: {error}") from error


@cache
def installed() -> Registry:
    """The registry of the installed plugins; the same one for the whole process, so each warning comes once."""
    return Registry()


def _owner(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _types(cls: type) -> Mapping[str, Any]:
    try:
        return get_type_hints(cls)
    except NameError:  # a type that is only there for type checkers: the options are taken as they come
        return {}


def _typed(option: str, kind: Any, given: Any) -> Any:
    """An option's value as its field's type: the command line and the environment know nothing but text."""
    value = from_environment(given)
    if kind is None or (isinstance(value, str) and str in get_args(kind)):
        return value
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{option}: {error.errors()[0]['msg']}, not {given!r}") from None
    except PydanticUserError:  # a type of the plugin's own
        return value


def from_environment(value: Any) -> Any:
    """The value itself, or what the environment says where it is ``env:NAME``: secrets stay out of files.

    Raises:
        ConfigError: If the variable is not set.
    """
    if not (isinstance(value, str) and value.startswith("env:")):
        return value
    name = value.removeprefix("env:")
    if name not in os.environ:
        raise ConfigError(f"the environment variable {name} is not set", hint=f"Set it: export {name}=…")
    return os.environ[name]
