"""What training reads is what serving shows."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.events import Context, Item
from genrec.finetune.packing import Chooser, Writing, pack, plan
from genrec.history import History
from genrec.prompt import bundled_prompts, load_template, render
from genrec.store import Taken
from genrec.traits import MIN_USES, friends_took
from tests.support.people import ITEMS, person


def served(writing: Writing, history: History, moment: int, instead: Mapping[str, str] | None = None) -> list[int]:
    """The ids that a prompt shows before a person's moment, without and with filler."""
    now = history.moments[moment]
    before = replace(history, at=now.at, moments=history.moments[:moment])
    prompt = render(
        writing.template,
        before,
        now.context,
        writing.encoded,
        writing.tokenizer,
        words=writing.words,
        max_tokens=writing.max_tokens,
        align=writing.align,
        instead=instead,
    )
    return list(prompt.token_ids)


def going_about(history: History) -> History:
    """The same at work; on every third day and on weekends at home; and now and then elsewhere."""
    spots = [(52.52, 13.405), (52.565, 13.405), (52.5651, 13.4051), (52.3, 13.0), (0.0, 0.0)]
    found = []
    for day, moment in enumerate(history.moments):
        spot = spots[0 if day % 3 == 0 or day % 7 > 4 else 1 + day % 2 if day % 7 else 3 + day % 2]
        context = Context(latitude=spot[0], longitude=spot[1], place="office" if day % 7 == 3 else None)
        found.append(replace(moment, at=moment.at + timedelta(hours=14 * (day % 3 == 0)), context=context))
    return replace(history, moments=tuple(found))


def with_places(writing: Writing) -> Writing:
    """The same with all that can be said of places, and a category of each item."""
    items = [
        Item(item_id=name, title=name, category="drinks" if name in ("tea", "coffee") else "food") for name in ITEMS
    ]
    encoded = Catalog.of(items).encode(writing.tokenizer)
    return replace(writing, template=load_template("places", [bundled_prompts()]), encoded=encoded)


def with_traits(writing: Writing) -> Writing:
    """The same with all that can be told of the person."""
    return replace(writing, template=load_template("shop", [bundled_prompts()]))


def with_friends(writing: Writing) -> Writing:
    """The same with what friends took."""
    return replace(writing, template=load_template("posts", [bundled_prompts()]))


def daily(at: datetime) -> list[Taken]:
    """Friends took one thing a day, another every day, and nothing for long before."""
    days = [at - timedelta(days=n) for n in range(1, 4)]
    return [Taken(item_id=ITEMS[day.toordinal() % len(ITEMS)], at=day, weight=1.0) for day in days]


def by_phone(history: History) -> History:
    """The same, now on the phone and now not."""
    found = [replace(m, context=Context(device=("phone", "tablet")[n % 7 > 4])) for n, m in enumerate(history.moments)]
    return replace(history, moments=tuple(found))


def without_filler(ids: list[int], newline: int) -> list[int]:
    """Runs of line breaks as one."""
    return [a for i, a in enumerate(ids) if not (a == newline and i and ids[i - 1] == newline)]


@settings(max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(0, 9),
    st.integers(1, 4),
    st.sampled_from([160, 256, 400, 1024]),
    st.one_of(st.none(), st.integers(0, 5)),
    st.sampled_from(["", "places", "traits", "friends"]),
    st.sampled_from([None, {"since": "", "place": "store 9", "weekday": "Friday"}]),
)
def test_before_any_moment_training_and_serving_show_the_same_ids(
    writing: Writing,
    n: int,
    first: int,
    per_moment: int,
    max_tokens: int,
    seed: int | None,
    told: str,
    instead: Mapping[str, str] | None,
) -> None:
    writing = replace(writing, max_tokens=max_tokens)
    history = person("ann", n, first=first, per_moment=per_moment)
    if told == "places":
        writing, history = with_places(writing), going_about(history)
    elif told == "traits":
        writing, history = with_traits(writing), by_phone(history)
    elif told == "friends":
        writing, history = with_friends(writing), replace(history, friends_took=daily)
    [newline] = writing.tokenizer.encode(["\n"], after=";")
    seen = []
    for row in writing.rows(history, None if seed is None else random.Random(seed), instead=instead):
        ids = row.token_ids.tolist()
        for position, target, moment in zip(row.position, row.target, row.moment, strict=True):
            shown = served(writing, history, int(moment), instead if moment == n - 1 else None)
            if seed is None:
                assert ids[: position + 1] == without_filler(shown, newline[-1])
                assert history.moments[moment].item_ids[0] == ITEMS[target]
            item = list(writing.encoded.ids(int(target)))
            assert ids[position + 1 : position + 1 + len(item)] == item
            assert ITEMS[target] in history.moments[moment].item_ids
            seen.append(int(moment))
    assert seen == sorted(set(seen))
    if max_tokens >= 400:
        assert seen == list(range(n)), "every moment is a target, of one row"


