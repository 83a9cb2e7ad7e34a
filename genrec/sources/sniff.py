"""Column names of foreign files → the project's fields, and what a file holds.

Works on names alone: opens nothing, reads no value. What it concludes is shown to the person and can be overridden.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from genrec.errors import ConfigError, DataError
from genrec.events import Kind

_USER = "user customer household member visitor client account person reviewer author subscriber login session uid"
_ITEM = (
    "item product sku asin parentasin article movie track song book isbn game app recipe news content stockcode poi "
    "venue business listing offer"
)

SYNONYMS: Mapping[Kind, Mapping[str, str]] = {
    "events": {
        "user_id": _USER,
        "item_id": _ITEM,
        "at": "timestamp time datetime date ts t eventtime createdat occurredat purchasedat invoicedate orderdate "
        "transactiontimestamp unixreviewtime utctimestamp epoch",
        "event_id": "interactionid id",
        "action": "event eventtype type verb behavior behaviour interaction interactiontype",
        "value": "rating score stars quantity qty amount count weight playtime",
        "time_zone": "tz",
        "place": "store storename shop location city",
        "latitude": "lat",
        "longitude": "lon lng long",
        "device": "devicetype platform",
    },
    "items": {
        "item_id": f"{_ITEM} id",
        "title": "name itemname productname producttitle movietitle label description",
        "category": "genre genres maincategory productcategory department",
    },
    "users": {"user_id": f"{_USER} id", "time_zone": "tz"},
    "edges": {
        "from_id": "from source src follower user user1",
        "to_id": "to target dst followee friend user2",
        "kind": "relation type",
        "weight": "strength",
    },
}
"""Kind → field → names it goes by, best first. An order or basket number is not among the names of ``event_id``: it
is shared by several rows, and rows of one event id replace each other."""

REQUIRED: Mapping[Kind, Sequence[str]] = {
    "events": ("user_id", "item_id", "at"),
    "items": ("item_id", "title"),
    "users": ("user_id",),
    "edges": ("from_id", "to_id"),
}
BAG: Mapping[Kind, str | None] = {"events": "extra", "items": "attributes", "users": "attributes", "edges": None}
"""The field of each kind that holds key-value data."""

_STEMS: Mapping[Kind, str] = {
    "events": "event|rating|interaction|purchase|transaction|order|click|view|play|log|history|session",
    "items": "item|product|movie|catalog|article|track|book|recipe",
    "users": "user|customer|household|member|visitor|people",
    "edges": "edge|friend|follow|trust|social",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which column of a table becomes which field."""

    kind: Kind
    columns: Mapping[str, str]
    """Field → column, in the order of the schema."""
    bag: Mapping[str, str]
    """Key → column, of what goes into the kind's key-value field."""
    left_out: Sequence[str]
    """Columns that become nothing."""


def sniff_kind(stem: str, names: Sequence[str]) -> Kind:
    """Tell what a table holds.

    Args:
        stem: The file's name without folder and suffix.
        names: Its columns.

    Raises:
        DataError: If its columns fit no kind.
    """
    fits = [kind for kind in REQUIRED if all(_find(kind, field, names) for field in REQUIRED[kind])]
    hinted = [kind for kind, pattern in _STEMS.items() if re.search(pattern, stem.lower())]
    if "users" in fits and "users" not in hinted and _find("events", "item_id", names):
        fits.remove("users")  # a column of users fits almost anything
    for kind in ("events", *hinted):
        if kind in fits:
            return kind
    if hinted:
        return hinted[0]  # the columns do not fit, and the layout will say which is missing
    for kind in ("items", "edges", "users"):
        if kind in fits:
            return kind
    raise DataError(
        f"cannot tell whether {stem!r} holds events, items, users or edges; its columns are {_listed(names)}",
        hint="Say it with --kind, and name the columns with --column, e.g. --kind events --column user_id=buyer.",
    )


