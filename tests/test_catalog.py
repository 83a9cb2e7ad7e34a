"""Texts: short, unique, kept for good; and what a model's tokenizer makes of them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import catalog as catalog_module
from genrec.catalog import SEPARATOR, Catalog
from genrec.errors import DataError, EmptyCatalogError
from genrec.events import Item, Medium, batch
from genrec.store import Store
from genrec.tokenizer import HfTokenizer


def items(*titles: str) -> list[Item]:
    return [Item(item_id=f"i{n}", title=title) for n, title in enumerate(titles)]


def test_the_text_is_a_short_form_of_the_title() -> None:
    catalog = Catalog.of(items("Heat (1995)", "  Toy\n Story ", "milk; 2% | whole", "(500) Days of Summer [BluRay]"))
    assert catalog.texts == ["Heat", "Toy Story", "milk, 2% / whole", "(500) Days of Summer"]


def test_the_newcomer_takes_the_suffix_never_the_incumbent() -> None:
    before = Catalog.of(items("Heat (1995)"))
    assert before.new_texts == {"i0": "Heat"}
    after = Catalog.of([Item(item_id="new", title="Heat (1972)"), *before.items], before.new_texts)
    assert after.texts == ["Heat (1972)", "Heat"]
    assert after.new_texts == {"new": "Heat (1972)"}
    third = Catalog.of([*after.items, Item(item_id="x", title="Heat")], before.new_texts | after.new_texts)
    assert third.texts == ["Heat (1972)", "Heat", "Heat (2)"]


def test_many_items_of_one_title_are_numbered_on() -> None:
    catalog = Catalog.of(items(*["Gift card"] * 20_000))
    assert catalog.texts[:3] == ["Gift card", "Gift card (2)", "Gift card (3)"]
    assert catalog.texts[-1] == "Gift card (20000)"
    newcomer = Catalog.of([*catalog.items, Item(item_id="new", title="Gift card")], catalog.new_texts)
    assert newcomer.texts[-1] == "Gift card (20001)"


def test_the_text_of_an_item_that_is_gone_stays_reserved() -> None:
    assert Catalog.of(items("Heat"), {"gone": "Heat"}).texts == ["Heat (2)"]


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
        assert encoded.trie.tokens(np.array(encoded.trie.path(row))).tolist() == encoded.ids(row)
        assert not {0, 1, 2} & set(encoded.ids(row)), "special tokens"


def test_an_encoded_catalogue_is_kept_by_fingerprint(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    catalog = Catalog.of(items("Heat", "Fargo"))
    first = catalog.encode(tiny_tokenizer, cache=tmp_path)
    again = catalog.encode(tiny_tokenizer, cache=tmp_path)
    assert isinstance(again.tokens.base, np.memmap)
    assert isinstance(first.tokens.base, np.memmap)
    assert [again.ids(row) for row in (0, 1)] == [first.ids(row) for row in (0, 1)]
    other = Catalog.of(items("Heat", "Fargo", "Casablanca")).encode(tiny_tokenizer, cache=tmp_path)
    assert other.trie.n_leaves == 3


def test_a_damaged_encoding_is_made_again(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    catalog = Catalog.of(items("Heat", "Fargo"))
    ids = catalog.encode(tiny_tokenizer, cache=tmp_path).ids(1)
    [file] = tmp_path.glob("*/tokens.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    again = catalog.encode(tiny_tokenizer, cache=tmp_path)
    assert again.ids(1) == ids
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


def test_any_number_of_texts_that_a_tokenizer_writes_alike_get_numbers() -> None:
    titles = [f"h{'é' * i}" for i in range(30)]
    catalog = Catalog.of(items(*titles[:20]))
    encoded = catalog.encode(FoldingTokenizer())  # type: ignore[arg-type]
    catalog.add([Item(item_id=f"new{i}", title=title) for i, title in enumerate(titles[20:])])
    encoded.grow()
    assert len({tuple(encoded.ids(row)) for row in range(30)}) == encoded.trie.n_leaves == 30


def test_a_tokenizer_that_tells_nothing_apart_is_refused() -> None:
    class Blind(FoldingTokenizer):
        def encode(self, texts: list[str], *, after: str = "") -> list[list[int]]:
            return [[1] for _ in texts]

    with pytest.raises(DataError, match="cannot tell items apart"):
        Catalog.of(items("Heat", "Fargo")).encode(Blind())  # type: ignore[arg-type]


def test_an_empty_catalogue_is_refused(tiny_tokenizer: HfTokenizer) -> None:
    with pytest.raises(EmptyCatalogError, match="no items"):
        Catalog.of([]).encode(tiny_tokenizer)


# Growing


def test_newcomers_get_rows_behind_the_others_and_what_comes_again_keeps_its_row_and_text() -> None:
    catalog = Catalog.of(items("Heat", "Fargo"))
    rows = catalog.add([Item(item_id="new", title="Heat (1972)"), Item(item_id="i1", title="Fargo!", category="film")])
    assert rows == [2]
    assert catalog.texts == ["Heat", "Fargo", "Heat (1972)"]
    assert catalog.items[1] == Item(item_id="i1", title="Fargo!", category="film")
    assert [item.item_id for item in catalog.items] == ["i0", "i1", "new"]
    assert (catalog.row, len(catalog), catalog.changed) == ({"i0": 0, "i1": 1, "new": 2}, 3, [1])
    assert catalog.add([]) == []


def test_retired_items_keep_row_and_text_and_come_back_when_they_are_added_again() -> None:
    catalog = Catalog.of(items("Heat", "Fargo"))
    catalog.retire(["i0", "nobody"])
    assert catalog.retired == {0}
    catalog.add([Item(item_id="x", title="Heat")])
    assert catalog.texts == ["Heat", "Fargo", "Heat (2)"]
    catalog.add(items("Heat"))
    assert (catalog.retired, catalog.changed) == (set(), [0, 0])


titles = st.lists(
    st.sampled_from(["Heat", "HEAT", "Heat (1972)", "heat é", "Fargo", "Toy Story", "Toy", ""]), max_size=8
)


@given(titles.filter(bool), st.lists(titles, max_size=4))
def test_equal_catalogues_have_equal_fingerprints_however_they_came_about(
    first: list[str], rest: list[list[str]]
) -> None:
    everything = [Item(item_id=f"i{n}", title=title) for n, title in enumerate([*first, *(t for r in rest for t in r)])]
    grown = Catalog.of(everything[: len(first)])
    sizes, seen = [len(first)], [grown.fingerprint]
    for some in rest:
        grown.add(everything[sizes[-1] : sizes[-1] + len(some)])
        sizes.append(len(grown))
        seen.append(grown.fingerprint)
    whole = Catalog.of(everything)
    assert whole.texts == grown.texts
    assert whole.fingerprint == grown.fingerprint
    assert whole.fingerprints_of(sizes) == seen
    assert len(set(seen)) == len(set(sizes))
    assert Catalog.of([*everything[1:], everything[0]]).fingerprint != whole.fingerprint or len(everything) == 1


@given(titles.filter(bool), st.lists(titles, max_size=4))
def test_a_grown_encoding_is_that_of_everything(
    tiny_tokenizer: HfTokenizer, first: list[str], rest: list[list[str]]
) -> None:
    everything = [Item(item_id=f"i{n}", title=title) for n, title in enumerate([*first, *(t for r in rest for t in r)])]
    for tokenizer in (tiny_tokenizer, FoldingTokenizer()):
        catalog = Catalog.of(everything[: len(first)])
        encoded = catalog.encode(tokenizer)  # type: ignore[arg-type]
        before = [encoded.ids(row) for row in range(len(first))]
        for some in rest:
            taken = encoded.trie
            n = taken.n_leaves
            catalog.add(everything[n : n + len(some)])
            assert taken.n_leaves == n
            assert encoded.trie.n_leaves == len(catalog) == n + len(some)
        assert [encoded.ids(row) for row in range(len(first))] == before
        for row in range(len(everything)):
            assert encoded.trie.tokens(np.array(encoded.trie.path(row))).tolist() == encoded.ids(row)
        assert encoded.longest == max(len(encoded.ids(row)) for row in range(len(everything)))
        if tokenizer is tiny_tokenizer:
            again = Catalog.of(everything).encode(tokenizer)
            assert [again.ids(row) for row in range(len(everything))] == [
                encoded.ids(row) for row in range(len(everything))
            ]


def test_many_newcomers_are_merged_in_the_background_and_kept(
    tiny_tokenizer: HfTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "MERGE_AT", 3)
    everything = items(*(f"Part {n}" for n in range(12)))
    catalog = Catalog.of(everything[:3])
    encoded = catalog.encode(tiny_tokenizer, cache=tmp_path)
    [small] = tmp_path.iterdir()
    taken = encoded.trie
    for item in everything[3:11]:
        catalog.add([item])
        encoded.grow()
    encoded.settle()
    assert 7 <= len(encoded.indptr) - 1 <= 11, "merged"
    assert encoded.trie.n_leaves == 11
    assert taken.tokens(np.array(taken.path(2))).tolist() == encoded.ids(2), "what was taken is still there"
    [large] = tmp_path.iterdir()
    assert large != small

    again = Catalog.of(everything)  # restarted, and one item came meanwhile
    loaded = again.encode(tiny_tokenizer, cache=tmp_path)
    assert list(tmp_path.iterdir()) == [large]
    assert isinstance(loaded.tokens.base, np.memmap)
    assert [loaded.ids(row) for row in range(11)] == [encoded.ids(row) for row in range(11)]
    assert loaded.trie.n_leaves == 12


def test_an_encoding_of_other_items_is_not_taken(tiny_tokenizer: HfTokenizer, tmp_path: Path) -> None:
    Catalog.of(items("Heat", "Fargo")).encode(tiny_tokenizer, cache=tmp_path)
    other = Catalog.of(items("Heat", "Dune", "Alien")).encode(tiny_tokenizer, cache=tmp_path)
    assert tiny_tokenizer.decode(other.ids(1)) == " Dune;"


def test_readers_are_not_disturbed_by_newcomers(tiny_tokenizer: HfTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MERGE_AT", 20)
    catalog = Catalog.of(items("Heat", "Fargo"))
    encoded = catalog.encode(tiny_tokenizer)
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            trie = encoded.trie
            row = trie.n_leaves - 1
            if trie.tokens(np.array(trie.path(row))).tolist() != encoded.ids(row):
                wrong.append(row)
            if catalog.items[row].title not in catalog.texts[row] or catalog.row[catalog.item_ids[row]] != row:
                wrong.append(row)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(150):
        catalog.add([Item(item_id=f"n{n}", title=f"Part {n}")])
    done.set()
    for reader in readers:
        reader.join()
    encoded.settle()
    assert not wrong
    assert encoded.trie.n_leaves == 152


def test_a_description_is_title_attributes_and_words_of_media_and_no_text_changes_by_it(tmp_path: Path) -> None:
    some = [
        Item(item_id="i1", title="Item 1", attributes={"brand": "Oatly", "image": "1.png"}),
        Item(item_id="i2", title="Item 2"),
    ]
    with Store.open(tmp_path / "genrec.db") as store:
        store.put("items", [batch("items", some)])

        def catalog() -> Catalog:
            return Catalog.read(store.items(), store.texts(), media=store.media)

        before = catalog()
        assert before.descriptions() == ["Item 1", "Item 2"]
        store.put_media(
            Medium(item_id=item, reader=reader, file="1.png", content=reader, words=words)
            for item, reader, words in (("i1", "tags", "milk"), ("i1", "ocr", "OAT 1L"), ("gone", "ocr", "x"))
        )
        after = catalog()
        assert after.descriptions() == ["Item 1 OAT 1L milk", "Item 2"]
        assert after.descriptions(["brand", "size"]) == ["Item 1 Oatly OAT 1L milk", "Item 2"]
        assert after.media_fingerprint != before.media_fingerprint
        assert (after.texts, after.titles, after.fingerprint) == (before.texts, before.titles, before.fingerprint)
        after.add([Item(item_id="i1", title="First"), Item(item_id="i3", title="Third")])
        assert after.descriptions() == ["First OAT 1L milk", "Item 2", "Third"]
