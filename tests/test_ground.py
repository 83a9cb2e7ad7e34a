"""Free text to items: what is read of an answer, what is found, and how answers vote."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.events import Item
from genrec.ground import MAX_TITLES, Grounder, normalise, question, titles_of
from genrec.models import model_folder
from genrec.prompt import Prompt
from genrec.vectors import Embedder, TextVectors

TITLES = ["Milk", "Rye Bread", "Mamma Mia!", "Heat (1995)", "Heat (1972)", "Salt & vinegar potato chips"]
MILK, BREAD, MAMMA, HEAT, OLD_HEAT, CHIPS = range(6)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.of(Item(item_id=f"i-{n}", title=title) for n, title in enumerate(TITLES))


@pytest.fixture(scope="module")
def by_name(catalog: Catalog) -> Grounder:
    return Grounder(catalog)


@pytest.mark.parametrize(
    ("answer", "titles"),
    [
        ("1. Milk\n2. Rye bread\n\n3) Tea\n", ["Milk", "Rye bread", "Tea"]),
        ("- Milk\n* Bread\n• Tea\n#4 Beer", ["Milk", "Bread", "Tea", "Beer"]),
        ("milk; bread;", ["milk", "bread"]),
        ("Friday evening, summer | milk; bread;\nSunday | tea;", ["milk", "bread", "tea"]),
        ('["Milk", "Bread"]', ["Milk", "Bread"]),
        (
            'Here you are:\n```json\n[\n  {"title": "Milk"},\n  {"name": "Bread"}, {"rank": 3}, 4\n]\n```',
            ["Milk", "Bread"],
        ),
        ('{"items": ["Milk", "Bread"]}', ["Milk", "Bread"]),
        ('["Milk", "Br', ["Milk"]),
        ("Sure! Here is a list:\n**Milk**\n“Bread”\n", ["Milk", "Bread"]),
        ("<think>Perhaps tea?\nOr beer.</think>\nMilk", ["Milk"]),
        ("<think>Perhaps tea?\nOr", []),
        ("1984\n7 Up\n[REC]", ["1984", "7 Up", "[REC]"]),
        ("**1. Milk**", ["Milk"]),
        ("", []),
        (" \n;;\n", []),
    ],
)
def test_what_is_read_of_an_answer(answer: str, titles: list[str]) -> None:
    assert titles_of(answer) == titles


def test_an_endless_answer_is_read_to_a_limit() -> None:
    assert len(titles_of("Milk\n" * 10_000)) == MAX_TITLES
    assert len(titles_of("m" * 10_000)[0]) == 200


@given(st.text())
def test_anything_can_be_read(answer: str) -> None:
    for title in titles_of(answer):
        assert title.strip()
        normalise(title)


@pytest.mark.parametrize(
    ("written", "row"),
    [
        ("milk", MILK),
        ("  MILK. ", MILK),
        ("rye   bread", BREAD),
        ("“Mamma Mia”", MAMMA),
        ("\uff2d\uff29\uff2c\uff2b", MILK),  # full width
        ("Heat", HEAT),  # whose text is the short one
        ("heat (1995)", HEAT),
        ("Heat (1972)", OLD_HEAT),
        ("Milk - goes with everything", MILK),
        ("Milk: goes with everything", MILK),
        ("Milk (for the coffee)", MILK),
        ("Milkshake", None),
        ("!!", None),
    ],
)
def test_what_counts_as_the_same_name(by_name: Grounder, written: str, row: int | None) -> None:
    found = by_name.ground([written], k=5)
    assert found.rows.tolist() == ([] if row is None else [row])
    assert (found.n_exact, found.n_lost) == ((0, 1) if row is None else (1, 0))


def test_answers_vote_by_how_often_and_how_early(by_name: Grounder) -> None:
    found = by_name.ground(["Milk\nRye bread", "Unicorn\nRye bread\nMilk", "Rye bread"], k=5)
    votes = {BREAD: 1 / 2 + 1 / 2 + 1, MILK: 1 + 1 / 3}
    total = votes[BREAD] + votes[MILK] + 1  # the unicorn's
    assert found.rows.tolist() == [BREAD, MILK]
    assert found.weights == pytest.approx([votes[BREAD] / total, votes[MILK] / total])
    assert found.logprobs == pytest.approx([math.log(votes[row] / total) for row in (BREAD, MILK)])
    assert (found.n_answers, found.n_titles, found.n_exact, found.n_near, found.n_lost) == (3, 6, 5, 0, 1)
    assert found.note("gpt") == (
        "gpt wrote 6 titles in 3 answers: 5 are in the catalogue by name, 0 by the nearest vector, 1 are lost."
    )


def test_repeating_a_title_wins_nothing(by_name: Grounder) -> None:
    found = by_name.ground(["Milk\nMILK\nHeat\nHeat (1995)\nmilk."], k=5)
    assert found.rows.tolist() == [MILK, HEAT]
    assert found.weights == pytest.approx([2 / 3, 1 / 3])
    assert found.n_titles == 3


def test_what_may_not_be_recommended_is_left_out_and_changes_no_weight(by_name: Grounder) -> None:
    answers = ["Milk\nRye bread\nHeat"]
    everything = by_name.ground(answers, k=5)
    live = np.ones(6, bool)
    live[MILK] = False
    found = by_name.ground(answers, k=5, live=live)
    assert found.rows.tolist() == [BREAD, HEAT]
    assert found.weights.tolist() == everything.weights[1:].tolist()
    assert (found.n_exact, found.n_barred) == (3, 1)
    assert found.note("gpt").endswith("0 are lost. 1 of those found may not be recommended.")


def test_a_list_is_cut_and_equals_keep_their_order(by_name: Grounder) -> None:
    assert by_name.ground(["Heat", "Milk", "Rye bread"], k=2).rows.tolist() == [HEAT, MILK]


def test_nothing_found_is_an_empty_list(by_name: Grounder) -> None:
    for answers in ([], [""], ["I am sorry, I cannot help with that."]):
        found = by_name.ground(answers, k=5)
        assert found.rows.tolist() == found.weights.tolist() == []
    assert found.n_lost == 1


@pytest.mark.llm
def test_other_words_are_found_by_the_nearest_vector(catalog: Catalog) -> None:
    vectors = TextVectors.of(catalog.texts, Embedder(model_folder("minilm-l6-v2")))
    found = Grounder(catalog, vectors).ground(["the rye breads\npotato chips, salt and vinegar\nUnicorn\nmilk"], k=9)
    assert found.rows.tolist() == [BREAD, CHIPS, MILK]
    assert (found.n_exact, found.n_near, found.n_lost) == (1, 2, 1)
    strict = Grounder(catalog, vectors, threshold=0.999).ground(["the rye breads\nmilk"], k=9)
    assert strict.rows.tolist() == [MILK]


def prompt(*turns: tuple[str, str]) -> Prompt:
    return Prompt(
        token_ids=(),
        turns=turns,
        lines=("Monday | Milk;", "Friday |"),
        told_at=datetime(2026, 3, 2, tzinfo=UTC),
        n_stable=0,
        n_history_tokens=0,
        n_moments=1,
        n_dropped=0,
        n_unknown=0,
    )


def test_every_earlier_line_is_a_pair_of_turns() -> None:
    asked = question(prompt(("system", "You know ann."), ("user", "Go on.")), 7)
    assert asked == (
        ("system", "You know ann."),
        ("user", "Go on.\n\nMonday"),
        ("assistant", "Milk;"),
        ("user", "Friday\n\n(The 7 most likely items, the most likely first, each closed by a semicolon.)"),
    )


def test_roles_alternate_whatever_the_history() -> None:
    alone = replace(prompt(("user", "Go on.")), lines=("|",))
    [(role, text)] = question(alone, 3, new_only=True)
    assert role == "user"
    assert text.startswith("Go on.\n\n…\n\n(The 3 most likely items that were not named before")
    unnamed = replace(prompt(), lines=("| Milk;", "| Bread;", "Friday |"))
    assert [role for role, _ in question(unnamed, 3)] == ["user", "assistant", "user", "assistant", "user"]
