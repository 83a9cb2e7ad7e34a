"""`genrec recommend` as a person, a program and a batch job meet it."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from genrec.cli import main
from genrec.cli.recommend import because
from genrec.recommendation import Evidence, RankedItem
from tests.support import corner_shop

LATER = ["--at", "2025-06-16T09:00-04:00"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"priors": {"popularity": {"strength": 1.0}}, "dtype": "float32"}
    return corner_shop.make_workspace(tmp_path_factory.mktemp("shop"), settings)


def recommend(shop: Path, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["recommend", "--workspace", str(shop), *arguments], input=stdin)


def test_a_person_gets_a_table(shop: Path) -> None:
    done = recommend(shop, "bob", *LATER, "-k", "2", "--place", "harbour kiosk")
    assert done.exit_code == 0
    head, columns, first, second = done.stdout.splitlines()
    assert head == "bob · Monday 16 June 2025, 13:00 · harbour kiosk · the prior alone"
    assert columns.split() == ["rank", "item", "log", "p", "p", "id"]
    assert first.split()[:2] == ["1", "Beer"]
    assert second.split()[:2] == ["2", "Milk"]


def test_json_is_one_object_a_line_and_nothing_else(shop: Path) -> None:
    done = recommend(shop, "bob", "zoe", *LATER, "--json", "-k", "1")
    bob, zoe = (json.loads(line) for line in done.stdout.splitlines())
    assert [item["title"] for item in bob["items"]] == ["Beer"]
    assert bob["notes"] == []
    assert "zoe" in zoe["notes"][0]
    assert done.stderr == ""


def test_notes_are_not_part_of_the_answer(shop: Path) -> None:
    done = recommend(shop, "zoe", "--at", "2025-06-16T09:00")
    assert "note: Nothing that zoe chose" in done.stderr
    assert "note: 2025-06-16T09:00 names no time zone: read in UTC" in done.stderr
    assert "note" not in done.stdout


def test_an_explanation_is_a_sentence_under_each_item(shop: Path) -> None:
    done = recommend(shop, "bob", *LATER, "-k", "2", "--explain")
    assert done.exit_code == 0, done.output
    _, _, first, why_first, second, why_second = done.stdout.splitlines()
    assert (first.split()[1], second.split()[1]) == ("Beer", "Milk")
    # worked out in tests/test_explain.py; bob's clock is UTC
    assert (
        why_first.strip() == "because of: Beer (3 times, last 2 days ago) +1.80; in spite of: Milk (8 days ago) -0.22"
    )
    assert why_second.strip().startswith("because of: Milk (8 days ago) +1.")
    said = json.loads(recommend(shop, "bob", *LATER, "-k", "2", "--explain", "--json").stdout)
    assert [len(item["evidence"]) for item in said["items"]] == [2, 2]
    assert said["items"][0]["evidence"][0]["at"] == "2025-06-14T00:00:00+00:00"


def test_of_an_explanation_both_voices_are_told(shop: Path, tiny_model: Path) -> None:
    done = recommend(
        shop, "bob", *LATER, "-k", "1", "--explain", "--engine", "transformers", "--model", str(tiny_model)
    )
    assert done.exit_code == 0, done.output
    why = done.stdout.splitlines()[-1]
    assert re.search(r"; (the (prior|model) [+-]\d+\.\d\d(, )?){2}$", why), why


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (0, "today"),
        (1, "yesterday"),
        (13, "13 days ago"),
        (14, "2 weeks ago"),
        (60, "2 months ago"),
        (729, "24 months ago"),
        (730, "2 years ago"),
    ],
)
def test_an_event_is_so_long_ago(days: int, says: str) -> None:
    at = datetime(2025, 6, 16, 9, tzinfo=UTC)
    tea = Evidence(kind="item", what="Tea", change=0.5, item_id="i-tea", n_events=1, at=at - timedelta(days=days))
    little = Evidence(kind="context", what="summer", change=0.01, feature="season")
    words = Evidence(kind="now", what="all words of now", change=0.7)  # more than they say alone
    evidence = (words, tea, little)
    item = RankedItem(rank=1, item_id="i", title="I", logprob=-1, probability=None, score=-1, evidence=evidence)
    assert because(item, at) == f"because of: Tea ({says}) +0.50"
    assert because(replace(item, evidence=(little,)), at) == "nothing alone speaks for it"


def test_a_parquet_file_has_no_room_for_explanations(shop: Path, tmp_path: Path) -> None:
    done = recommend(shop, "bob", *LATER, "--explain", "--out", str(tmp_path / "lists.parquet"))
    assert done.exit_code == 2
    assert "--explain needs an answer that is printed" in done.stderr


def test_a_file_of_users_becomes_a_parquet_file(shop: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("ann\n\n bob \n" + "".join(f"stranger {n}\n" for n in range(100)))
    out = tmp_path / "lists.parquet"
    done = recommend(shop, "--users", str(users), "cat", *LATER, "-k", "3", "--out", str(out))
    assert done.exit_code == 0
    assert done.stdout == ""
    rows = pq.read_table(out).to_pylist()
    assert [row["user_id"] for row in rows[::3]] == ["cat", "ann", "bob", *(f"stranger {n}" for n in range(100))]
    assert [row["rank"] for row in rows] == [1, 2, 3] * 103
    assert rows[6]["title"] == "Beer"
    assert rows[0]["at"] == datetime(2025, 6, 16, 13, tzinfo=UTC)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("lists")] == ["lists.parquet"]


@pytest.mark.parametrize(("prompt", "review"), [("medicine", True), ("next-item", False)])
def test_a_parquet_file_says_of_each_row_whether_it_must_be_checked(tmp_path: Path, prompt: str, review: bool) -> None:
    shop = corner_shop.make_workspace(tmp_path / "shop", {"prompt": prompt})
    out = tmp_path / "lists.parquet"
    done = recommend(shop, "ann", "bob", *LATER, "--out", str(out))
    assert set(pq.read_table(out)["needs_review"].to_pylist()) == {review}
    assert ("note: For the eyes of a clinician" in done.stderr) is review


def test_beside_a_parquet_file_notes_are_said_once_and_people_without_a_list_are_counted(tmp_path: Path) -> None:
    shop = corner_shop.make_workspace(tmp_path / "shop")
    with corner_shop.Store.open(shop / "genrec.db") as store:
        at = datetime(2025, 6, 1, tzinfo=UTC)
        every = [corner_shop.Event(user_id="max", item_id=item.item_id, at=at) for item in corner_shop.ITEMS]
        store.append([corner_shop.batch("events", every)], source="max")
    out = tmp_path / "lists.parquet"
    done = recommend(shop, "max", "bob", "cat", "--at", "2025-06-16T09:00", "--exclude-seen", "--out", str(out))
    assert done.exit_code == 0, done.stderr
    assert set(pq.read_table(out)["user_id"].to_pylist()) == {"bob", "cat"}
    said = done.stderr.splitlines()
    assert said[0].startswith("note: 2025-06-16T09:00 names no time zone")
    assert said[1].startswith("note: No item is left for max")
    assert said[2:] == [f"{out}: lists for 2 people, 1 have none"]
    strangers = [f"stranger {n}" for n in range(30)]
    assert recommend(shop, *strangers, *LATER, "--out", str(out)).stderr.splitlines()[-2:] == [
        "note: … and 10 more notes",
        f"{out}: lists for 30 people",
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_the_list_of_before(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    out.write_text("the list of before")
    (tmp_path / "lists.parquet.part").symlink_to("/dev/full")
    done = recommend(shop, "bob", *LATER, "--out", str(out))
    assert done.exit_code == 3
    assert "No space left on device" in done.stderr
    assert "hint: Choose another --out FILE, or make room." in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(out.name, "the list of before")]


def test_only_a_plain_file_is_replaced_by_a_list(shop: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = recommend(shop, "bob", *LATER, "--out", str(tmp_path / "pipe"))
    assert done.exit_code == 3
    assert "no plain file" in done.stderr
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("written", "exit_code", "says"), [(b"\xef\xbb\xbfbob\r\n", 0, "bob"), (b"b\xe9b\n", 4, "UTF-8")]
)
def test_a_file_of_users_from_another_system(
    shop: Path, tmp_path: Path, written: bytes, exit_code: int, says: str
) -> None:
    (tmp_path / "users.txt").write_bytes(written)
    done = recommend(shop, "--users", str(tmp_path / "users.txt"), *LATER)
    assert done.exit_code == exit_code
    assert done.output.removeprefix("error: the file of users is not ").startswith(says)


def test_users_can_come_from_standard_input(shop: Path) -> None:
    done = recommend(shop, "--users", "-", *LATER, "--json", stdin="bob\nann\n")
    assert [json.loads(line)["user_id"] for line in done.stdout.splitlines()] == ["bob", "ann"]


def test_hostile_words_keep_to_their_line_on_a_terminal(tmp_path: Path) -> None:
    folder = corner_shop.make_workspace(tmp_path / "shop")
    titles = ["Milk\nerror: no", "\x1b[2J\x1b[31mred", "\u202eevil", "🧑\u200d🍳 pie"]
    items = [corner_shop.Item(item_id=f"h{n}", title=title) for n, title in enumerate(titles)]
    with corner_shop.Store.open(folder / "genrec.db") as store:
        store.put("items", [corner_shop.batch("items", items)])
    done = recommend(folder, "bob\nroot", *LATER, "--place", "\x1b[1mhere", "--trace", "-k", "9")
    assert done.exit_code == 0
    assert {line.strip()[0] for line in done.stdout.splitlines()[2:]} == set("123456789")
    assert all(c.isprintable() or c in "\n\u200d" for c in done.output)
    assert "🧑\u200d🍳 pie" in done.stdout
    said = json.loads(recommend(folder, "bob", *LATER, "--json", "-k", "9").stdout)
    assert {item["title"] for item in said["items"]} >= set(titles)  # for programs, what the data says


def test_seen_items_can_be_left_out(shop: Path) -> None:
    done = recommend(shop, "bob", *LATER, "--exclude-seen", "--json")
    assert [item["title"] for item in json.loads(done.stdout)["items"]] == ["Bread", "Eggs", "Tea"]


def test_nothing_left_exits_with_10_and_a_hint(tmp_path: Path) -> None:
    shop = corner_shop.make_workspace(tmp_path / "shop")
    with corner_shop.Store.open(shop / "genrec.db") as store:
        every = [
            corner_shop.Event(user_id="max", item_id=item.item_id, at=datetime(2025, 6, 1, tzinfo=UTC))
            for item in corner_shop.ITEMS
        ]
        store.append([corner_shop.batch("events", every)], source="max")
    done = recommend(shop, "max", *LATER, "--exclude-seen")
    assert done.exit_code == 10
    assert "error: No item is left for max" in done.stderr
    assert "hint: " in done.stderr
    among_others = recommend(shop, "max", "bob", *LATER, "--exclude-seen", "--json")
    assert among_others.exit_code == 0
    assert [len(json.loads(line)["items"]) for line in among_others.stdout.splitlines()] == [0, 3]


def test_an_empty_workspace_says_how_to_fill_it(tmp_path: Path) -> None:
    corner_shop.create_workspace(tmp_path, {"engine": "none"})
    done = recommend(tmp_path, "ann")
    assert done.exit_code == 10
    assert "genrec import" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["ann", "--at", "soon"], 3, "2017-11-22T18:00"),
        (["ann", "--engine", "vlm"], 6, "Did you mean 'vllm'?"),
        (["ann", "--engine", "transformers", "--model", "/nowhere/at/all"], 8, "genrec models list"),
        ([], 2, "USER"),
        (["ann", "-k", "0"], 2, "range"),
        (["ann", "--out", "/nowhere/at/all.parquet"], 3, "Choose another --out FILE"),
    ],
)
def test_mistakes_are_answered_with_advice(shop: Path, arguments: list[str], exit_code: int, says: str) -> None:
    done = recommend(shop, *arguments)
    assert done.exit_code == exit_code
    assert says in done.output


def test_a_language_model_answers_and_the_trace_shows_how(shop: Path, tiny_model: Path) -> None:
    done = recommend(shop, "ann", *LATER, "--engine", "transformers", "--model", str(tiny_model), "--trace", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert {item["title"] for item in answer["items"]} == {item.title for item in corner_shop.ITEMS}
    assert (answer["engine"], answer["scoring"], answer["prompt"]) == ("transformers", "fused", "next-item")
    assert set(answer["timings_s"]) == {"history", "prompt", "search", "rerank"}
    stages = [line.split(" · ")[1].split(":")[0] for line in done.stderr.splitlines() if line.startswith("── ann")]
    assert stages == ["history", "prompt", "search", "rerank"]
    assert "Milk; Bread;" in done.stderr or "Bread; Milk;" in done.stderr


@pytest.mark.parametrize("damaged", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_model_is_named_with_a_way_out(shop: Path, tiny_model: Path, tmp_path: Path, damaged: str) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / damaged).write_bytes((model / damaged).read_bytes()[:100])
    done = recommend(shop, "ann", "--engine", "transformers", "--model", str(model))
    assert done.exit_code == 8, done.output
    assert str(model) in done.stderr
    assert "hint: Get a whole model with: genrec models get" in done.stderr


def test_rerankers_of_the_configuration_are_used(tmp_path: Path) -> None:
    settings = {
        "rerank": ["diversity"],
        "rerankers": {"diversity": {"per_category": 1}},
        "priors": {"popularity": {"strength": 1.0}},
    }
    shop = corner_shop.make_workspace(tmp_path / "shop", settings)
    done = recommend(shop, "cat", *LATER, "--json", "-k", "3")
    assert [item["title"] for item in json.loads(done.stdout)["items"]] == ["Milk", "Bread", "Beer"]


# Filters


def test_filters_narrow_the_list(shop: Path) -> None:
    done = recommend(shop, "bob", *LATER, "--category", "dairy", "--category", "bakery", "--json")
    assert [item["title"] for item in json.loads(done.stdout)["items"]] == ["Milk", "Bread", "Eggs"]


def test_a_filter_that_no_item_can_pass_is_refused_with_advice(shop: Path) -> None:
    done = recommend(shop, "bob", *LATER, "--category", "diary")
    assert done.exit_code == 3
    assert "no item has the category 'diary'" in done.stderr
    assert "Did you mean 'dairy'?" in done.stderr
    done = recommend(shop, "bob", *LATER, "--where", "tenant=a")
    assert "no item has the attribute 'tenant'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--where", "available"], 2, "has no value"),
        (["--near", "Paris"], 2, "is not a latitude and a longitude"),
        (["--near", "48.85"], 2, "is not a latitude and a longitude"),
        (["--near", "48.85,2.35"], 3, "how near is near?"),
        (["--within-km", "3"], 3, "how near is near?"),
        (["--near", "148.85,2.35", "--within-km", "3"], 3, "148.85,2.35 is no place on earth"),
        (["--position", "2.35,-248.85"], 3, "2.35,-248.85 is no place on earth"),
        (["--near", "48.85,2.35", "--within-km", "-3"], 3, "it must be above 0"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(
    shop: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    done = recommend(shop, "bob", *LATER, *arguments)
    assert done.exit_code == exit_code
    assert message in done.stderr
