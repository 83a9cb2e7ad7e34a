"""`genrec bench` on a small workspace: the figures are there, and the exactness check can fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from genrec.bench import big_catalogue, brute_force, exact
from genrec.catalog import Catalog
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
            for day in range(20)
        ]
        store.append([batch("events", events)], source="test")
    return folder


def run(*arguments: str | Path) -> dict[str, object]:
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report: dict[str, object] = json.loads(result.stdout)
    return report


def test_decode_reports_ratios_and_the_peer(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "decode.json"
    report = run(
        "bench",
        "decode",
        "-w",
        workspace,
        "--engine",
        "transformers",
        "--people",
        "3",
        "-k",
        "4",
        "--json",
        "--out",
        out,
    )
    assert json.loads(out.read_text()) == report
    assert {"dataset", "stage", "rows", "command", "commit", "machine", "wall_s"} <= set(report)
    fused, masked, joint, peer = report["rows"]  # type: ignore[misc]
    assert [row["scoring"] for row in (fused, masked, joint)] == ["fused", "masked", "joint"]
    for row in (fused, masked, joint):
        assert row["n_people"] == 3
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["computed_tokens"] >= row["prompt_tokens"] * 0.9
    assert 0 < peer["recall_of_true_top_k"] <= 1
    assert set(peer["slower_than"]) == {row["name"] for row in (fused, masked, joint)}


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
