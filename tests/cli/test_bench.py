"""`genrec bench` on a small workspace: the figures are there, and the exactness check can fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from genrec.bench import PARTS, Book, Plan, big_catalogue, brute_force, exact, tables
from genrec.bench.cpu import cpu
from genrec.catalog import Catalog
from genrec.cli import bench as bench_command
from genrec.cli import main
from genrec.config import create_workspace
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import score
from genrec.engines.base import Search, T
from genrec.engines.transformers import TransformersEngine
from genrec.events import Event, Item, batch
from genrec.store import Store
from genrec.tokenizer import HfTokenizer

WORDS = ["milk", "bread", "butter", "eggs", "cheese", "coffee", "tea", "sugar", "beer", "wine"]
ITEMS = [Item(item_id=f"{a} {b}", title=f"{a} {b}") for a in WORDS for b in WORDS]


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Path:
    folder = tmp_path / "shop"
    create_workspace(folder, {"model": str(tiny_model), "engine": "transformers", "dtype": "float32"})
    rng = np.random.default_rng(0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with Store.open(folder / "genrec.db") as store:
        store.put("items", [batch("items", ITEMS)])
        events = [
            Event(user_id=f"u{user}", item_id=ITEMS[rng.integers(100)].item_id, at=start + timedelta(days=day))
            for user in range(5)
            for day in range(40)
        ]
        store.append([batch("events", events)], source="test")
    return folder


def run(*arguments: str | Path) -> dict[str, object]:
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report: dict[str, object] = json.loads(result.stdout)
    return report


SMALL = ("--people", "2", "--slow-people", "2", "--repeats", "2", "--tokens", "200", "--long-tokens", "260", "-k", "4")


def decode(workspace: Path, folder: Path, engine: str, *parts: str) -> dict[str, dict[str, dict[str, Any]]]:
    """What the parts report, by part and name of the row."""
    flags = [flag for part in parts for flag in ("--part", part)] + ["--items", "40", "--items", "90"]
    out = ("--out", folder, "--plot", folder / "plot.svg") if "catalogue" in parts else ("--out", folder)
    reports = run("bench", "decode", "-w", workspace, *SMALL, *flags, "--engine", engine, *out, "--json")
    for report in reports:
        assert {"dataset", "stage", "rows", "command", "commit", "machine", "wall_s"} <= set(report)  # type: ignore[operator]
        assert json.loads((folder / f"{report['stage']}.json").read_text()) == report  # type: ignore[index]
    return {report["stage"]: {row["name"]: row for row in report["rows"]} for report in reports}  # type: ignore[index]


def check_ours(rows: dict[str, dict[str, Any]], engine: str) -> None:
    assert list(rows) == [f"{engine}, {scoring}" for scoring in ("fused", "masked", "joint")]
    for row in rows.values():
        assert row["n_people"] == 2
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["computed_tokens"] >= row["prompt_tokens"] * 0.5  # vLLM reads shared instructions once


def check_append(rows: dict[str, dict[str, Any]]) -> None:
    assert len(rows) == 3
    for row in rows.values():
        assert row["computed_warm"] < row["computed_cold"]
        assert row["n_moved"] <= row["n_people"]


def check_catalogue(rows: dict[str, dict[str, Any]], folder: Path) -> None:
    assert [(row["n_items"], row["scoring"], row["filtered"]) for row in rows.values()] == [
        (n, scoring, filtered) for n in (40, 90) for scoring in ("fused", "masked") for filtered in (False, True)
    ]
    assert all({"history", "prompt", "search", "rerank"} <= set(row["stages_s"]) for row in rows.values())
    plot = (folder / "plot.svg").read_text()
    assert "items in the catalogue" in plot
    assert "fused" in plot


def test_decode_reports_each_part_and_goes_on_where_it_ended(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    parts = decode(workspace, folder, "transformers", "ours", "peers", "append", "catalogue")
    check_ours(parts["ours"], "transformers")
    *ours, generate = parts["peers"].values()
    assert [row["recall"] for row in ours] == [1, 1, 1]
    assert generate["approximates"] == "joint"
    assert generate["computed_tokens"] > generate["prompt_tokens"]
    assert 0 < generate["recall"] <= 1
    assert generate["illegal"] == 0
    check_append(parts["append"])
    check_catalogue(parts["catalogue"], folder)

    assert decode(workspace, folder, "transformers", "ours")["ours"] == parts["ours"]  # as it was, to the last digit
    kept = json.loads((folder / "ours.json").read_text())
    (folder / "ours.json").write_text(json.dumps(kept | {"rows": kept["rows"][:2]}))
    again = decode(workspace, folder, "transformers", "ours")["ours"]
    assert list(again.values())[:2] == list(parts["ours"].values())[:2]
    check_ours(again, "transformers")

    for part in parts:
        text = tables.markdown(part, list(parts[part].values()))
        assert len(text.splitlines()) == 2 + len(parts[part])
        assert len({line.count("|") for line in text.splitlines()}) == 1


def test_lighter_models_are_judged_by_the_whole_one(workspace: Path) -> None:
    plan = Plan(workspace=workspace, n_people=2, n_slow=2, n_tokens=200, k=4)
    book = Book(None, stage="cpu", dataset="shop", settings={}, say=lambda line: None)
    cpu(plan, book, ["float32", "int8, dynamic, torch", "bfloat16, first half of the layers"])
    whole, int8, half = book.rows
    assert whole["recall_joint"] == whole["recall_masked"] == 1
    assert whole["mean_difference_joint"] < 1e-4 < int8["mean_difference_joint"] < half["mean_difference_joint"]
    assert (whole["n_layers"], half["n_layers"]) == (2, 1)


def test_what_fails_is_a_row_that_is_tried_again(workspace: Path, tmp_path: Path) -> None:
    flags = ["bench", "decode", "-w", str(workspace), *SMALL, "--engine", "transformers", "--out", str(tmp_path)]
    flags += ["--long-tokens", "5000", "--part", "append", "--part", "ours"]
    result = CliRunner().invoke(main, flags)
    assert result.exit_code == 1
    assert "nobody has a history of 5000 tokens" in result.stderr
    assert "transformers, fused" in result.stdout  # the part behind it went on
    rows = json.loads((tmp_path / "append.json").read_text())["rows"]
    failed = [row for row in rows if "failed" in row]
    assert [row["name"] for row in failed] == ["transformers, a history of 5,000 tokens"]
    assert "Failed: transformers, a history of 5,000 tokens" in tables.markdown("append", rows)
    book = Book(
        tmp_path / "append.json",
        stage="append",
        dataset="shop",
        settings=json.loads((tmp_path / "append.json").read_text())["settings"],
        say=lambda line: None,
    )
    assert book.lacks(failed[0]["name"])
    assert not book.lacks(*(row["name"] for row in rows if "failed" not in row))
    other = Book(tmp_path / "append.json", stage="append", dataset="shop", settings={"k": 5}, say=lambda line: None)
    assert other.rows == []


@pytest.mark.vllm
@pytest.mark.slow
def test_decode_on_vllm(workspace: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    parts = decode(workspace, tmp_path, "vllm", "ours", "peers", "append", "catalogue")
    check_ours(parts["ours"], "vllm")
    *ours, beams, ten, hundred = parts["peers"].values()
    assert [row["recall"] for row in ours] == [1, 1, 1]
    assert beams["illegal"] > 0
    assert ten["illegal"] == hundred["illegal"] == 0
    assert ten["n_distinct"] <= 10 < hundred["n_distinct"]
    assert min(row["computed_tokens"] for row in (beams, ten, hundred)) > 0
    check_append(parts["append"])
    check_catalogue(parts["catalogue"], tmp_path)


@pytest.mark.vllm
@pytest.mark.slow
def test_decode_in_the_server_and_from_outside(workspace: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    rows = decode(workspace, tmp_path, "vllm", "server")["server"]
    assert list(rows) == [
        f"{model}, {where}" for model in ("the model", "a tiny model") for where in ("in the server", "from outside")
    ]
    for name, row in rows.items():
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        if "outside" in name:
            assert row["same_items"] == 1
            assert row["to_in_server"] > 0


def test_the_command_offers_the_parts_there_are() -> None:
    assert tuple(PARTS) == bench_command.PARTS
    assert set(PARTS) == set(tables.COLUMNS)


def test_exact_reports_equal_lists(workspace: Path) -> None:
    report = run("bench", "exact", "-w", workspace, "--engine", "transformers", "--people", "3", "-k", "5", "--json")
    assert [row["n_equal"] for row in report["rows"]] == [3, 3]  # type: ignore[attr-defined]
    for row in report["rows"]:  # type: ignore[attr-defined]
        assert row["max_difference"] < 1e-4
        assert abs(row["max_regret"]) < 1e-6


def test_brute_force_and_scoring_agree_and_a_wrong_engine_is_found_out(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    encoded = Catalog.of(ITEMS).encode(engine.tokenizer)
    prompt = [5, 6, 7, 8]
    truth = brute_force(engine, encoded, prompt)
    for name in ("joint", "masked"):
        weights = engine.run([(prompt, score(encoded.trie, range(100), scoring=Scoring(name=name)))])[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(weights, truth[name], atol=1e-4)

    class Deaf(TransformersEngine):
        """Reads another prompt than it was given."""

        def run(self, searches: Sequence[tuple[Sequence[int], Search[T]]]) -> list[T]:  # type: ignore[override]
            return super().run([([9, 9, 9], search) for _, search, *_ in searches])

    deaf = Deaf(tiny_model, model="tiny", dtype="float32")
    for row in exact(deaf, encoded, [prompt], [truth], k=5, say=lambda line: None):
        assert row["n_equal"] == 0
        assert row["max_difference"] > 1e-3


def test_catalogue_reports_its_steps(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.catalog.MERGE_AT", 120)
    [row] = run("bench", "catalogue", "--items", "500", "--model", tiny_model, "--json")["rows"]  # type: ignore[misc]
    assert row["n_items"] == row["n_real_titles"] + row["n_made_up_titles"] == 500
    assert row["n_nodes"] > 500
    assert row["filters_s"].keys() == {"seen", "category", "tenant and availability", "distance", "all"}
    steps = (
        "put texts save_texts catalog fingerprint encode encode_again trie load prior search_setup recommend add merge"
    )
    assert {f"{step}_s" for step in steps.split()} <= set(row)
    assert {"megabytes", "max_rss_gb"} <= set(row)


def test_a_big_catalogue_is_ready_to_be_searched(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    with big_catalogue(tiny_tokenizer, tmp_path, n_items=300, titles=["Oat milk", "Rye bread", "Oat milk"]) as big:
        assert big.n_real == 2
        assert big.catalog.titles[:2] == ["Oat milk", "Rye bread"]
        assert len(set(big.catalog.texts)) == big.encoded.trie.n_leaves == 300
        assert big.store.summary().n_items == 300


def test_too_few_people_to_measure_with(tmp_path: Path) -> None:
    create_workspace(tmp_path / "empty")
    result = CliRunner().invoke(main, ["bench", "decode", "-w", str(tmp_path / "empty")])
    assert result.exit_code == 3
    assert "too few people" in result.stderr
