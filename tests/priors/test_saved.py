"""A prior that was kept is taken where nothing has changed that decides it, and never otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.events import Context, Edge, Event, Item, Medium, batch
from genrec.history import History, moments
from genrec.plugins import Registry
from genrec.priors import saved
from genrec.priors.base import Prior, State
from genrec.priors.blend import Blend
from genrec.priors.popularity import Popularity
from genrec.priors.saved import MOST, SavedPriors, load, save
from genrec.priors.sequence import Sequence
from genrec.store import Store

START = datetime(2025, 3, 1, tzinfo=UTC)
NAMES = ("tea", "milk", "bread")
TURNS = [(f"u{person}", NAMES[(person + day) % 3], day, f"u{person} {day}") for person in range(12) for day in range(5)]
"""Who took what on which day, and the id."""


@dataclass(kw_only=True)
class Watched(Popularity):
    """Popularity that says which of its methods were called."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.did: list[str] = []

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        self.did.append("fit")
        super().fit(catalog, events)

    def state(self) -> State:
        return super().state()

    def restore(self, catalog: Catalog, state: State) -> None:
        self.did.append("restore")
        super().restore(catalog, state)

    def grow(self, events: Iterable[pa.RecordBatch]) -> bool:
        self.did.append("grow")
        return super().grow(events)


FITTED, RESTORED, GROWN = ["fit", "restore", "grow"], ["restore"], ["restore", "grow"]


def append(store: Store, *taken: tuple[str, str, float, str]) -> None:
    events = [
        Event(user_id=user, item_id=item, at=START + timedelta(days=day), event_id=name)
        for user, item, day, name in taken
    ]
    store.append([batch("events", events)], source="test")


def put(store: Store, **titles: str) -> None:
    store.put("items", [batch("items", [Item(item_id=name, title=title) for name, title in titles.items()])])


@pytest.fixture
def store(tmp_path: Path) -> Iterable[Store]:
    with Store.open(tmp_path / "genrec.db") as store:
        put(store, **{name: name for name in NAMES})
        append(store, *TURNS)
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "priors"


def catalog_of(store: Store) -> Catalog:
    return Catalog.read(store.items(), store.texts(), retired=store.retired(), media=store.media)


def start(store: Store, folder: Path, prior: Prior | None = None, **how: Any) -> Any:
    """What a process does when it starts."""
    before = how.pop("before", None)
    return SavedPriors(folder, store, catalog_of(store), **how).fitted(prior or Watched(), before=before)


def says(prior: Prior, user: str = "u1", day: float = 50) -> np.ndarray:
    own = [
        Event(user_id=user, item_id=item, at=START + timedelta(days=at)) for who, item, at, _ in TURNS if who == user
    ]
    return prior.log_mass(
        History(user_id=user, user=None, at=START + timedelta(days=day), moments=moments(own)), Context()
    )


def anew(store: Store, prior: Prior | None = None) -> np.ndarray:
    """What a prior says that nobody kept."""
    fresh = prior or Popularity()
    fresh.relate(store.edges())
    fresh.fit(catalog_of(store), store.events())
    return says(fresh)


def kept(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if not one.name.startswith(".")]


@pytest.mark.parametrize(
    ("change", "then"),
    [
        (lambda store: None, RESTORED),
        (lambda store: append(store, *TURNS), RESTORED),  # nothing that it did not have
        (lambda store: append(store, ("u1", "milk", 4.0, "at the last instant")), GROWN),
        (lambda store: append(store, ("zoe", "milk", 9.0, "later")), GROWN),
        (lambda store: append(store, ("zoe", "milk", 3.9, "late to come")), FITTED),
        (lambda store: append(store, ("u1", "bread", 9.0, "u1 2")), FITTED),  # a correction
        (lambda store: store.forget("u3"), FITTED),
        (
            lambda store: store.put_media([Medium(item_id="tea", reader="r", file="f", content="c", words="oat")]),
            FITTED,
        ),
        (lambda store: put(store, tea="Green tea"), FITTED),
        (lambda store: put(store, coffee="coffee"), FITTED),
        (lambda store: store.retire(["tea"]), RESTORED),  # it goes on being counted
        (lambda store: store.put("edges", [batch("edges", [Edge(from_id="u1", to_id="u2")])]), RESTORED),
    ],
)
def test_what_was_kept_is_taken_or_grows_or_is_made_anew(
    store: Store, folder: Path, change: Callable[[Store], object], then: list[str]
) -> None:
    assert start(store, folder).did == FITTED
    assert start(store, folder).did == RESTORED
    change(store)
    prior = start(store, folder)
    assert prior.did == then
    np.testing.assert_array_equal(says(prior), anew(store))
    assert start(store, folder).did == RESTORED
    assert len(kept(folder)) == 1


