"""`genrec user`: what is known and inferred of somebody, and what they correct of it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli._common import NameValue, json_option, plain, print_json, table, workspace_option
from genrec.errors import ConfigError, meant_or_known

if TYPE_CHECKING:
    from genrec.traits import Tag
    from genrec.workspace import Workspace

SHOWN = 20
"""Most refused items shown to people."""
AS_OF = "as of this moment; in a prompt, as of its first line"
"""When what is shown of friends was so."""


@click.group("user")
def command() -> None:
    """Show what is known of somebody, and correct it."""


@command.command("show")
@click.argument("user", metavar="ID")
@click.option("--at", metavar="TIME", help="The moment to look back from, e.g. 2017-11-22T18:00. [default: now]")
@workspace_option
@json_option
def show(user: str, at: str | None, workspace: Path, as_json: bool) -> None:
    """Show what is known of ID: attributes, what they refused, what is inferred from events and why, usual places."""
    from genrec.workspace import open_workspace

    with open_workspace(workspace) as opened:
        found = _found(opened, user, at)
    if as_json:
        print_json(found)
    else:
        click.echo(_as_text(found))


@command.command("set", no_args_is_help=True)
@click.argument("user", metavar="ID")
@click.argument("changes", metavar="KEY=VALUE...", type=NameValue("age=35-44"), nargs=-1, required=True)
@workspace_option
def set_(user: str, changes: tuple[tuple[str, str], ...], workspace: Path) -> None:
    """Correct attributes of ID; that comes before what any source says, now or later.

    `time_zone` is the clock that the person lives by. `interests`, `habits` and `friends took` take the
    place of what is inferred.
    """
    from genrec.context import clock
    from genrec.store import TIME_ZONE
    from genrec.traits import PREFIX
    from genrec.workspace import open_workspace

    for key, value in changes:
        for trait, prefix in PREFIX.items():
            if key.startswith(prefix):
                raise ConfigError(
                    f"{key} is inferred and can only be struck",
                    hint=f'Say all of them yourself: genrec user set {user} {trait}="{key.removeprefix(prefix)}, …"',
                )
        if key == TIME_ZONE:
            clock(value)
    with open_workspace(workspace) as opened:
        _check_known(opened, user)
        opened.store.correct(user, dict(changes))
    for key, value in changes:
        click.echo(plain(f"{user}: {key} is {value}, whatever is imported."))


@command.command("unset", no_args_is_help=True)
@click.argument("user", metavar="ID")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@workspace_option
def unset(user: str, keys: tuple[str, ...], workspace: Path) -> None:
    """Strike attributes of ID for good, or what is inferred, such as interest:beer or habit:milk."""
    from genrec.workspace import open_workspace

    with open_workspace(workspace) as opened:
        _check_known(opened, user)
        for key in keys:
            _check_key(opened, user, key)
        opened.store.correct(user, dict.fromkeys(keys))
    for key in keys:
        again = shlex.join(["genrec", "user", "reset", user, key])
        click.echo(plain(f"{user}: {key} is struck. To take that back: {again}"))


@command.command("reset", no_args_is_help=True)
@click.argument("user", metavar="ID")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@workspace_option
def reset(user: str, keys: tuple[str, ...], workspace: Path) -> None:
    """Take corrections of ID back: what sources say and what is inferred holds again."""
    from genrec.workspace import open_workspace

    with open_workspace(workspace) as opened:
        _check_known(opened, user)
        corrected = opened.store.corrections(user)
        for key in keys:
            if key not in corrected:
                raise _unknown(f"{user} has not corrected {key!r}", key, corrected)
        opened.store.withdraw(user, keys)
    for key in keys:
        click.echo(plain(f"{user}: {key} is no longer corrected."))


def _check_known(opened: Workspace, user: str) -> None:
    if not opened.store.knows(user):
        raise ConfigError(
            f"nobody here is called {user!r}",
            hint="Ids are those of the imported events and users, capitals included; genrec import brings people in.",
        )


def _check_key(opened: Workspace, user: str, key: str) -> None:
    """Refuse a key that stands for nothing that could be struck."""
    from genrec.context.device import device
    from genrec.store import TIME_ZONE
    from genrec.traits import FRIENDS, PREFIX, kinds

    name = key.partition(":")[2]
    if key.startswith(PREFIX["interests"]):
        if name not in (known := kinds(opened.catalog).n):
            raise _unknown(f"no item is of the kind {name!r}", name, known)
    elif key.startswith(PREFIX["habits"]):
        past = opened.store.history(user, datetime.now(UTC), max_events=opened.settings.history.max_events)
        if name not in opened.catalog.texts and name not in {device(event.context) for event in past}:
            raise ConfigError(
                f"there is no item or device {name!r}",
                hint=f"Write it as a prompt does; genrec user show {user} lists what is inferred.",
            )
    elif key != FRIENDS:
        person = opened.store.user(user)
        there = dict(person.attributes) if person else {}
        if person and person.time_zone:
            there[TIME_ZONE] = person.time_zone
        if key not in there:
            raise _unknown(f"{user} has no attribute {key!r}", key, there)


def _unknown(message: str, name: str, known: Collection[str]) -> ConfigError:
    return ConfigError(message, hint=meant_or_known(name, known))


def _found(opened: Workspace, user: str, at: str | None) -> dict[str, Any]:
    """What there is to show, as JSON has it."""
    from genrec.context import Words, clock
    from genrec.context.usual import Whereabouts
    from genrec.events import User
    from genrec.history import read_history
    from genrec.recommender import instant
    from genrec.sources.times import is_zone
    from genrec.traits import FRIENDS, PREFIX, friends_took, tags

    _check_known(opened, user)
    store, settings = opened.store, opened.settings
    person, corrected = store.user(user) or User(user_id=user), store.corrections(user)
    own_zone = person.time_zone if person.time_zone and is_zone(person.time_zone) else None
    words = Words(time_zone=own_zone or settings.time_zone)
    now, _ = instant(at, clock(words.time_zone))
    known = read_history(store, user, now, max_events=settings.history.max_events)
    past = known.moments
    been = Whereabouts()
    for moment in past:
        been.add(moment.context, words.local(moment))
    catalog = opened.catalog
    told = tags(past, catalog, local=words.local, struck=person.struck)
    took = []
    if known.friends_took and FRIENDS not in corrected and FRIENDS not in person.attributes:
        took = friends_took(known.friends_took(now), now, catalog)
    refused = sorted(store.refused(user, now) & catalog.row.keys())
    return {
        "user_id": user,
        "at": now.isoformat(),
        "time_zone": person.time_zone,
        "attributes": [
            {"name": name, "value": value, "by": "correction" if name in corrected else "source"}
            for name, value in person.attributes.items()
        ],
        "struck": [key for key, value in corrected.items() if value is None],
        "n_events": store.n_events(user, now),
        "last_at": words.local(past[-1]).isoformat() if past else None,
        "refused": [{"item_id": item_id, "text": catalog.texts[catalog.row[item_id]]} for item_id in refused],
        **{t: [_tag(tag) for tag in told if tag.trait == t and t not in person.attributes] for t in PREFIX},
        "friends_took": took,
        "usual_places": [vars(place) for place in been.usual_places(now)],
    }


def _tag(tag: Tag) -> dict[str, Any]:
    shown = {name: value for name, value in vars(tag).items() if value is not None and name != "trait"}
    return {"key": tag.key} | shown


def _as_text(found: dict[str, Any]) -> str:
    """What there is to show, as people read it."""
    from genrec.traits import FRIENDS

    zone = found["time_zone"] or "no time zone of their own"
    last = f", the last choice at {found['last_at'][:16]}" if found["last_at"] else ""
    parts = [
        f"{plain(found['user_id'])} · {found['at'][:16]} · {plain(zone)}\n{found['n_events']:,} events before{last}"
    ]
    parts += [table(found["attributes"])] if found["attributes"] else []
    parts += [f"struck: {plain(', '.join(found['struck']))}"] if found["struck"] else []
    if refused := [item["text"] for item in found["refused"]]:
        more = f" and {len(refused) - SHOWN:,} more" if len(refused) > SHOWN else ""
        parts.append(f"refused: {plain(', '.join(refused[:SHOWN]))}{more}")
    told = [
        {"inferred": tag["key"], "in prompts": tag["text"], "evidence": _why(tag)}
        for tag in [*found["interests"], *found["habits"]]
    ]
    if took := found["friends_took"]:
        told.append({"inferred": FRIENDS, "in prompts": "; ".join(took), "evidence": AS_OF})
    places = [
        {
            "place": place["word"],
            "where": ", ".join(place["names"]) or "{:.4f},{:.4f}".format(*place["position"]),
            "evidence": f"on {place['n_days']} days",
        }
        for place in found["usual_places"]
    ]
    return "\n\n".join(part for part in [*parts, table(told), table(places)] if part)


def _why(tag: dict[str, Any]) -> str:
    """How many events of what, when."""
    said = f"{tag['n_events']} times on {tag['n_days']} days, {tag['first']} to {tag['last']}"
    if "lift" not in tag:
        return said
    of = ", ".join(f"{item} {n}" for item, n in tag["of"].items())
    return f"{said}: {of}; {tag['lift']:.1f} times the catalogue's share"