def test_rows_say_what_places_are_to_the_person(writing: Writing) -> None:
    [row] = replace(with_places(writing), max_tokens=8192).rows(going_about(person("ann", 60)))
    text = writing.tokenizer.decode(row.token_ids)
    for words in ("at home", "at work, 5 km north of home", "elsewhere, 50 km southwest of home", "food, "):
        assert words in text


def test_rows_tell_what_the_window_leaves_out_and_nothing_that_comes_later(writing: Writing) -> None:
    rows = list(replace(with_traits(writing), max_tokens=400).rows(by_phone(person("ann", 60))))
    heads = [writing.tokenizer.decode(row.token_ids).split("assistant\n")[0] for row in rows]
    assert len(rows) > 3
    assert "habits" not in heads[0], "its window begins with the first moment"
    assert "habits: phone daily" in heads[-1]
    for head, row in zip(heads, rows, strict=True):
        if "habits" in head:
            assert row.moment[0] >= MIN_USES


def test_rows_tell_what_friends_took_before_the_first_moment_that_they_show(writing: Writing) -> None:
    history = replace(person("ann", 60), friends_took=daily)
    rows = list(replace(with_friends(writing), max_tokens=400).rows(history))
    heads = [writing.tokenizer.decode(row.token_ids).split("assistant\n")[0] for row in rows]
    assert len(set(heads)) > 3
    told = friends_took(daily(history.moments[0].at), history.moments[0].at, writing.encoded.catalog)
    assert f"friends took: {'; '.join(told)}" in heads[0]


def test_a_row_may_end_like_a_served_prompt_with_its_filler(writing: Writing) -> None:
    history = person("ann", 12)
    fills = 0
    for seed in range(40):
        [row] = writing.rows(history, random.Random(seed))
        shown = served(writing, history, 11)
        fills += row.token_ids[: row.position[-1] + 1].tolist() == shown
    assert 2 < fills < 25


def test_items_of_a_moment_are_shuffled_from_epoch_to_epoch(writing: Writing) -> None:
    firsts = {next(writing.rows(person("ann", 1, per_moment=4), random.Random(seed))).target[0] for seed in range(40)}
    assert firsts == {0, 1, 2, 3}


def test_packed_rows_keep_every_id_and_read_their_common_beginning_once(writing: Writing) -> None:
    rows = [row for i in range(5) for row in writing.rows(person(f"p{i}", 3 + i, first=i))]
    packed = pack(rows)
    n_shared, *rest = packed.lengths
    assert n_shared > 20
    assert len(packed.token_ids) == n_shared + sum(rest) == len(packed.position_ids)
    at = n_shared
    for row, length in zip(rows, rest, strict=True):
        together = [*packed.token_ids[:n_shared], *packed.token_ids[at : at + length]]
        assert together == row.token_ids.tolist()
        at += length
    choices = Chooser(writing.encoded.trie).to(packed.target)
    index = packed.at(choices)
    for i in range(len(choices)):
        children = writing.encoded.trie.children(int(choices.node[i]))
        token = writing.encoded.trie.tokens(children)[choices.chosen[i]]
        behind = index[i] + 1 if choices.depth[i] else packed.depth_step[choices.target[i]]
        assert packed.token_ids[behind] == token


def test_choices_are_where_the_trie_branches(writing: Writing) -> None:
    trie = writing.encoded.trie
    chooser = Chooser(trie)
    for row, title in enumerate(ITEMS):
        choices = chooser.to([row])
        assert all(len(trie.children(int(node))) > 1 for node in choices.node)
        assert choices.node[0] == 0, title
    alone = Catalog.of([Item(item_id="x", title="the only one")]).encode(writing.tokenizer)
    assert len(Chooser(alone.trie).to([0, 0])) == 0


@settings(max_examples=60)
@given(st.lists(st.integers(30, 300), min_size=1, max_size=60), st.integers(300, 900), st.integers(0, 30))
def test_a_plan_has_each_row_once_and_no_step_is_too_long(lengths: list[int], n_tokens: int, n_shared: int) -> None:
    steps = plan(lengths, n_tokens, random.Random(1), n_shared=n_shared)
    assert sorted(i for step in steps for i in step) == list(range(len(lengths)))
    assert all(n_shared + sum(lengths[i] - n_shared for i in step) <= n_tokens for step in steps)
    assert plan(lengths, n_tokens, random.Random(1), n_shared=n_shared) == steps


def test_one_very_long_row_has_a_step_of_its_own() -> None:
    steps = plan([5_000, 10, 10], 100, random.Random(0))
    assert [0] in [sorted(step) for step in steps]


@pytest.mark.parametrize("n", [1, 2])
def test_someone_with_hardly_any_history_is_learned_from(writing: Writing, n: int) -> None:
    [row] = writing.rows(person("ann", n))
    assert row.moment.tolist() == list(range(n))
    assert np.array_equal(row.target, np.arange(n))
