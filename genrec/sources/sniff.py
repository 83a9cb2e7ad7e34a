"""Column names of foreign files → the project's fields, and what a file holds.

Works on names alone: opens nothing, reads no value. What it concludes is shown to the person and can be overridden.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from genrec.errors import ConfigError, DataError, meant
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
    "users": "user|customer|household|member|visitor|people|person",
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


def sniff_kind(stem: str, names: Collection[str]) -> Kind:
    """Tell what a table holds.

    Args:
        stem: The file's name without folder and suffix.
        names: Its columns, and the fields that a person has given it.

    Raises:
        DataError: If its columns and its name fit no kind.
    """
    fits = [kind for kind in REQUIRED if all(_find(kind, field, names) for field in REQUIRED[kind])]
    hinted = [kind for kind, pattern in _STEMS.items() if re.search(pattern, stem.lower())]
    for kind in ("events", *hinted):
        if kind in fits:
            return kind
    if hinted:
        return hinted[0]  # the columns do not fit, and the layout will say which is missing
    # A column of users fits almost anything and so do two columns of ids; the project's own names are a clear word.
    for kind in ("items", "edges"):
        if kind in fits and (kind == "items" or {"from_id", "to_id"} <= set(names)):
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
    columns, bag = _given(kind, given)
    for column in (*columns.values(), *bag.values()):
        if column and column not in names and not open_ended:
            raise DataError(
                f"{where} has no column {column!r}. It has {_listed(names)}.", hint=meant(column, names) or None
            )
    taken = {*columns.values(), *bag.values()}
    for field in SYNONYMS[kind]:
        if field not in columns:
            found = _find(kind, field, [name for name in names if name not in taken])
            if found or (open_ended and field not in REQUIRED[kind]):
                columns[field] = found or field
                taken.add(columns[field])
    columns = {field: columns[field] for field in SYNONYMS[kind] if columns.get(field)}
    rest = [name for name in dict.fromkeys(names) if name not in taken and name]
    for field in REQUIRED[kind]:
        if field not in columns:
            guess = _closest(field, rest)
            raise DataError(
                f"{where} has no column for {field}, which {kind} need; it has {_listed(names)}",
                hint=f"Name it: --column {field}={guess or 'COLUMN'}" + (" (a guess from its name)." if guess else "."),
            )
    if kind in ("items", "users"):  # whatever else is known of them describes them
        bag |= {name: name for name in rest if name not in bag and given.get(f"attributes.{name}") != ""}
    elif BAG[kind] in rest:
        bag["extra"] = "extra"
    used = [*columns.values(), *bag.values()]
    for column in used:
        places = [str(i) for i, name in enumerate(names, 1) if name == column]
        if len(places) > 1:
            raise DataError(
                f"{where} has the column {column!r} {len(places)} times (columns {' and '.join(places)})",
                hint="Rename all but one of them, so that it is clear which is meant.",
            )
    return Layout(kind=kind, columns=columns, bag=bag, left_out=[name for name in rest if name not in used])


def _given(kind: Kind, given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What a person has said, as fields of this kind and keys of its key-value field."""
    columns: dict[str, str] = {}
    bag: dict[str, str] = {}
    every = sorted({field for fields in SYNONYMS.values() for field in fields})
    for field, column in given.items():
        prefix, dot, key = field.partition(".")
        if dot and prefix in BAG.values():
            if prefix == BAG[kind] and column:
                bag[key] = column
        elif field in SYNONYMS[kind]:
            columns[field] = column
        elif field not in every:
            advice = meant(field, every) or f"It can be: {', '.join(every)}."
            raise ConfigError(f"no field {field!r}", hint=advice)
    return columns, bag


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


def _closest(field: str, names: Sequence[str]) -> str | None:
    """The column whose name is most like a field's."""
    plain = {_plain(name): name for name in names}
    close = difflib.get_close_matches(_plain(field), plain, n=1, cutoff=0.5)
    return plain[close[0]] if close else None


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in list(names)[:12]) or "none"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
