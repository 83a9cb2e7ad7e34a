"""What friends take: relations from a file to a list that they change."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from genrec.catalog import Catalog
from genrec.cli import main
from genrec.errors import ConfigError
from genrec.events import Context, Edge, Event, Item, batch
from genrec.history import History
from genrec.priors.blend import Blend
from genrec.priors.friends import Friends

START = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = ("tea", "milk", "cake", "rice")
CATALOG = Catalog.of([Item(item_id=name, title=name) for name in ITEMS])
EVENTS = [
    *(Event(user_id=f"u{i}", item_id="tea", at=START + timedelta(days=i)) for i in range(9)),
    Event(user_id="bo", item_id="cake", at=START + timedelta(days=10)),
    Event(user_id="bo", item_id="rice", at=START + timedelta(days=40)),
    Event(user_id="cy", item_id="milk", at=START + timedelta(days=10)),
]
EDGES = [
    Edge(from_id="ann", to_id="bo", kind="friend"),
    Edge(from_id="cy", to_id="ann", kind="colleague", weight=3.0),
    Edge(from_id="ann", to_id="ann"),
]


def fitted(*edges: Edge, **options: object) -> Friends:
    prior = Friends(**options)  # type: ignore[arg-type]
    prior.relate([batch("edges", edges)])
    prior.fit(CATALOG, [batch("events", EVENTS)])
    return prior


def scores(prior: Friends, user: str, day: float) -> np.ndarray:
    history = History(user_id=user, user=None, at=START + timedelta(days=day), moments=())
    return prior._scores(prior._past(history, Context(), later=True))


def test_what_friends_took_counts_by_weight_and_by_how_long_ago_it_was() -> None:
    prior = fitted(*EDGES, half_life_days=10.0)
    assert scores(prior, "ann", 20) == pytest.approx([0, 3 / 4 * 0.5, 1 / 4 * 0.5, 0])
    assert scores(prior, "ann", 50) == pytest.approx([0, 3 / 4 / 16, 1 / 4 / 16, 1 / 4 / 2])
    assert not scores(prior, "ann", 10).any(), "nothing of that moment or later, for nobody"
    assert scores(prior, "bo", 50).tolist() == [0, 0, 0, 0], "ann has taken nothing"


def test_a_community_is_one_more_friend() -> None:
    circles = [
        Edge(from_id=f"u{a}", to_id=f"u{b}") for some in (range(4), range(4, 9)) for a in some for b in some if a < b
    ]
    edges = [*circles, Edge(from_id="u0", to_id="ann"), Edge(from_id="u4", to_id="bo")]
    alone, among = (fitted(*edges, half_life_days=1e6, community=weight) for weight in (0.0, 3.0))
    tea_by_one = scores(alone, "ann", 20)[0]
    assert tea_by_one == pytest.approx(1, abs=1e-3), "u0, her only friend, took tea"
    assert scores(among, "ann", 20) == pytest.approx([1, 0, 0, 0], abs=1e-3), "as did u1, u2 and u3"
    assert scores(alone, "u5", 50) == pytest.approx([1, 0, 0, 0], abs=1e-3), "whose friends took tea alone"
    others = 5  # u4, u6, u7, u8 and bo, who had cake and rice
    assert scores(among, "u5", 50) == pytest.approx(
        [(4 + 3 * 4 / others) / 7, 0, 3 / others / 7, 3 / others / 7], abs=1e-3
    )
    assert scores(among, "u5", 20)[3] == 0, "rice was later"
    assert not scores(among, "cy", 50).any(), "who knows nobody"
    other_order = Friends(half_life_days=1e6, community=3.0)
    other_order.relate([batch("edges", edges[::-1])])
    other_order.fit(CATALOG, [batch("events", EVENTS[::-1])])
    np.testing.assert_allclose(scores(other_order, "u5", 50), scores(among, "u5", 50))
    again = fitted(*edges, half_life_days=1e6, community=3.0)
    restored = Friends(half_life_days=1e6, community=3.0)
    restored.relate([batch("edges", edges)])
    state = again.state()
    assert state
    restored.restore(CATALOG, state)
    np.testing.assert_array_equal(scores(restored, "u5", 50), scores(among, "u5", 50))


def test_only_some_kinds_of_relations_may_count() -> None:
    assert scores(fitted(*EDGES, half_life_days=10.0, kinds=("friend",)), "ann", 20) == pytest.approx([0, 0, 0.5, 0])
    assert not scores(fitted(), "ann", 20).any()
    with pytest.raises(ConfigError, match="half_life_days above 0"):
        Friends(half_life_days=0)
    with pytest.raises(ConfigError, match="community from 0"):
        Friends(community=-1)


def test_a_blend_tells_its_voices() -> None:
    friends = Friends(half_life_days=10.0)
    blend = Blend.of({"friends": friends})
    blend.relate([batch("edges", EDGES)])
    blend.fit(CATALOG, [batch("events", EVENTS)])
    assert scores(friends, "ann", 20)[1] > 0


def test_relations_from_a_file_change_a_strangers_list(tmp_path: Path) -> None:
    def genrec(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    shop = str(tmp_path / "shop")
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{name},{name}\n" for name in ITEMS))
    rows = [f"{one.user_id},{one.item_id},{one.at.isoformat()}\n" for one in EVENTS]
    (tmp_path / "events.csv").write_text("user_id,item_id,at\n" + "".join(rows))
    edges = [f"{one.from_id},{one.to_id},{one.kind},{one.weight}\n" for one in EDGES]
    (tmp_path / "edges.csv").write_text("from_id,to_id,kind,weight\n" + "".join(edges))
    genrec("init", shop)
    genrec("import", "file", *(str(tmp_path / f"{name}.csv") for name in ("items", "events", "edges")), "-w", shop)

    def first(prior: str) -> str:
        settings = (tmp_path / "shop/genrec.toml").read_text()
        kept = [line for line in settings.splitlines() if not line.startswith("prior = ")]
        (tmp_path / "shop/genrec.toml").write_text("\n".join([f'prior = "{prior}"', *kept]))
        asked = ("recommend", "ann", "--at", "2026-02-01T00:00Z", "-k", "1", "--engine", "none", "--json", "-w", shop)
        return str(json.loads(genrec(*asked))["items"][0]["item_id"])

    assert (first("popularity"), first("friends")) == ("tea", "milk")