def test_whatever_else_decides_what_a_prior_learns_is_told_apart(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = START + timedelta(days=2)
    ways: list[dict[str, Any]] = [
        {},
        {"prior": Watched(floor=0.7)},
        {"before": early},
        {"before": early + timedelta(microseconds=1)},
        {"version": "genrec 0.2"},
    ]
    for way in ways:
        assert start(store, folder, **way).did == FITTED
    for way in ways:
        again = way | {"prior": Watched(floor=0.7)} if "prior" in way else way
        assert start(store, folder, **again).did == RESTORED
    append(store, ("zoe", "milk", 9.0, "later"))
    assert start(store, folder, before=early).did == RESTORED  # nothing new before that
    monkeypatch.setattr(saved, "_code", lambda kind: "changed")
    assert start(store, folder).did == FITTED
    for changed in ("tzfpy", "tzdata"):  # where places have which clock, and when clocks change
        with monkeypatch.context() as patched:
            patched.setattr(metadata, "version", lambda name, changed=changed: "9" if name == changed else "1")
            assert start(store, folder).did == FITTED
            assert start(store, folder).did == RESTORED


def test_who_knows_whom_is_told_apart_for_those_who_care(store: Store, folder: Path) -> None:
    class Listening(Watched):
        def relate(self, edges: Iterable[pa.RecordBatch]) -> None:
            self.heard = [row["to_id"] for rows in edges for row in rows.to_pylist()]

    def blend() -> Blend:
        return Blend.of({"one": Watched(), "other": Listening()})

    start(store, folder, Listening())
    start(store, folder, blend())
    store.put("edges", [batch("edges", [Edge(from_id="u1", to_id="u2")])])
    for then in (FITTED, RESTORED):
        prior, other = start(store, folder, Listening()), start(store, folder, blend()).voices["other"]
        assert prior.heard == other.heard == ["u2"]
        assert prior.did == then
        assert ("fit" in other.did) == (then == FITTED)


def test_other_code_is_told_from_this() -> None:
    class Other(Popularity):
        pass

    assert saved._code(Watched) == saved._code(Other) != saved._code(Popularity)


def test_a_blend_is_told_by_its_members_and_their_options(store: Store, folder: Path) -> None:
    def blend(strength: float) -> Blend:
        return Blend.of({"popular": Watched(strength=strength), "ease": Registry().build("priors", "ease")})

    for strength, fitted in ((3.0, True), (30.0, True), (3.0, False)):
        prior = start(store, folder, blend(strength))
        assert ("fit" in prior.voices["popular"].did) == fitted
        np.testing.assert_array_equal(says(prior), anew(store, blend(strength)))


def test_nothing_stays_of_a_forgotten_person(store: Store, folder: Path) -> None:
    def written() -> bytes:
        return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())

    append(store, ("a friend's marker", "tea", 2.0, "e1"))
    store.put("edges", [batch("edges", [Edge(from_id="u1", to_id="an edge's marker")])])
    for name in ("a friend's marker", "an edge's marker"):
        for prior in ("sequence", "friends"):
            start(store, folder, Registry().build("priors", prior))
        shutil.copytree(kept(folder)[0], folder / ".of a process that was killed")
        assert name.encode() in written()
        store.forget(name)
        start(store, folder, Watched())  # any prior will do
        assert name.encode() not in written()


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\x93NUMPY and then something else"),
        lambda file: file.write_bytes(b'["something", "else"]'),
        lambda file: os.truncate(file, file.stat().st_size - 1),
    ],
)
def test_a_damaged_one_is_made_anew(store: Store, folder: Path, damage: Callable[[Path], object]) -> None:
    start(store, folder)
    [whole] = kept(folder)
    for name in sorted(file.name for file in whole.iterdir() if file.suffix == ".npy" or file.name == "values.json"):
        damage(whole / name)
        prior = start(store, folder)
        assert "fit" in prior.did
        np.testing.assert_array_equal(says(prior), anew(store))
        assert start(store, folder).did == RESTORED
    damage(whole / "about.json")
    append(store, ("zoe", "milk", 9.0, "later"))
    assert start(store, folder).did == FITTED
    assert len(kept(folder)) == 1


def test_a_prior_that_keeps_nothing_is_fitted_each_time(store: Store, folder: Path) -> None:
    class Counts(Sequence):
        """Learns more than those it comes from, and says nothing of keeping it."""

        def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
            batches = list(events)
            super().fit(catalog, batches)
            self.n_events = sum(len(some) for some in batches)

    for _ in range(2):
        assert start(store, folder, Counts(n_fit=0)).n_events == len(TURNS)
        blend = start(store, folder, Blend.of({"one": Counts(n_fit=0), "other": Watched()}))
        assert blend.voices["other"].did.count("fit") == 2
        assert not folder.exists()


