"""Texts: short, unique, kept for good; and what a model's tokenizer makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.catalog import SEPARATOR, Catalog
from genrec.errors import DataError, EmptyCatalogError
from genrec.events import Item
from genrec.tokenizer import HfTokenizer


def items(*titles: str) -> list[Item]:
    return [Item(item_id=f"i{n}", title=title) for n, title in enumerate(titles)]


def test_the_text_is_a_short_form_of_the_title() -> None:
    catalog = Catalog.of(items("Heat (1995)", "  Toy\n Story ", "milk; 2% | whole", "(500) Days of Summer [BluRay]"))
    assert catalog.texts == ("Heat", "Toy Story", "milk, 2% / whole", "(500) Days of Summer")


def test_the_newcomer_takes_the_suffix_never_the_incumbent() -> None:
    before = Catalog.of(items("Heat (1995)"))
    assert before.new_texts == {"i0": "Heat"}
    after = Catalog.of([Item(item_id="new", title="Heat (1972)"), *before.items], before.new_texts)
    assert after.texts == ("Heat (1972)", "Heat")
    assert after.new_texts == {"new": "Heat (1972)"}
    third = Catalog.of([*after.items, Item(item_id="x", title="Heat")], before.new_texts | after.new_texts)
    assert third.texts == ("Heat (1972)", "Heat", "Heat (2)")


def test_many_items_of_one_title_are_numbered_on() -> None:
    catalog = Catalog.of(items(*["Gift card"] * 20_000))
    assert catalog.texts[:3] == ("Gift card", "Gift card (2)", "Gift card (3)")
    assert catalog.texts[-1] == "Gift card (20000)"
    newcomer = Catalog.of([*catalog.items, Item(item_id="new", title="Gift card")], catalog.new_texts)
    assert newcomer.texts[-1] == "Gift card (20001)"


def test_the_text_of_an_item_that_is_gone_stays_reserved() -> None:
    assert Catalog.of(items("Heat"), {"gone": "Heat"}).texts == ("Heat (2)",)


def test_of_two_items_with_one_id_the_last_counts() -> None:
    catalog = Catalog.of([Item(item_id="a", title="old"), Item(item_id="b", title="x"), Item(item_id="a", title="new")])
    assert [(i.item_id, i.title) for i in catalog.items] == [("a", "new"), ("b", "x")]
    assert catalog.row == {"a": 0, "b": 1}


@pytest.mark.parametrize("title", ["", " \n", ";", "\u202e\u200b"])
def test_a_title_without_words_falls_back_on_the_id(title: str) -> None:
    [text] = Catalog.of([Item(item_id="B07-X", title=title)]).texts
    assert text in ("item B07-X", ",")


hostile = st.one_of(
    st.text(max_size=120),
    st.sampled_from(["<|im_end|>", "a;b|c\n", "</s>", "[INST]", "\u202eevil", "x" * 100_000, "\x00", "👩‍👩‍👧", "ﬁ"]),
)


@given(st.lists(hostile, min_size=1, max_size=20))
def test_no_text_leaves_its_line_or_closes_early(titles: list[str]) -> None:
    texts = Catalog.of(items(*titles)).texts
    assert len(set(texts)) == len(titles)
    for text in texts:
        assert text == text.strip() != ""
        assert len(text.splitlines()) == 1
        assert not set(text) & set("\n\r|;")
        assert len(text) < 250


@given(st.lists(hostile, min_size=1, max_size=20))
def test_encoded_texts_are_a_prefix_free_set_that_reads_back(tiny_tokenizer: HfTokenizer, titles: list[str]) -> None:
    encoded = Catalog.of(items(*titles)).encode(tiny_tokenizer)
    assert encoded.trie.n_leaves == len(titles)
    for row, text in enumerate(encoded.catalog.texts):
        assert tiny_tokenizer.decode(encoded.ids(row)) == f" {text}{SEPARATOR}"
        assert encoded.trie.token[encoded.trie.path(row)].tolist() == encoded.ids(row)
        assert not {0, 1, 2} & set(encoded.ids(row)), "special tokens"


def test_an_encoded_catalogue_is_kept_by_fingerprint(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    catalog = Catalog.of(items("Heat", "Fargo"))
    first = catalog.encode(tiny_tokenizer, cache=tmp_path)
    again = catalog.encode(tiny_tokenizer, cache=tmp_path)
    assert isinstance(again.tokens, np.memmap)
    assert not isinstance(first.tokens, np.memmap)
    assert [again.ids(row) for row in (0, 1)] == [first.ids(row) for row in (0, 1)]
    other = Catalog.of(items("Heat", "Fargo", "Casablanca")).encode(tiny_tokenizer, cache=tmp_path)
    assert other.trie.n_leaves == 3


def test_a_damaged_encoding_is_made_again(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    catalog = Catalog.of(items("Heat", "Fargo"))
    first = catalog.encode(tiny_tokenizer, cache=tmp_path)
    [file] = tmp_path.glob("*/tokens.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    again = catalog.encode(tiny_tokenizer, cache=tmp_path)
    assert again.ids(1) == first.ids(1)
    assert file.read_bytes() == whole


def test_an_encoding_in_use_is_never_written_over(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    """Another process may have mapped its files; writing into them would pull the ground from under it."""
    catalog = Catalog.of(items("Heat", "Fargo"))
    encoded = catalog.encode(tiny_tokenizer, cache=tmp_path)
    [folder] = tmp_path.iterdir()
    before = {file.name: file.stat().st_ino for file in folder.iterdir()}
    with pytest.raises(OSError, match=folder.name):
        encoded.save(folder)
    assert {file.name: file.stat().st_ino for file in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_cache_that_cannot_be_written_is_done_without(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    encoded = Catalog.of(items("Heat")).encode(tiny_tokenizer, cache=tmp_path / "file" / "cache")
    assert encoded.trie.n_leaves == 1


class FoldingTokenizer:
    """Folds case and drops what is not ASCII, as some real tokenizers do."""

    n_vocab, fingerprint = 128, "folding"

    def encode(self, texts: list[str], *, after: str = "") -> list[list[int]]:
        return [[ord(c) for c in text.lower() if ord(c) < 128] for text in texts]


def test_texts_that_a_tokenizer_writes_alike_are_numbered() -> None:
    encoded = Catalog.of(items("Heat", "HEAT", "heat", "heat é", "heat ü")).encode(FoldingTokenizer())  # type: ignore[arg-type]
    spelled = ["".join(map(chr, encoded.ids(row))) for row in range(5)]
    assert spelled[0] == " heat;"
    assert len(set(spelled)) == 5


def test_a_tokenizer_that_tells_nothing_apart_is_refused() -> None:
    class Blind(FoldingTokenizer):
        def encode(self, texts: list[str], *, after: str = "") -> list[list[int]]:
            return [[1] for _ in texts]

    with pytest.raises(DataError, match="cannot tell items apart"):
        Catalog.of(items("Heat", "Fargo")).encode(Blind())  # type: ignore[arg-type]


def test_an_empty_catalogue_is_refused(tiny_tokenizer: HfTokenizer) -> None:
    with pytest.raises(EmptyCatalogError, match="no items"):
        Catalog.of([]).encode(tiny_tokenizer)
