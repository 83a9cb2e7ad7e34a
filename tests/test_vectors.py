"""Vectors of texts: near in meaning is near in space, kept once, found exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from genrec import vectors
from genrec.errors import ModelError
from genrec.events import Medium
from genrec.models import model_folder
from genrec.vectors import Embedder, TextVectors, media_vectors, nearest

TEXTS = ["Whole milk", "Rye bread", "Lager beer", "Free range eggs", "Green tea"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(model_folder("minilm-l6-v2"))


@pytest.mark.llm
def test_the_nearest_text_means_the_same(embedder: Embedder) -> None:
    shop = TextVectors.of(TEXTS, embedder)
    assert shop.values.shape == (5, 384)
    assert shop.values.dtype == np.float32
    assert np.linalg.norm(shop.values, axis=1) == pytest.approx(1, abs=1e-5)
    rows, cosines = shop.nearest(["a pint of ale", "cup of sencha", "Whole milk"], n=2)
    assert rows.shape == cosines.shape == (3, 2)
    assert [TEXTS[row] for row in rows[:, 0]] == ["Lager beer", "Green tea", "Whole milk"]
    assert cosines[2, 0] == pytest.approx(1, abs=1e-5)
    assert np.all(cosines[:, 0] > cosines[:, 1])


@pytest.mark.llm
def test_vectors_are_made_once_and_mapped_again(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Sequence[str]] = []
    embed = embedder.embed
    monkeypatch.setattr(embedder, "embed", lambda texts: made.append(texts) or embed(texts))
    first = TextVectors.of(TEXTS, embedder, cache=tmp_path / "vectors")
    [file] = (tmp_path / "vectors").iterdir()
    second = TextVectors.of(TEXTS, embedder, cache=tmp_path / "vectors")
    assert isinstance(second.values, np.memmap)
    assert np.array_equal(first.values, second.values)
    assert len(made) == 1
    TextVectors.of([*TEXTS, "Kefir"], embedder, cache=tmp_path / "vectors")
    assert len(made) == 2
    file.write_bytes(file.read_bytes()[:200])
    assert np.allclose(TextVectors.of(TEXTS, embedder, cache=tmp_path / "vectors").values, first.values)
    assert len(made) == 3


@pytest.mark.llm
def test_a_cache_that_cannot_be_written_is_done_without(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("in the way")
    assert len(TextVectors.of(TEXTS, embedder, cache=tmp_path / "vectors").values) == 5


@pytest.mark.llm
def test_no_texts_have_no_neighbours(embedder: Embedder) -> None:
    rows, cosines = TextVectors.of(TEXTS, embedder).nearest([])
    assert rows.shape == cosines.shape == (0, 1)


def test_neighbours_are_exact_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 7)
    draw = np.random.default_rng(1)
    values, queries = draw.standard_normal((100, 8)), draw.standard_normal((6, 8))
    values[50] = values[3]  # of equals the first
    rows, cosines = nearest(values, queries, n=10)
    everything = queries @ values.T
    expected = np.argsort(-everything, axis=1, kind="stable")[:, :10]
    assert np.array_equal(rows, expected)
    assert np.allclose(cosines, np.take_along_axis(everything, expected, 1))
    assert nearest(values[:3], queries, n=10)[0].shape == (6, 3)


def test_a_folder_without_an_embedding_model(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"no modules\.json") as caught:
        Embedder(tiny_model)
    assert "genrec models get minilm-l6-v2" in (caught.value.hint or "")


def test_a_damaged_embedding_model(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[{")
    with pytest.raises(ModelError, match="cannot load"):
        Embedder(tmp_path)


def test_vectors_of_media_stand_side_by_side_without_what_all_have_in_common() -> None:
    def medium(item_id: str, reader: str, *values: float) -> Medium:
        vector = np.array(values, "<f4").tobytes() if values else None
        return Medium(item_id=item_id, reader=reader, file="x", content="x", words="", vector=vector)

    media = [
        medium("a", "eye", 9, 1, 0),
        medium("b", "eye", 9, 3, 0),
        medium("c", "eye", 9, 2, 1),
        medium("a", "ear", 5),
        medium("b", "mute"),
        medium("new", "eye", 7, 7, 7),
        medium("gone", "eye", 7, 7, 7),
    ]
    row = {"a": 0, "b": 1, "c": 2, "d": 3, "new": 4}
    found = media_vectors(media, row, 4)
    assert found is not None
    assert found.shape == (4, 4)
    assert found[:, 0].tolist() == [1, 0, 0, 0], "one alone has nothing in common with others"
    assert np.allclose(np.linalg.norm(found[:3, 1:], axis=1), 1)
    assert not found[3].any()
    assert found[0, 1:] @ found[1, 1:] < 0, "opposite, though their first numbers are large and the same"
    assert media_vectors(media[4:5], row, 4) is None
    assert media_vectors([], {}, 0) is None
