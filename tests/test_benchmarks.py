"""Benchmarks say what their files say, and what is compared with sees and counts what it should."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click import ClickException

from genrec.events import Context, Event, Item
from genrec.history import History

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a benchmark as it is imported when it runs."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_the_page_is_what_the_files_make(load: Callable[[str], Any], tmp_path: Path) -> None:
    script = load("decode")
    assert script.page(tmp_path) == script.INTRODUCTION  # parts that were not measured are left out
    if not script.RESULTS.is_dir():
        pytest.skip("nothing was measured yet")
    assert (BENCHMARKS / "decode.md").read_text(encoding="utf-8") == script.page(script.RESULTS)


def test_the_baseline_reads_what_was_known_before_the_target(
    load: Callable[[str], Any], tiny_model: Path, tmp_path: Path
) -> None:
    may, june = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
    case = {"user_id": "ann", "history": [1, 2], "target": 3, "at": june}
    tables: dict[str, list[dict[str, Any]]] = {
        "items": [{"item_id": n, "title": f"item {n}"} for n in (1, 2, 3)],
        "train_partial": [{"user_id": "ann", "item_id": n, "position": n, "at": may} for n in (2, 1)],
        "valid": [case],
        "test": [{**case, "history": [1, 2, 3], "target": 1}],
    }
    folder = tmp_path / "amazon-industrial"
    folder.mkdir()
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    assert load("sasrec").plain_data(load("rows").Amazon(tmp_path, str(tiny_model))) == {
        "items": ["1", "2", "3"],
        "train": [["1", "2"]],
        "valid": [{"history": ["1", "2"], "target": "3", "seen": []}],
        "test": [{"history": ["1", "2", "3"], "target": "1", "seen": []}],
    }


def test_a_model_learns_nothing_that_it_is_asked(
    load: Callable[[str], Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    priors, start = load("priors"), datetime(2024, 5, 1, tzinfo=UTC)

    def in_order(seed: int) -> Any:
        """Everybody has the items in another order; which of the last two came first is drawn."""
        events = []
        for user in range(12):
            own = np.roll(np.arange(9), user)
            own[-2:] = own[-2:][:: 1 - 2 * seed]
            for i, item in enumerate(own):
                split = "train" if i < 7 else "valid" if i == 7 else "test"
                events.append(Event(user_id=str(user), item_id=str(item), at=start + timedelta(days=i), action=split))
        return priors.by_time(events)

    items = [Item(item_id=str(n), title=f"item {n}") for n in range(9)]
    rounds = [in_order(0), in_order(1)]
    rounds[1] = replace(rounds[1], tune=rounds[0].tune)
    data = priors.Data(items=items, rounds=rounds, held_out=True, unseen=True)
    monkeypatch.setitem(priors.DATA, "made-up", {"": lambda _: data})
    monkeypatch.setattr(priors, "RESULTS", tmp_path)
    with pytest.raises(ClickException, match=r"priors\.py --dataset made-up"):
        priors.best_of("made-up")
    (tmp_path / "made-up").mkdir()
    voices: dict[str, dict[str, Any]] = {"popularity": {}, "sequence": {}}
    weights = [{"popularity": 0.2, "sequence": 0.6}, {"popularity": 0.3, "sequence": 0.7}]
    tuned = [
        {"name": "sequence, validation", "options": {"sequence": {}}, "nats": 1.5},
        {"name": "blend, validation", "options": voices, "nats": 1.2, "weights": weights},
    ]
    (tmp_path / "made-up" / "priors.json").write_text(json.dumps({"rows": tuned}))
    assert priors.best_of("made-up") == tuned[1]
    rows = load("protocols").Protocol("made-up", tmp_path, str(tiny_model))
    valid, test = rows.cases("valid"), rows.cases("test")
    assert (len(valid), len(test)) == (12, 24)
    asked = {(case.user_id, case.moments[-1].item_ids) for case in (*valid, *test)}
    learned = {(person.user_id, moment.item_ids) for person in rows.people for moment in person.moments}
    assert len(learned) == 12 * 7
    assert not learned & asked
    assert all(rows.live(case).sum() == 1 for case in test)  # what is left is the target
    by_hand = priors.fitted(tuned[1], rows.catalog, rounds[1].test, 1)
    assert by_hand.weights.tolist() == [0.3, 0.7]
    assert rows.log_mass(test[12]) == pytest.approx(by_hand.log_mass_held_out(test[12].before(-1), Context()))


@pytest.mark.parametrize(
    ("target", "seen", "expected"),
    [(2, [], 1), (2, [0], 0), (1, [], 3), (3, [], 3), (4, [], 5)],
    ids=["one above", "but it was seen", "half of two others that tie", "whichever of them", "unknown, like one more"],
)
def test_places_of_the_baseline(load: Callable[[str], Any], target: int, seen: list[int], expected: int) -> None:
    scores = np.array([9.0, 5.0, 7.0, 5.0, -np.inf, -np.inf, 5.0])
    assert load("sasrec_rectools").place(scores, target, seen) == expected


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("results/*/sasrec.json")), ids=lambda file: file.parent.name)
def test_the_figures_of_the_baseline_follow_from_its_ranks(file: Path) -> None:
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    seeds = [row for row in rows if "ranks" in row]
    [mean] = [row for row in rows if "deviation" in row]
    for row in seeds:
        assert row["HR@10"] == pytest.approx(np.mean(np.array(row["ranks"]) < 10), abs=1e-4)
    assert mean["HR@10"] == pytest.approx(np.mean([row["HR@10"] for row in seeds]), abs=1e-4)


def test_an_attention_head_sees_a_targets_own_history_alone(load: Callable[[str], Any]) -> None:
    heads, n_hidden = load("heads"), 4
    held = torch.randn(7, n_hidden)
    seen = heads.Seen(
        now=held[[3, 6]],
        target=torch.tensor([0, 1]),
        held=held,
        begin=torch.tensor([1, 4]),  # the instructions stand in front of both
        end=torch.tensor([3, 6]),
    )
    head = heads.Pooled(n_hidden, torch.zeros(3))
    torch.nn.init.normal_(head.out.weight)
    torch.nn.init.normal_(head.query)
    own = head.norm(held[1:4])
    mean = (own @ head.query / n_hidden**0.5).softmax(0) @ own
    torch.testing.assert_close(head(seen)[0], head.out(mean))
    seen.held = torch.cat([torch.randn(1, n_hidden), held[1:4], torch.randn(3, n_hidden)])
    torch.testing.assert_close(head(seen)[0], head.out(mean))


def test_a_head_learns_what_follows_from_what_it_is_shown(load: Callable[[str], Any]) -> None:
    heads, n_items = load("heads"), 5
    target = torch.arange(n_items).repeat(20)
    seen = [heads.Seen(torch.eye(n_items)[target], target)]
    head, about = heads.learn(heads.Linear(n_items, torch.zeros(n_items)), seen * 20, seen)
    assert (heads.said(head, seen).argmax(1) == target).all()
    assert about["trainable"] == 2 * n_items + n_items**2 + n_items


def test_the_mean_rating_of_a_film_leaves_out_the_one_in_question(load: Callable[[str], Any]) -> None:
    script, rows = load("rating"), load("rows")
    at = datetime(2024, 5, 1, tzinfo=UTC)
    ratings = {("ann", "1"): 5.0, ("bob", "1"): 1.0, ("bob", "2"): 3.0}
    people = [
        History(user_id=user, user=None, at=at, moments=tuple(rows.moment(at, item) for item in items))
        for user, items in {"ann": ["1"], "bob": ["1", "2"]}.items()
    ]
    means = script.Means(people, ratings)
    assert means.mean == 3.0
    assert means.item("ann", "1") == -2 / (1 + script.SHRINKAGE)  # bob's alone
    assert means.item("cat", "1") == 0.0  # both
    assert means.user(people[1], 1) == (1 - 3 - 2 / (1 + script.SHRINKAGE)) / (1 + script.SHRINKAGE)


@pytest.fixture
def check_ins(tmp_path: Path) -> Callable[..., Path]:
    """Writes 40 days of four people as the benchmark finds them: a flat, an office from Monday to Friday, a bar."""

    def write(*, last: int = 0) -> Path:
        """The folder of `--data`; `last` is where everybody's last check-in is."""
        kinds = ["Residence", "Professional & Other Places", "Nightlife Spot", None]
        places = [
            {"location_id": n, "lat": 40.6 + 0.05 * n, "lon": -74.0 + 0.01 * n, "category": kind}
            for n, kind in enumerate(kinds)
        ]
        events = []
        for user in range(4):
            for day in range(40):
                split = "train" if day < 30 else "valid" if day < 35 else "test"
                when = {"user_id": user, "start_day": day, "weekday": (day + user) % 7, "split": split}
                visits = [(0, 7), (1, 10), (2 + (day + user) % 2, 19), (0, 23)]
                visits = [visit for visit in visits if when["weekday"] < 5 or visit[0] != 1]
                events += [{**when, "location_id": place, "start_min": 60 * at} for place, at in visits]
            events[-1]["location_id"] = last
        folder = tmp_path / f"last-{last}" / "foursquare-nyc"
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (("items", places), ("events", events)):
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        return folder.parent

    return write


