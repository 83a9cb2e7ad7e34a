"""The run over a store: what is read once, what is read again, and what stops nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genrec.errors import ConfigError, DataError, ModelError
from genrec.events import Item, batch
from genrec.media import reading
from genrec.media.base import MediaReader, Reading
from genrec.media.reading import MAX_CHARS, Outcome, read_media
from genrec.media.text import Text
from genrec.plugins import Registry
from genrec.store import Store


@dataclass(kw_only=True)
class Echo(MediaReader):
    """Says what stands in a file, and remembers what it was given."""

    version: int = 1
    given: list[bytes] = field(default_factory=list)

    def identity(self) -> str:
        return f"echo {self.version}"

    def read(self, content: bytes) -> Reading:
        self.given.append(content)
        if content == b"broken":
            raise DataError("is broken")
        if content == b"odd":
            raise RecursionError("what nobody foresaw")
        if content == b"no model":
            raise ModelError("the model is gone", hint="Get it again.")
        if content == b"no vector":
            return Reading(words="", vector=np.array([1.0, np.nan]))
        return Reading(words=content.decode(), vector=np.array([len(content), 1.0]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files are, below a workspace."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "genrec.db") as store:
        yield store


def put(store: Store, **files: str | None) -> None:
    """Items that name files."""
    items = [
        Item(item_id=name, title=name, attributes={"image": file} if file is not None else {})
        for name, file in files.items()
    ]
    store.put("items", [batch("items", items)])


def run(store: Store, reader: MediaReader, folder: Path) -> Outcome:
    return read_media(store, {"echo": reader}, folder.parent)["echo"]


def words(store: Store) -> dict[str, str]:
    return {one.item_id: one.words for one in store.media()}


def counts(outcome: Outcome) -> tuple[int, int, int, int]:
    return outcome.n_read, outcome.n_unchanged, outcome.n_missing, outcome.n_failed


def test_files_are_read_once_and_again_when_they_change(store: Store, folder: Path) -> None:
    put(store, a="a.txt", b="b.txt", c=None, d=" ")
    (folder / "a.txt").write_bytes(b"oat milk")
    (folder / "b.txt").write_bytes(b"rye bread")
    reader = Echo(folder=Path("files"))
    assert counts(run(store, reader, folder)) == (2, 0, 0, 0)
    assert words(store) == {"a": "oat milk", "b": "rye bread"}
    assert counts(run(store, reader, folder)) == (0, 2, 0, 0)
    (folder / "b.txt").write_bytes(b"dark bread")
    assert counts(run(store, reader, folder)) == (1, 1, 0, 0)
    assert reader.given == [b"oat milk", b"rye bread", b"dark bread"]
    assert words(store)["b"] == "dark bread"
    assert counts(run(store, Echo(folder=folder, version=2), folder)) == (2, 0, 0, 0), "another reader"
    [first, _] = store.media(vectors=True)
    np.testing.assert_array_equal(np.frombuffer(first.vector or b"", "<f4"), [8.0, 1.0])
    assert next(store.media()).vector is None


def test_the_same_picture_of_several_items_is_read_once(store: Store, folder: Path) -> None:
    put(store, **{f"i{n}": f"{n}.txt" for n in range(200)})
    for n in range(200):
        (folder / f"{n}.txt").write_bytes(b"a logo")
    reader = Echo(folder=folder)
    assert counts(run(store, reader, folder)) == (1, 199, 0, 0)
    put(store, late="late.txt")
    (folder / "late.txt").write_bytes(b"a logo")
    assert counts(run(store, reader, folder)) == (0, 201, 0, 0)
    assert reader.given == [b"a logo"]
    assert set(words(store).values()) == {"a logo"}
    assert len(words(store)) == 201


def test_nothing_of_a_file_stops_the_run_and_each_reason_is_told(store: Store, folder: Path) -> None:
    files = {"good": "good.txt", "gone": "gone.txt", "broken": "broken.txt", "odd": "odd.txt", "nan": "nan.txt"}
    put(store, **files)
    for name, content in (("good", b"tea"), ("broken", b"broken"), ("odd", b"odd"), ("nan", b"no vector")):
        (folder / f"{name}.txt").write_bytes(content)
    outcome = run(store, Echo(folder=folder), folder)
    assert counts(outcome) == (1, 0, 1, 3)
    assert outcome.examples == {"good": "tea"}
    assert outcome.reasons == [
        "item gone: gone.txt is not there",
        "item broken: broken.txt is broken",
        "item odd: odd.txt cannot be read: RecursionError: what nobody foresaw",
        "item nan: nan.txt was read as a vector that is no row of numbers",
    ]
    assert words(store) == {"good": "tea"}
    assert outcome.unusable == ""
    [reason] = run(store, Echo(folder=folder, attribute="picture"), folder).reasons
    assert reason == "no item has an attribute 'picture'"


def test_an_item_keeps_what_was_read_as_long_as_it_names_the_same_file(store: Store, folder: Path) -> None:
    put(store, a="a.txt", b="b.txt", c="c.txt")
    for name in "abc":
        (folder / f"{name}.txt").write_bytes(name.encode())
    run(store, Echo(folder=folder), folder)
    (folder / "a.txt").unlink()
    put(store, b="other.txt", c=None)
    assert counts(run(store, Echo(folder=folder), folder)) == (0, 0, 2, 0)
    assert words(store) == {"a": "a"}, "its file is away, which may pass; the others name theirs no more"
    (folder / "other.txt").write_bytes(b"b")
    assert counts(run(store, Echo(folder=folder), folder)) == (1, 0, 1, 0)
    (folder / "other.txt").rename(folder / "another.txt")
    put(store, b="another.txt")
    assert counts(run(store, Echo(folder=folder), folder)) == (0, 1, 1, 0), "only its name is new"
    assert words(store) == {"a": "a", "b": "b"}


def test_a_reader_that_cannot_be_used_takes_nothing_away_and_lets_others_go_on(store: Store, folder: Path) -> None:
    put(store, a="a.txt", b="b.txt", c="c.txt")
    for name in "abc":
        (folder / f"{name}.txt").write_bytes(name.encode())
    run(store, Echo(folder=folder), folder)
    (folder / "a.txt").write_bytes(b"new")
    (folder / "b.txt").write_bytes(b"no model")

    class Absent(Echo):
        def identity(self) -> str:
            raise ModelError("a package is missing", hint="pip install it")

    found = read_media(
        store, {"absent": Absent(folder=folder), "echo": Echo(folder=folder), "again": Echo(folder=folder)}, folder
    )
    assert found["absent"].unusable == "a package is missing. pip install it"
    assert found["echo"].unusable == "the model is gone. Get it again."
    assert counts(found["echo"]) == (1, 0, 0, 0)
    assert {(one.reader, one.item_id): one.words for one in store.media()} == {
        ("echo", "a"): "new",
        ("echo", "b"): "b",
        ("echo", "c"): "c",
        ("again", "a"): "new",
    }


def test_nothing_outside_the_folder_is_opened_nor_fetched(store: Store, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "inside.txt").write_bytes(b"inside")
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()
    refused = {
        "up": "../secret.txt",
        "absolute": str(tmp_path / "secret.txt"),
        "link": "link.txt",
        "beside": "../files-too/x.txt",
        "web": "https://example.org/a.png",
        "data": "data:text/plain,hello",
        "pipe": "pipe",
        "folder": "sub",
        "itself": ".",
        "nul": "a\0b",
        "long": "x" * 5000,
    }
    put(store, **refused, loop="loop.txt", good="sub/../inside.txt", also=str(folder / "inside.txt"))
    reader = Echo(folder=folder)
    outcome = run(store, reader, folder)
    assert set(words(store)) == {"good", "also"}
    assert reader.given == [b"inside"]
    assert outcome.n_failed + outcome.n_missing == len(refused) + 1
    assert outcome.n_missing <= 2  # what a link to itself is called differs between versions of Python
    assert "item web: https://example.org/a.png is an address; nothing is fetched" in "\n".join(outcome.reasons)


def test_a_file_that_is_too_long_is_refused(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    put(store, a="a.txt", b="b.txt")
    (folder / "a.txt").write_bytes(b"x" * 10)
    (folder / "b.txt").write_bytes(b"x" * 11)
    assert counts(run(store, Echo(folder=folder), folder)) == (1, 0, 0, 1)
    assert set(words(store)) == {"a"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=900))
def test_whatever_a_reader_says_is_kept_as_one_short_clean_line(store: Store, folder: Path, text: str) -> None:
    class Says(Echo):
        def identity(self) -> str:
            return text.encode(errors="replace").hex()

        def read(self, content: bytes) -> Reading:
            return Reading(words=text)

    put(store, a="a.txt")
    (folder / "a.txt").write_bytes(b"")
    run(store, Says(folder=folder), folder)
    [kept] = words(store).values()
    assert len(kept) <= MAX_CHARS
    assert not set(kept) & {"\n", "\r", "\0", "|", ";"}


def test_a_run_that_is_stopped_keeps_what_it_has(store: Store, folder: Path) -> None:
    class Stops(Echo):
        def read(self, content: bytes) -> Reading:
            if content == b"3":
                raise KeyboardInterrupt
            return super().read(content)

    put(store, **{f"i{n}": f"{n}.txt" for n in range(5)})
    for n in range(5):
        (folder / f"{n}.txt").write_bytes(str(n).encode())
    with pytest.raises(KeyboardInterrupt):
        run(store, Stops(folder=folder), folder)
    assert words(store) == {"i0": "0", "i1": "1", "i2": "2"}
    assert counts(run(store, Echo(folder=folder), folder)) == (2, 3, 0, 0)


def test_texts_are_kept_as_they_begin(store: Store, folder: Path) -> None:
    store.put("items", [batch("items", [Item(item_id="a", title="A", attributes={"text": "a.txt"})])])
    (folder / "a.txt").write_bytes("\ufeffA creamy oat drink\nfor coffee. ".encode() + b"More. " * 5000)
    read_media(store, {"text": Text(folder=folder)}, folder)
    [kept] = words(store).values()
    assert kept.startswith("A creamy oat drink for coffee. More.")
    assert len(kept) <= MAX_CHARS
    with pytest.raises(DataError, match="no text in utf-8"):
        Text(folder=folder).read(b"\xff\xfe")
    assert Text(folder=folder, encoding="cp1252").read(b"caf\xe9").words == "café"
    with pytest.raises(ConfigError, match="no encoding 'utf-9'"):
        Text(folder=folder, encoding="utf-9")


def test_readers_come_through_the_door_that_plugins_use() -> None:
    registry = Registry()
    assert {"caption", "ocr", "sounds", "tags", "text"} <= set(registry.names("media"))
    built = registry.build("media", "text", {"folder": "texts", "attribute": "about"})
    assert built == Text(folder=Path("texts"), attribute="about")
    with pytest.raises(ConfigError, match="media 'text' needs the option folder"):
        registry.build("media", "text")