def lay_out(kind: Kind, names: Sequence[str], given: Mapping[str, str], *, where: str, open_ended: bool) -> Layout:
    """Find the column of each field.

    Args:
        kind: What the table holds.
        names: Its columns.
        given: Field → column where a person has said so; an empty column leaves the field out. ``extra.weather`` or
            ``attributes.brand`` name one key of the key-value field. Fields of other kinds are passed over.
        where: What to call the table in errors.
        open_ended: Whether later rows may have columns that are not among the names.

    Raises:
        ConfigError: If no kind has a given field.
        DataError: If a required column or a given one is missing, or a column that is taken stands there twice.
    """
    bag_name = BAG[kind]
    columns: dict[str, str] = {}
    bag: dict[str, str] = {}
    for field, column in given.items():
        prefix, dot, key = field.partition(".")
        if dot and prefix in BAG.values():
            if prefix == bag_name and column:
                bag[key] = column
        elif field in SYNONYMS[kind]:
            columns[field] = column
        elif not any(field in fields for fields in SYNONYMS.values()):
            every = sorted({known for fields in SYNONYMS.values() for known in fields})
            raise ConfigError(f"no field {field!r}.{_close(field, every)}", hint=f"Fields: {', '.join(every)}.")
    for column in (*columns.values(), *bag.values()):
        if column and column not in names and not open_ended:
            raise DataError(f"{where} has no column {column!r}.{_close(column, names)} It has {_listed(names)}.")
    taken = {*columns.values(), *bag.values()}
    for field in SYNONYMS[kind]:
        if field not in columns:
            found = _find(kind, field, [name for name in names if name not in taken])
            if found or (open_ended and field not in REQUIRED[kind]):
                columns[field] = found or field
                taken.add(columns[field])
    columns = {field: columns[field] for field in SYNONYMS[kind] if columns.get(field)}
    for field in REQUIRED[kind]:
        if field not in columns:
            _say_missing(kind, field, names, where)
    rest = [name for name in dict.fromkeys(names) if name not in taken and name]
    refused = {f"{bag_name}.{name}" for name in rest} & {field for field, column in given.items() if not column}
    if kind in ("items", "users"):  # whatever else is known of them describes them
        bag |= {name: name for name in rest if name not in bag and f"{bag_name}.{name}" not in refused}
    elif bag_name in rest:
        bag[bag_name] = bag_name
    for column in (*columns.values(), *bag.values()):
        if (n := list(names).count(column)) > 1:
            places = " and ".join(str(i) for i, name in enumerate(names, 1) if name == column)
            raise DataError(
                f"{where} has the column {column!r} {n} times (columns {places})",
                hint="Rename all but one of them, so that it is clear which is meant.",
            )
    used = {*columns.values(), *bag.values()}
    return Layout(kind=kind, columns=columns, bag=bag, left_out=[name for name in rest if name not in used])


def _find(kind: Kind, field: str, names: Collection[str]) -> str | None:
    """The column that goes by one of a field's names, best name first."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(_plain(name), name)
    if field in names:
        return field
    for synonym in (_plain(field), *SYNONYMS[kind][field].split()):
        with_id = [synonym + "id"] if field.endswith("_id") or field == "place" else []
        for spelled in (*with_id, synonym):
            if spelled in plain:
                return plain[spelled]
    return None


def _plain(name: str) -> str:
    """``Customer ID``, ``customer_id`` and ``customerId`` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _say_missing(kind: Kind, field: str, names: Sequence[str], where: str) -> None:
    close = difflib.get_close_matches(_plain(field), [_plain(name) for name in names], n=1, cutoff=0.5)
    guess = next((name for name in names if close and _plain(name) == close[0]), None)
    raise DataError(
        f"{where} has no column for {field}, which {kind} need; it has {_listed(names)}",
        hint=f"Name it: --column {field}={guess or 'COLUMN'}"
        + (" (a guess from its name)." if guess else ". The first row of a CSV file must name the columns."),
    )


def _close(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:12]) or "none"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