def read_before(rows: Any, case: History) -> list[str]:
    """The lines that are read before a case's target."""
    text: str = rows.writing.tokenizer.decode(rows.prompt(case, align=None))
    return text.splitlines()


def one_at(rows: Any, place: str, hour: int) -> History:
    """A test case of a weekday on which somebody was in the office, by its target."""
    cases = rows.cases("test")
    was_there = {(case.user_id, case.at.date()) for case in cases if case.moments[-1].item_ids == ("1",)}
    return next(
        case
        for case in cases
        if (case.user_id, case.at.date()) in was_there
        and case.moments[-1].item_ids[0] in place
        and case.at.hour == hour
    )


def test_check_ins_are_told_by_the_clock_and_by_where_one_was(
    load: Callable[[str], Any], tiny_model: Path, check_ins: Callable[..., Path]
) -> None:
    rows = load("protocols").DATA["foursquare-nyc"](check_ins(), str(tiny_model))
    assert rows.catalog.texts == ["Residence A1a", "Professional C1a", "Nightlife F1a", "Place I2a"]
    lines = [read_before(rows, one_at(rows, *target))[-1] for target in (("1", 10), ("23", 19), ("0", 23))]
    assert lines == [
        "three hours later, around ten |",  # still morning, still at home
        "evening, nine hours later, at work, around seven |",
        "night, four hours later, at a usual place, around eleven |",
    ]