def test_where_nothing_can_be_written_it_is_fitted_all_the_same(store: Store, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("no folder")
    assert start(store, folder).did == FITTED
    assert start(store, folder).did == FITTED


def test_those_used_last_are_kept(store: Store, folder: Path) -> None:
    start(store, folder, Watched())
    for n in range(MOST + 2):
        start(store, folder, Watched(strength=10.0 + n))
        for i, one in enumerate(sorted(kept(folder), key=lambda one: one.stat().st_mtime)):
            os.utime(one, (n * 100 + i, n * 100 + i))  # clocks of some disks are coarse
        assert start(store, folder, Watched()).did == RESTORED
    assert len(kept(folder)) == MOST
    assert start(store, folder, Watched(strength=11.0)).did == FITTED


def test_processes_that_start_at_once_do_no_harm_to_each_other(store: Store, folder: Path) -> None:
    for n in range(5):
        append(store, ("zoe", NAMES[n % 3], 9.0 + n, f"later {n}"))
        expected = anew(store)
        with ThreadPoolExecutor(6) as pool:
            for prior in pool.map(lambda _: start(store, folder), range(12)):
                np.testing.assert_array_equal(says(prior), expected)
        assert start(store, folder).did[-1:] != ["fit"]
        assert len(kept(folder)) <= 1


def test_an_event_that_comes_while_it_is_fitted_is_not_lost(store: Store, folder: Path) -> None:
    class Slow(Popularity):
        def grow(self, events: Iterable[pa.RecordBatch]) -> bool:
            append(store, ("zoe", "milk", 9.0, "meanwhile"))
            return super().grow(events)

    without = anew(store)
    np.testing.assert_array_equal(says(start(store, folder, Slow())), without)
    assert len(kept(folder)) == 1
    np.testing.assert_array_equal(says(start(store, folder, Slow())), anew(store))


def test_nothing_is_kept_of_who_was_forgotten_while_it_was_fitted(store: Store, folder: Path) -> None:
    class Slow(Popularity):
        def grow(self, events: Iterable[pa.RecordBatch]) -> bool:
            grew = super().grow(events)
            store.forget("u1")
            return grew

    start(store, folder, Slow())
    assert not folder.exists()


def test_an_array_of_objects_is_refused_for_it_would_run_code_when_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        save({"odd": np.array([print])}, tmp_path / "saved")


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    arrays = {"../a": np.arange(6).reshape(2, 3).T, "none": np.empty(0, "datetime64[us]")}
    state: State = arrays | {"names": {"é\ud800": [None]}}
    save(state, tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert loaded["names"] == state["names"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    assert not loaded["../a"].flags.writeable


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from(["u1", "zoe"]), st.sampled_from(NAMES), st.integers(0, 40)),
        st.tuples(st.just("forget"), st.sampled_from(["u1", "u2", "zoe"])),
        st.tuples(st.just("correct"), st.sampled_from(TURNS), st.sampled_from(NAMES), st.integers(0, 40)),
    ),
    max_size=4,
)


@pytest.mark.parametrize("name", ["popularity", "sequence"])
@settings(max_examples=12)
@given(rounds=st.lists(CHANGES, max_size=4), cut=st.none() | st.integers(1, 30))
def test_whatever_happens_to_the_log_it_is_as_if_fitted_anew(
    name: str, rounds: list[list[tuple[Any, ...]]], cut: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, before = tmp_path_factory.mktemp("shop"), START + timedelta(days=cut) if cut else None
    options: Mapping[str, Any] = {} if name == "popularity" else {"n_fit": 5}
    with Store.open(folder / "genrec.db") as store:
        put(store, **{item: item for item in NAMES})
        append(store, *TURNS)
        for n, changes in enumerate([[], *rounds]):
            for i, (kind, *what) in enumerate(changes):
                if kind == "forget":
                    store.forget(*what)
                elif kind == "take":
                    append(store, (*what, f"{n} {i}"))
                else:
                    (user, _, _, name_of), item, day = what
                    append(store, (user, item, day, name_of))
            prior = start(store, folder / "kept", Registry().build("priors", name, options), before=before)
            fresh = Registry().build("priors", name, options)
            fresh.fit(catalog_of(store), store.events(before=before))
            for day in (3, 50):
                np.testing.assert_array_equal(says(prior, day=day), says(fresh, day=day))
