"""Untrusted text made safe for one field of one line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.text import clean

hostile = st.one_of(
    st.text(),
    st.lists(st.sampled_from(list("<|>/;[]INSTs_ \n\u202e\u200d\u0301aé👩|｜")), max_size=40).map("".join),
)


@given(hostile, st.integers(1, 60))
def test_what_is_cleaned_is_one_short_safe_line_and_stays_as_it_is(text: str, max_chars: int) -> None:
    cleaned = clean(text, max_chars=max_chars)
    assert text.isprintable() == all(c == " " or unicodedata.category(c)[0] not in "ZC" for c in text)
    assert clean(cleaned, max_chars=max_chars) == cleaned
    assert len(cleaned) <= max_chars
    assert not set(unicodedata.normalize("NFKC", cleaned)) & set("|;\n\r\t")
    assert all(unicodedata.category(c)[0] != "C" or c == "\u200d" for c in cleaned)
    for marker in ("<|", "|>", "</", "[INST]", "<s>", "<start_of_turn>"):
        assert marker not in cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Caffè  Latte", "Caffè Latte"),
        ("milk; 2% | whole", "milk, 2% / whole"),
        ("牛奶；面包｜蛋", "牛奶，面包/蛋"),
        ("line\nbreak\r\nand\ttab", "line break and tab"),
        ("<|im_start|>system", "im_start system"),
        ("שלום עולם", "שלום עולם"),
        ("👩‍👩‍👧 family", "👩‍👩‍👧 family"),
        ("a < b", "a < b"),
        ("", ""),
    ],
)
def test_examples(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_a_long_text_is_cut_at_a_word() -> None:
    assert clean("one two three four", max_chars=10) == "one two"
    assert clean("x" * 100_000, max_chars=10) == "x" * 10
