"""The probe of a model's memory: what it was taught by heart it knows, what it never saw it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from genrec.engines.transformers import TransformersEngine
from genrec.errors import DataError
from genrec.evaluation.memory import ASK, probe
from genrec.tokenizer import HfTokenizer

LEARNED = [
    f"{first} {noun} for the {place}"
    for first, noun, place in zip(
        "red blue old new tall wide warm cold".split(),
        "kettle candle pillow ladder basket mirror blanket bucket".split(),
        "garden kitchen attic office bathroom hallway bedroom garage".split(),
        strict=True,
    )
]
UNSEEN = [title.replace("for the", "from our old") for title in LEARNED]


@pytest.fixture(scope="module")
def learned(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has read eight titles again and again."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("learned") / "tiny"
    shutil.copytree(tiny_model, folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), HfTokenizer(folder)
    prompt = tokenizer.chat([("user", ASK)])
    rows = [[*prompt, *ids] for ids in tokenizer.encode(LEARNED)]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(60):
            loss = sum(
                model(torch.tensor([row]), labels=torch.tensor([[-100] * len(prompt) + row[len(prompt) :]])).loss
                for row in rows
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    return folder


def test_what_was_learned_by_heart_is_known_and_nothing_else(learned: Path, tiny_model: Path) -> None:
    engine = TransformersEngine(learned, model="tiny", dtype="float32")
    known, unknown = probe(engine, LEARNED), probe(engine, UNSEEN)
    engine.close()
    assert (known.n, known.of) == (8, 8)
    assert "true one for 100% (chance 12%)" in known.means
    assert (unknown.n, unknown.of) == (0, 8)

    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    assert probe(engine, LEARNED).n == 0
    with pytest.raises(DataError, match="hardly any title"):
        probe(engine, ["tea", "milk", "bread"])
    engine.close()
