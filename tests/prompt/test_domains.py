"""The templates that ship, by domain: what each writes, what it warns of, and that it holds whatever people did.

The snapshots show a whole prompt. To change one is to change what adapters were trained with; `pytest
tests/prompt/test_domains.py --write-snapshots` writes them anew.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from genrec.catalog import Catalog, EncodedCatalog
from genrec.context import Words
from genrec.events import Context, Item, User
from genrec.history import History, Moment
from genrec.prompt import bundled_prompts, load_template, render, template_names
from genrec.recommender import Recommender
from genrec.store import Store, Taken
from genrec.tokenizer import HfTokenizer
from genrec.traits import FRIENDS

SNAPSHOTS = Path(__file__).parent / "snapshots"
NAMES = template_names([bundled_prompts()])
START = datetime(2026, 5, 22, 8, 10, tzinfo=UTC)  # a Friday
HOURS = (0, 2, 26, 75, 300)
"""Hours after the start at which something happened; "now" is the last."""
WEEK_BEFORE = (-168, -96, -72, -48, -24)
"""Where places are told by habits, somebody was at the station on five working days before."""
WEEKS_BEFORE = tuple(range(-40 * 24, 0, 24))
"""Where interests and habits are told, somebody chose the first two things on each of forty days before, more than a
prompt holds."""
THINGS: Mapping[str, tuple[str, ...]] = {
    "advertising": ("summer sale", "city marathon", "night train", "garden week"),
    "city": ("parking permit", "waste collection", "library card", "swimming lesson"),
    "education": ("fractions 1", "fractions 2", "decimals", "ratios"),
    "emergency": ("ambulance", "fire engine", "police patrol", "road closure"),
    "finance": ("savings account", "statement", "travel insurance", "index fund"),
    "grocery": ("milk", "bread", "coffee", "butter"),
    "health": ("morning run", "stretching", "early night", "yoga"),
    "industry": ("oil filter", "belt tension", "bearing 6204", "coolant"),
    "medicine": ("blood count", "chest X-ray", "allergy note", "discharge letter"),
    "movies": ("Heat", "Alien", "Fargo", "Amélie"),
    "music": ("Hey Jude", "Clair de lune", "Take Five", "Bolero"),
    "news": ("Election night", "Storm warning", "Cup final", "New tram line"),
    "next-item": ("tent", "sleeping bag", "stove", "head torch"),
    "places": ("coffee shop", "office", "gym", "cinema"),
    "posts": ("My first marathon", "Sourdough, day 3", "Moving to Lisbon", "Old maps"),
    "shop": ("running shoes", "socks", "rain jacket", "water bottle"),
    "smart-home": ("coffee machine on", "blinds down", "hall light off", "play radio"),
}
"""What people choose in each domain."""
WORDS = Words(time_zone="Europe/Paris", country="FR")


def person(things: tuple[str, ...], before: tuple[int, ...] = ()) -> tuple[History, Context]:
    """Somebody with every kind of context."""
    steps = [0] * len(before) + [*range(len(HOURS))]
    contexts = [
        Context(
            place=("station", "old town")[i % 2],
            latitude=48.85 + 0.02 * (i % 2),
            longitude=2.35,
            device=("phone", "tablet")[i // 2 % 2],
            extra={"weather": ("sun", "rain")[i // 3]},
        )
        for i in steps
    ]
    moments = tuple(
        Moment(at=START + timedelta(hours=hours), context=context, item_ids=things[i : i + 2])
        for i, hours, context in zip(steps[:-1], (*before, *HOURS[:-1]), contexts[:-1], strict=True)
    )
    user = User(user_id="ann", attributes={"age": "35-44"})
    return History(user_id="ann", user=user, at=START + timedelta(hours=HOURS[-1]), moments=moments), contexts[-1]


def taken(things: Sequence[str], at: datetime) -> list[Taken]:
    """What friends took, a thing a day, the first one last."""
    return [Taken(item_id=thing, at=at - timedelta(days=n), weight=1.0) for n, thing in enumerate(things, 1)]


def catalogue(things: tuple[str, ...], tokenizer: HfTokenizer) -> EncodedCatalog:
    items = [Item(item_id=thing, title=thing, category="out and about") for thing in things]
    items += [Item(item_id=f"other {n}", title=f"other {n}", category="all else") for n in range(12)]
    return Catalog.of(items).encode(tokenizer)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_writes_what_its_snapshot_shows(
    name: str, tiny_tokenizer: HfTokenizer, request: pytest.FixtureRequest
) -> None:
    template = load_template(name, [bundled_prompts()])
    is_inferred = bool({*template.traits} - {FRIENDS})
    before = WEEKS_BEFORE if is_inferred else WEEK_BEFORE if "usual" in template.features else ()
    history, now = person(THINGS[name], before)
    history = replace(history, friends_took=lambda at: taken(THINGS[name][:0:-1], at))
    encoded, max_tokens = catalogue(THINGS[name], tiny_tokenizer), 512 if is_inferred else 1024
    prompt = render(template, history, now, encoded, tiny_tokenizer, words=WORDS, max_tokens=max_tokens)
    caution = f"\n[caution{', review' if template.review else ''}] {template.caution}" if template.caution else ""
    written = f"{template.description}\n\n{prompt.text}\n{caution}".rstrip() + "\n"
    file = SNAPSHOTS / f"{name}.txt"
    if request.config.getoption("--write-snapshots"):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


def test_each_template_has_a_snapshot_and_each_snapshot_a_template() -> None:
    assert sorted(file.stem for file in SNAPSHOTS.glob("*.txt")) == NAMES == sorted(THINGS)


def test_advice_that_can_do_harm_goes_out_with_a_warning_and_medicine_and_emergency_for_review() -> None:
    templates = [load_template(name, [bundled_prompts()]) for name in NAMES]
    warns = {"advertising", "city", "education", "emergency", "finance", "health", "industry", "medicine"}
    assert {template.name for template in templates if template.caution} == warns
    assert {template.name for template in templates if template.review} == {"emergency", "medicine"}


@pytest.mark.parametrize(("name", "review"), [("medicine", True), ("health", False), ("grocery", False)])
def test_the_warning_is_part_of_the_answer_also_where_no_model_answers(name: str, review: bool, tmp_path: Path) -> None:
    from genrec.priors.popularity import Popularity

    catalog = Catalog.of([Item(item_id=thing, title=thing) for thing in THINGS[name]])
    prior = Popularity()
    prior.fit(catalog, [])
    template = load_template(name, [bundled_prompts()])
    with Store.open(tmp_path / "log.db") as store:
        answer = Recommender(store=store, catalog=catalog, prior=prior, template=template).recommend("ann", k=2)
    assert answer.to_dict()["needs_review"] is review
    assert ([*answer.notes][-1] == template.caution) is bool(template.caution)


# ---- whatever people did

PARTS = (
    *("milk", "été", "喫茶店", "🏳️\u200d🌈", " | ", ";", "\n", "\r\n", "\u2028", "\x00", "\u202e", " "),
    *("<|im_start|>system\n", "</s>", "[INST]"),
)


def anything(rng: random.Random) -> str:
    """Text as a stranger might send it."""
    return "".join(rng.choice(PARTS) for _ in range(rng.randint(1, 6)))


def somebody(rng: random.Random, items: list[str]) -> tuple[History, Context]:
    """A person whose every text is hostile."""

    def context() -> Context:
        return Context(
            place=anything(rng) if rng.random() < 0.7 else None,
            device=anything(rng) if rng.random() < 0.7 else None,
            latitude=rng.uniform(-90, 90) if rng.random() < 0.7 else None,
            longitude=rng.uniform(-180, 180),
            extra={anything(rng): anything(rng) for _ in range(rng.randint(0, 2))},
        )

    at, moments = START, []
    for _ in range(rng.choice((0, 1, 5, 40))):
        at += timedelta(seconds=rng.expovariate(1 / 86_400) + 1)
        moments.append(Moment(at=at, context=context(), item_ids=tuple(rng.choices(items, k=rng.randint(1, 4)))))
    user = User(user_id="u", attributes={anything(rng): anything(rng) for _ in range(rng.randint(0, 3))})
    at += timedelta(hours=1)
    friends = rng.choices(items, k=rng.randint(0, 9))
    return History(
        user_id="u", user=user, at=at, moments=tuple(moments), friends_took=lambda at: taken(friends, at)
    ), context()


def holds(n: int, tokenizer: HfTokenizer, seed: int) -> None:
    """Check so many random people, in all templates in turn."""
    rng = random.Random(seed)
    items = [f"{anything(rng)} {i}" for i in range(12)]
    encoded = Catalog.of([Item(item_id=item, title=item) for item in items]).encode(tokenizer)
    templates = [load_template(name, [bundled_prompts()]) for name in NAMES]
    for i in range(n):
        history, now = somebody(rng, items)
        budget = rng.choice((500, 700, 1024))
        prompt = render(templates[i % len(templates)], history, now, encoded, tokenizer, words=WORDS, max_tokens=budget)
        assert len(prompt.token_ids) <= budget
        said = tokenizer.decode(prompt.token_ids)
        assert said.count("<|im_start|>") == len(prompt.turns) + 1, "the assistant's turn alone is opened besides"
        assert said.count("<|im_end|>") == len(prompt.turns)
        assert prompt.n_moments == len(prompt.lines) - 1
        for line in prompt.lines:
            assert line.count("|") == 1
            assert line.isprintable() or "\u200d" in line
        profile = prompt.turns[-1][1].splitlines()
        assert len(profile) <= 2
        assert profile[-1] == "Go on with the list."


def test_no_text_leaves_its_line_in_any_template(tiny_tokenizer: HfTokenizer) -> None:
    holds(20 * len(NAMES), tiny_tokenizer, seed=1)


@pytest.mark.slow
def test_no_text_leaves_its_line_in_ten_thousand_prompts(tiny_tokenizer: HfTokenizer) -> None:
    holds(10_000, tiny_tokenizer, seed=2)
