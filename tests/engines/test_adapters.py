"""A trained LoRA answers alike merged and beside the weights, on transformers and on vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genrec.decoding.scoring import Scoring
from genrec.decoding.search import search
from genrec.engines.base import Engine, Search, TokenTree
from genrec.engines.transformers import TransformersEngine
from genrec.engines.vllm import VllmEngine
from genrec.errors import ModelError
from genrec.finetune.packing import Writing
from genrec.tokenizer import HfTokenizer
from tests.support.adapters import make_lora
from tests.support.people import ITEMS, person, writing_with


@pytest.fixture(scope="module")
def writing(tiny_tokenizer: HfTokenizer) -> Writing:
    return writing_with(tiny_tokenizer)


@pytest.fixture(scope="module")
def adapters(writing: Writing, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs that learned different things."""
    found = [tmp_path_factory.mktemp("adapters") / name for name in ("one", "two")]
    for folder, step in zip(found, (1, 3), strict=True):
        catalog, template = writing.encoded.catalog, writing.template
        make_lora(tiny_model, writing, folder, step=step, catalog=catalog, template=template)
    return found


def lists(engine: Engine, writing: Writing) -> tuple[np.ndarray, np.ndarray]:
    """Ten best items of a few people, and their weights."""
    prompts = []
    for i in range(6):
        [row] = writing.rows(person(f"new{i}", 3 + i, first=i))
        prompts.append(row.token_ids[: row.position[-1] + 1].tolist())
    scoring = Scoring(name="masked")
    found = engine.run([(p, search(writing.encoded.trie, k=len(ITEMS), scoring=scoring)) for p in prompts])
    return np.stack([one.rows for one in found]), np.stack([one.logprobs for one in found])


@pytest.mark.vllm
def test_a_lora_answers_alike_everywhere(writing: Writing, tiny_model: Path, adapters: list[Path]) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from peft import PeftModel

    plain = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    expected = [lists(TransformersEngine(tiny_model, model="t", dtype="float32", adapter=a), writing) for a in adapters]
    without = lists(plain, writing)
    assert not np.array_equal(expected[0][0], without[0])
    assert not np.array_equal(expected[0][0], expected[1][0])

    plain.lm = PeftModel.from_pretrained(plain.lm, str(adapters[0])).eval()
    plain.forget()
    beside = lists(plain, writing)
    np.testing.assert_array_equal(beside[0], expected[0][0])
    np.testing.assert_allclose(beside[1], expected[0][1], atol=1e-4)

    engine = VllmEngine(tiny_model, model="tiny", dtype="float32", max_tokens=1024, adapter=adapters[0])
    try:
        for adapter, (rows, weights) in [*zip(adapters, expected, strict=True), (adapters[0], expected[0])]:
            engine.use(adapter)  # in turns, without a restart and with a filled cache
            found = lists(engine, writing)
            np.testing.assert_array_equal(found[0], rows)
            np.testing.assert_allclose(found[1], weights, atol=1e-3)
        engine.use(None)
        np.testing.assert_array_equal(lists(engine, writing)[0], without[0])

        engine.use(adapters[0])
        tree = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))

        def changes_its_mind() -> Search[tuple[float, float]]:
            before = yield tree
            engine.use(adapters[1])
            after = yield tree
            return float(before[0]), float(after[0])

        [(before, after)] = engine.run([([7] * 40, changes_its_mind())])
        [(other, _)] = engine.run([([7] * 40, changes_its_mind())])
        assert before == pytest.approx(after, abs=1e-5), "a search under way goes on with the adapter it began with"
        assert abs(other - before) > 1e-3
    finally:
        engine.close()


def test_an_adapter_that_vllm_cannot_load_is_refused_with_what_it_can(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    config = tmp_path / "adapter_config.json"
    for kind, rank in (("LORA", 600), ("ADALORA", 8)):
        config.write_text(json.dumps({"peft_type": kind, "r": rank}))
        with pytest.raises(ModelError, match=f"{kind} of rank {rank}"):
            VllmEngine.arguments(tiny_model, adapter=tmp_path)
    config.write_text(json.dumps({"peft_type": "LORA", "r": 12}))
    assert VllmEngine.arguments(tiny_model, adapter=tmp_path)["max_lora_rank"] == 16
    with pytest.raises(ModelError, match="holds no LoRA"):
        VllmEngine.arguments(tiny_model, adapter=tmp_path / "nothing")


def test_a_folder_that_is_no_adapter_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        TransformersEngine(tiny_model, model="tiny", adapter=tmp_path)