def test_how_much_of_the_targets_time_is_told(
    load: Callable[[str], Any], tiny_model: Path, check_ins: Callable[..., Path]
) -> None:
    data, read = check_ins(), load("protocols").DATA
    known = read["foursquare-nyc"](data, str(tiny_model))
    number = known.cases("test").index(one_at(known, "0", 23))
    lines = {}
    for way in ("time unknown", "three hours known", "time known"):
        rows = read["foursquare-nyc"](data, str(tiny_model), way=way)
        assert rows.prior.clock is (way != "time unknown")
        *before, lines[way] = read_before(rows, rows.cases("test")[number])
        assert before == read_before(known, known.cases("test")[number])[:-1]
    assert lines == {
        "time unknown": "at a usual place |",
        "three hours known": "night, four hours later, at a usual place, around ten |",  # the middle of the three
        "time known": "night, four hours later, at a usual place, around eleven |",
    }
    plain = read["foursquare-nyc-plain"](data, str(tiny_model))
    assert {line[0] for line in read_before(plain, plain.cases("test")[number])[-20:]} == {"|"}
    with pytest.raises(ClickException, match="three hours known"):
        read["foursquare-nyc"](data, str(tiny_model), way="by ear")


@pytest.mark.parametrize("way", ["time unknown", "three hours known", "time known"])
def test_nothing_tells_a_check_in_before_it_happens(
    load: Callable[[str], Any], tiny_model: Path, check_ins: Callable[..., Path], way: str
) -> None:
    read = load("protocols").DATA["foursquare-nyc"]
    one, other = (read(check_ins(last=place), str(tiny_model), way=way) for place in (0, 3))
    assert one.cases("test") != other.cases("test")
    for split in ("valid", "test"):
        prompts = [[read_before(rows, case) for case in rows.cases(split)] for rows in (one, other)]
        assert prompts[0] == prompts[1]
    first_asked = {case.user_id: case.moments[-2].at for case in reversed(one.cases("valid"))}
    assert all(person.moments[-1].at <= first_asked[person.user_id] for person in one.people)
    case, row = one.last(one.cases("test")[-1])
    assert row.token_ids[: row.position[0] + 1].tolist() == list(one.prompt(case, align=None))


