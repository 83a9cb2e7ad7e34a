"""Settings: which place wins, what a wrong value says, and the file that makes a workspace."""

from __future__ import annotations

import resource
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import config
from genrec.config import Settings, create_workspace, explain_settings, load_settings, without_password
from genrec.errors import ConfigError


@pytest.fixture(autouse=True)
def users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's own settings would lie; nothing of the real user's leaks into a test."""
    monkeypatch.setattr(config, "user_config_path", lambda name: tmp_path / "home" / name)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENREC_{name.upper()}", raising=False)
    return tmp_path / "home" / "genrec" / "genrec.toml"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    create_workspace(folder)
    return folder


def origin(workspace: Path, key: str, **flags: Any) -> tuple[object, str]:
    [setting] = [s for s in explain_settings(workspace, **flags) if s.key == key]
    return setting.value, setting.origin


def test_the_nearest_place_wins(workspace: Path, users_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert origin(workspace, "k") == (10, "default")
    users_file.parent.mkdir(parents=True)
    users_file.write_text("k = 1\ndtype = 'float32'\n")
    assert origin(workspace, "k") == (1, str(users_file))
    (workspace / "genrec.toml").write_text("k = 2\n")
    assert origin(workspace, "k") == (2, str(workspace / "genrec.toml"))
    monkeypatch.setenv("GENREC_K", "3")
    assert origin(workspace, "k") == (3, "env GENREC_K")
    assert origin(workspace, "k", k=4) == (4, "command line")
    assert origin(workspace, "k", k=None) == (3, "env GENREC_K")
    assert load_settings(workspace, k=4).k == 4
    assert load_settings(workspace).dtype == "float32"  # the other places say nothing of it


def test_tables_are_merged_value_by_value(workspace: Path, users_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users_file.parent.mkdir(parents=True)
    users_file.write_text("[history]\nmax_events = 7\n[sources.file]\nzone = 'UTC'\ncolumns = {at = 'when'}\n")
    (workspace / "genrec.toml").write_text("[sources.file]\ncolumns = {user_id = 'who'}\n[sources.other]\n")
    monkeypatch.setenv("GENREC_HISTORY_MAX_TOKENS", "99")
    monkeypatch.setenv("GENREC_RERANK", "recency, diversity")
    settings = load_settings(workspace)
    assert settings.history == config.HistorySettings(max_events=7, max_tokens=99)
    assert settings.sources["file"] == {"zone": "UTC", "columns": {"user_id": "who"}}  # an option is one value
    assert settings.rerank == ("recency", "diversity")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("engin = 'none'", "there is no setting 'engin'. Did you mean 'engine'?"),
        ("[history]\nmax_event = 3", "there is no setting 'history.max_event'. Did you mean 'max_events'?"),
        ("x = 1", "there is no setting 'x'. Known are: store, model"),
        ("k = 0", "k = 0 is wrong"),
        ("k = 'many'", "k = 'many' is wrong"),
        ("dtype = 'float8'", "dtype = 'float8' is wrong"),
        ("history = 3", "history = 3 is wrong"),
        ("sources = ['a']", "sources = ['a'] is wrong"),
        ("time_zone = 'Europe/Berln'", "Did you mean 'Europe/Berlin'?"),
        ("time_zone = '../etc'", "there is no time zone '../etc'"),
        ("country = 'Atlantis'", "country = 'Atlantis' is wrong"),
        ("country = 'ZZ'", "no public holidays are known for the country 'ZZ'"),
        ("k = ", "is not valid TOML"),
    ],
)
def test_a_wrong_value_names_its_file_and_the_way_out(workspace: Path, toml: str, message: str) -> None:
    (workspace / "genrec.toml").write_text(toml)
    with pytest.raises(ConfigError) as error:
        load_settings(workspace)
    assert str(workspace / "genrec.toml") in str(error.value)
    assert message in str(error.value)


def test_a_wrong_variable_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_HISTORY_MAX_EVENTS", "all")
    with pytest.raises(ConfigError, match=r"env GENREC_HISTORY_MAX_EVENTS: history\.max_events = 'all' is wrong"):
        load_settings(workspace)


def test_a_file_that_is_not_text(workspace: Path) -> None:
    (workspace / "genrec.toml").write_bytes(b"k = \xff")
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings(workspace)


def test_a_folder_without_the_file_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a genrec workspace") as error:
        load_settings(tmp_path)
    assert error.value.hint is not None
    assert f"genrec init {tmp_path}" in error.value.hint


def test_a_new_workspace_says_every_setting_and_changes_none(tmp_path: Path) -> None:
    text = create_workspace(tmp_path / "new").read_text()
    assert tomllib.loads(text) == {"history": {}, "search": {}, "serve": {}, "actions": {}}
    assert load_settings(tmp_path / "new") == Settings()
    for name, field in Settings.model_fields.items():
        assert field.description is None or f"# {name} = " in text or f"[{name}]" in text
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if " = " in line or "[" in line[:1])
    assert Settings.model_validate(tomllib.loads(uncommented)) == Settings()


@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "store": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            "model": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            "rerank": st.lists(st.text(max_size=5), max_size=3),
            "k": st.integers(1, 100),
            "actions": st.just({"hide it": -1, "rate": {"positive": 3.5}}),
            "history": st.fixed_dictionaries({}, optional={"max_events": st.integers(1, 99)}),
            "sources": st.just({"a b": {"path": 'C:\\x "y"', "n": 1.5, "on": True, "map": {"a.b": ["c"]}}}),
        },
    )
)
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("ws")
    create_workspace(folder, values)
    assert load_settings(folder) == Settings.model_validate(values)


def test_a_workspace_is_never_overwritten(workspace: Path) -> None:
    (workspace / "genrec.toml").write_text("k = 3\n")
    with pytest.raises(ConfigError, match="already is a workspace"):
        create_workspace(workspace)
    assert (workspace / "genrec.toml").read_text() == "k = 3\n"


def test_a_wrong_value_makes_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k = 0"):
        create_workspace(tmp_path / "new", {"k": 0})
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError):
        create_workspace(tmp_path / "taken" / "inside")


def test_a_full_disk_leaves_no_half_workspace(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(ConfigError, match="File too large") as caught:
            create_workspace(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
    create_workspace(tmp_path)


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", "postgresql://ann:secret@db/shop")
    assert Settings().store_in(tmp_path) == tmp_path / "genrec.db"
    assert Settings(store="/data/x.db").store_in(tmp_path) == Path("/data/x.db")
    assert Settings(store="env:SHOP_DB").store_in(tmp_path) == "postgresql://ann:secret@db/shop"
    with pytest.raises(ConfigError, match="NOT_SET is not set"):
        Settings(store="env:NOT_SET").store_in(tmp_path)


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://ann:se:cr@t@db:5432/shop") == "postgresql://ann:***@db:5432/shop"
    assert without_password("postgresql://db/shop") == "postgresql://db/shop"
    assert without_password(3) == 3
