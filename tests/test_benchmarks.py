"""Benchmarks say what their files say, and what is compared with sees and counts what it should."""

from __future__ import annotations

import importlib
import json
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
    rows = load("rows").Protocol("made-up", tmp_path, str(tiny_model))
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