def test_a_fold_learns_from_no_chain_that_it_asks_about(
    load: Callable[[str], Any], tiny_model: Path, tmp_path: Path
) -> None:
    actions = [
        "Light:switch on",
        "Light:switch off",
        "AirConditioner:fanMode setFanMode",
        "Light:alarm off",
        "light:alarm off",
    ]
    windows = [
        {
            "window": 3 * chain + n,
            "household_chain": chain,
            "position": position,
            "weekday": "Tue",
            "hours": "9-12",
            "action": actions[(chain + n + position) % 5],
        }
        for chain in range(10)
        for n in range(3)
        for position in range(10)
    ]
    folder = tmp_path / "smartthings-fr"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(windows), folder / "windows.parquet")
    pq.write_table(pa.table({"action": actions}), folder / "actions.parquet")
    judged: set[str] = set()
    for fold in range(5):
        rows = load("protocols").DATA["smartthings-fr"](tmp_path, str(tiny_model), fold=fold)
        learned = {str(int(person.user_id) // 3) for person in rows.people}
        valid, test = ({rows.whose(case) for case in rows.cases(split)} for split in ("valid", "test"))
        assert (len(learned), len(valid), len(test)) == (6, 2, 2)
        assert len(learned | valid | test) == 10
        judged |= test
    assert len(judged) == 10
    assert rows.catalog.texts == [
        "light on",
        "light off",
        "air conditioner set fan mode",
        "light alarm off",
        "light alarm off 2",
    ]
    assert sum("Tuesday morning, around nine |" in line for line in read_before(rows, rows.cases("test")[0])) == 1


def test_who_is_drawn_does_not_depend_on_who_else_is_there(load: Callable[[str], Any]) -> None:
    drawn, whose = load("rows").drawn, [str(n % 7) for n in range(60)]
    numbers = drawn(whose, 3, 4)
    assert sorted(Counter(whose[n] for n in numbers).values()) == [4, 4, 4]
    left = [n for n in range(60) if whose[n] != next(one for one in whose if one not in {whose[n] for n in numbers})]
    assert [left[i] for i in drawn([whose[n] for n in left], 3, 4)] == numbers
    assert set(numbers) < set(drawn(whose, 4, 5))
    assert drawn(whose) == list(range(60))


def test_over_people_everybody_counts_the_same(load: Callable[[str], Any]) -> None:
    rows = load("rows")
    ranks, people = np.array([0, 0, 0, 7]), ["ann", "ann", "ann", "bob"]
    found = rows.figures(ranks, people, np.zeros(4, bool))
    assert (found["HR@1"], found["HR@5"], found["HR@10"]) == (0.75, 0.75, 1.0)
    assert (found["over people"]["HR@1"], found["over people"]["HR@10"], found["over people"]["n"]) == (0.5, 1.0, 2)
    assert rows.over_people(ranks, people, than=[0, 0, 9, 0])["HR@1"] == round((1 / 3 - 1) / 2, 4)
