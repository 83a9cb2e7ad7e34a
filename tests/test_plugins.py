"""Plugins: what is found, what is left out with a warning, and what a name that is not there is answered with."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genrec import hookimpl
from genrec.errors import ConfigError, PluginError
from genrec.plugins import Registry, from_environment

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one plugin module where this process, and those it starts, find it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("GENREC_PLUGINS", raising=False)

    def make(name: str, code: str, version: str = "1.0") -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)  # the one of the test before
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[genrec]\n{name.removeprefix('genrec-')} = {module}\n")

    return make


GOOD = """
from dataclasses import dataclass
from genrec import hookimpl

@dataclass
class Recency:
    half_life_s: float = 60.0

@hookimpl
def genrec_rerankers():
    return {"recency": Recency}
"""


def test_core_comes_through_the_same_door() -> None:
    registry = Registry()
    assert registry.plugins[0].owner.startswith("genrec ")
    assert "file" in registry.plugins[0].offers["sources"]
    assert registry.broken == ()


def test_an_installed_plugin_is_found(install: Install) -> None:
    install("genrec-recency", GOOD)
    registry = Registry()
    assert registry.names("rerankers")["recency"] == "genrec-recency 1.0"
    assert registry.build("rerankers", "recency", {"half_life_s": 5.0}).half_life_s == 5.0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("def broken(:", "SyntaxError"),
        ("from genrec import hookimpl\n@hookimpl\ndef genrec_rerankerz(): return {}", "genrec_rerankerz"),
        ("from genrec import hookimpl\n@hookimpl\ndef genrec_rerankers(): return 1 / 0", "ZeroDivisionError"),
        ("from genrec import hookimpl\n@hookimpl\ndef genrec_rerankers(): return 7", "TypeError"),
    ],
)
def test_a_broken_plugin_is_one_warning(
    install: Install, caplog: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    install("genrec-bad", code)
    install("genrec-recency", GOOD)
    with caplog.at_level(logging.WARNING, "genrec"):
        registry = Registry()
        assert "recency" in registry.names("rerankers")
        assert registry.names("rerankers") == registry.names("rerankers")
    [broken] = registry.broken
    assert broken.owner == "genrec-bad 1.0"
    assert reason in broken.reason
    assert [r.getMessage().split(" is ")[0] for r in caplog.records] == ["warning: the plugin genrec-bad 1.0"]


def test_it_is_fatal_when_asked_for_by_name(install: Install) -> None:
    install("genrec-bad", "import not_there_at_all")
    with pytest.raises(PluginError, match=r"no source 'bad'\..*genrec-bad 1\.0 is installed but broken") as error:
        Registry().get("sources", "bad")
    assert error.value.hint == "See what is installed with: genrec plugins list"


def test_the_command_line_goes_on_without_it(install: Install) -> None:
    install("genrec-bad", "import not_there_at_all")
    install("genrec-recency", GOOD)
    genrec = [sys.executable, "-m", "genrec"]
    listed = subprocess.run([*genrec, "plugins", "list", "--json"], capture_output=True, text=True, check=True)
    found = {row["name"]: row for row in json.loads(listed.stdout)}
    assert found["genrec-recency"]["offers"] == {"rerankers": ["recency"]}
    assert found["genrec-bad"]["broken"] == "ModuleNotFoundError: No module named 'not_there_at_all'"
    assert listed.stderr.count("genrec-bad") == 1
    helped = subprocess.run([*genrec, "--help"], capture_output=True, text=True, check=True)
    assert helped.stderr == ""  # no plugin is even imported


def test_only_the_named_plugins_are_loaded(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("genrec-bad", "import not_there_at_all")
    install("genrec-recency", GOOD)
    monkeypatch.setenv("GENREC_PLUGINS", "recency")
    assert [plugin.owner.split()[0] for plugin in Registry().plugins] == ["genrec", "genrec-recency"]
    assert Registry().broken == ()
    monkeypatch.setenv("GENREC_PLUGINS", "")
    assert [plugin.owner.split()[0] for plugin in Registry().plugins] == ["genrec"]


@dataclass(kw_only=True)
class Shelf:
    """A source that has to be told where."""

    place: str
    tags: tuple[str, ...] = ()


class Offers:
    """A plugin that offers one thing under some names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def genrec_sources(self) -> Mapping[str, Any]:
        return dict.fromkeys(self.names, Shelf)


def test_a_close_name_is_suggested() -> None:
    registry = Registry({"genrec-a 1.0:a": Offers("jsonl", "csv")})
    with pytest.raises(PluginError) as error:
        registry.get("sources", "jsnl")
    assert str(error.value) == (
        "no source 'jsnl'. Did you mean 'jsonl'? Installed: csv (genrec-a 1.0), jsonl (genrec-a 1.0)."
    )
    with pytest.raises(PluginError, match=r"no engine 'x'\. Installed: none\."):
        registry.get("engines", "x")


def test_a_name_registered_twice_names_both_owners() -> None:
    registry = Registry({"genrec-a 1.0:a": Offers("csv"), "genrec-b 2.0:b": Offers("csv", "own")})
    assert registry.get("sources", "own") is Shelf
    with pytest.raises(PluginError, match=r"'csv' is registered by both genrec-a 1\.0 and genrec-b 2\.0"):
        registry.get("sources", "csv")


def test_options_are_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry({"genrec-a 1.0:a": Offers("csv")})
    monkeypatch.setenv("SHELF", "top secret")
    assert registry.build("sources", "csv", {"place": "env:SHELF"}) == Shelf(place="top secret")
    with pytest.raises(ConfigError, match=r"source 'csv' has no option 'plaec'\. Did you mean 'place'\?"):
        registry.build("sources", "csv", {"plaec": "x"})
    with pytest.raises(ConfigError, match=r"has no option 'zzz'\. It has: place, tags"):
        registry.build("sources", "csv", {"zzz": 1})
    with pytest.raises(ConfigError, match="source 'csv' needs the option place") as error:
        registry.build("sources", "csv")
    assert error.value.hint == "Set it in genrec.toml, below [sources.csv]."


@dataclass(kw_only=True)
class Typed:
    """A reranker with options of all sorts."""

    n: int = 1
    share: float | None = None
    folder: Path = Path()
    names: Sequence[str] = ()
    own: Registry | None = None


class OffersTyped:
    @hookimpl
    def genrec_rerankers(self) -> Mapping[str, Any]:
        return {"typed": Typed}


def test_options_become_what_their_fields_are(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry({"genrec-t 1.0:t": OffersTyped()})
    monkeypatch.setenv("SECRET", "12")
    given = {"n": "env:SECRET", "share": "0.5", "folder": "x", "names": ["a", "b"], "own": registry}
    built = registry.build("rerankers", "typed", given)
    assert built == Typed(n=12, share=0.5, folder=Path("x"), names=["a", "b"], own=registry)
    with pytest.raises(ConfigError, match=r"^reranker 'typed': option n: .* valid integer.*, not 'many'$"):
        registry.build("rerankers", "typed", {"n": "many"})
    monkeypatch.setenv("SECRET", "top secret")
    with pytest.raises(ConfigError, match=r"not 'env:SECRET'$") as error:
        registry.build("rerankers", "typed", {"n": "env:SECRET"})
    assert "top" not in str(error.value)


def test_a_secret_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="NOT_SET is not set"):
        from_environment("env:NOT_SET")
    assert from_environment("plain") == "plain"
    assert from_environment(3) == 3
