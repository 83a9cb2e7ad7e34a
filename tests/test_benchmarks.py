"""Benchmarks say what their files say, and what is compared with sees and counts what it should."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

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
