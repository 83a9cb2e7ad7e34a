"""Made-up people, things and events for domains of which no real data come with genrec.

Each has structure that one can see: who follows somebody opens what they opened, news go stale, music depends on the
hour. Always the same, from a fixed seed. No figure on it means anything. Writes nothing itself.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Row = Mapping[str, object]
MADE_UP = "All of it is made up, by chance from a fixed seed: no figure on it means anything."
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
NOW = START + timedelta(days=28, hours=7)
"""The morning after, to ask about."""
SEED = 1
TOPICS = ("running", "baking", "travel", "maps")
SECTIONS = ("politics", "sports", "science", "town")
MOODS = {"wake-up": 7, "focus": 11, "party": 20, "sleep": 23}
"""What is listened to, and around which hour."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One domain."""

    make: Callable[[random.Random], Mapping[str, Sequence[Row]]]
    """Its tables by name, rows of one table with the same columns."""
    settings: Mapping[str, str]
    """Of its workspace."""
    somebody: str
    """Whom to recommend to."""
    says: str
    """What one can see in it."""

    def files(self) -> dict[str, str]:
        """Its tables as CSV, and a note that they are made up: file names and what stands in them."""
        found = {}
        for name, rows in self.make(random.Random(SEED)).items():
            out = io.StringIO()
            writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            found[f"{name}.csv"] = out.getvalue()
        return found | {"README.txt": f"{MADE_UP}\n{self.says}\n"}


def _posts(rng: random.Random) -> Mapping[str, Sequence[Row]]:
    """A post wanders from those who open it to those who follow them, within a day or so."""
    users = [{"user_id": f"p{n:02}", "likes": TOPICS[n % 4]} for n in range(28)]
    items = [{"item_id": f"post{n:02}", "title": f"On {TOPICS[n % 4]}, part {n // 4 + 1}"} for n in range(40)]
    edges, followers = list[Row](), dict[str, list[tuple[str, float]]]()
    for user in users:
        alike = [other["user_id"] for other in users if other is not user and other["likes"] == user["likes"]]
        strange = [other["user_id"] for other in users if other["likes"] != user["likes"]]
        for name, weight in [*((name, 1.0) for name in rng.sample(alike, 3)), (rng.choice(strange), 0.25)]:
            edges.append({"from_id": user["user_id"], "to_id": name, "kind": "follows", "weight": weight})
            followers.setdefault(name, []).append((user["user_id"], weight))
    events = list[Row]()
    for n, item in enumerate(items):
        first = [users[who]["user_id"] for who in rng.sample(range(n % 4, 28, 4), 2)]
        waiting = [(who, _hours(16 * n + rng.uniform(6, 16))) for who in first]
        seen = {*first}
        for who, at in waiting:  # grows on the way
            if at < NOW:
                events.append(_event(who, item["item_id"], at, "open", rng.choice(("phone", "phone", "laptop"))))
            for name, weight in followers.get(who, ()):
                if name not in seen and rng.random() < 0.5 * weight:
                    seen.add(name)
                    waiting.append((name, at + timedelta(hours=rng.uniform(1, 30))))
    return {"items": items, "users": users, "edges": edges, "events": _in_order(events)}


def _news(rng: random.Random) -> Mapping[str, Sequence[Row]]:
    """Four stories a day, each half as likely to be read with every eight hours; people like a section."""
    stories = [(f"story{n:03}", SECTIONS[n % 4], _hours(6 * n + 5)) for n in range(112)]
    users = [{"user_id": f"r{n:02}", "likes": SECTIONS[n % 4]} for n in range(24)]
    items = [{"item_id": i, "title": f"News of {s}, {at:%d %B} {at:%H} h", "category": s} for i, s, at in stories]
    events = list[Row]()
    for user in users:
        read = set[str]()
        for day in range(28):
            at = _hours(24 * day + rng.choice((7, 12, 20)) + rng.random())
            out = [(i, section, at - born) for i, section, born in stories if born < at and i not in read]
            if rng.random() < 0.7 and out:
                odds = [0.5 ** (age / timedelta(hours=8)) * (5 if s == user["likes"] else 1) for _, s, age in out]
                story = rng.choices(out, odds)[0][0]
                read.add(story)
                events.append(_event(user["user_id"], story, at, "read", "phone" if at.hour < 18 else "tablet"))
    return {"items": items, "users": users, "events": _in_order(events)}


def _music(rng: random.Random) -> Mapping[str, Sequence[Row]]:
    """Everybody has a few songs for each time of day, and comes back to them."""
    items = [{"item_id": f"{m}{n:02}", "title": f"Song {n} to {m}", "category": m} for m in MOODS for n in range(1, 16)]
    users = [{"user_id": f"l{n:02}"} for n in range(20)]
    events = list[Row]()
    for user in users:
        own = {mood: rng.sample([i["item_id"] for i in items if i["category"] == mood], 4) for mood in MOODS}
        for day in range(28):
            mood = rng.choice([*MOODS])
            at = _hours(24 * day + MOODS[mood] + rng.random())
            song = rng.choice(own[mood]) if rng.random() < 0.9 else rng.choice(items)["item_id"]
            events.append(_event(user["user_id"], song, at, "play", "kitchen radio" if at.hour < 9 else "phone"))
    return {"items": items, "users": users, "events": _in_order(events)}


def _hours(hours: float) -> datetime:
    return START + timedelta(seconds=round(3600 * hours))


def _event(user_id: str, item_id: str, at: datetime, action: str, device: str) -> Row:
    return {"user_id": user_id, "item_id": item_id, "at": at.isoformat(), "action": action, "device": device}


def _in_order(events: Sequence[Row]) -> list[Row]:
    return sorted(events, key=lambda event: str(event["at"]))


EXAMPLES: Mapping[str, Example] = {
    "posts": Example(
        make=_posts,
        settings={"prompt": "posts", "prior": "friends"},
        somebody="p00",
        says="Who follows somebody opens what they opened.",
    ),
    "news": Example(
        make=_news,
        settings={"prompt": "news", "prior": "sequence"},
        somebody="r00",
        says="News go stale within a day.",
    ),
    "music": Example(
        make=_music,
        settings={"prompt": "music", "prior": "repeat"},
        somebody="l00",
        says="Music depends on the hour.",
    ),
}
