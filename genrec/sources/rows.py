"""Chunks of a foreign table → record batches of the project's schemas, with the rows that cannot be stored.

The rules for values live here: what an id may be, how long a title, which numbers are places on earth. Column by
column, never row by row, except for key-value data and for values that are wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.events import SCHEMAS, to_json
from genrec.sources.sniff import BAG, REQUIRED, Layout
from genrec.sources.tables import Chunk, as_text
from genrec.sources.times import UTC_NAMES, is_zone, read_times

ID_CHARS = 255
"""Longest id."""
TEXT_CHARS = 2_000
"""Longest title, category, place or device; a longer one is a fault, not cut."""


class ZoneNeededError(Exception):
    """A time has no zone and no clock was named to read it by."""

    def __init__(self, row: int, value: str) -> None:
        super().__init__(row, value)
        self.row = row
        self.value = value


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a table does not say itself."""

    time_zone: str | None = None
    """The clock that reads times without a zone, and that events without one of their own happened by."""
    time_format: str | None = None
    """How times are written, in ``strptime`` terms, where it is no usual spelling."""
    action: str = "interact"
    """The action of events that name none."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row that cannot be stored."""

    row: int
    column: str | None
    what: str


@dataclass(kw_only=True)
class _Faults:
    """The first fault of each position of a chunk."""

    columns: Mapping[str, str]
    found: dict[int, tuple[str | None, str]] = field(default_factory=dict)

    def mark(self, name: str, mask: pa.Array, what: str | Callable[[int], str]) -> None:
        for position in np.flatnonzero(pc.fill_null(mask, False)):
            text = what if isinstance(what, str) else what(int(position))
            self.found.setdefault(int(position), (self.columns.get(name, name), text))


def to_rows(chunk: Chunk, layout: Layout, rules: Rules) -> tuple[pa.RecordBatch, list[Fault]]:
    """Turn a chunk into a record batch.

    Args:
        chunk: Rows of a table.
        layout: Which of its columns becomes which field.
        rules: What the table does not say itself.

    Returns:
        The usable rows in file order, as ``SCHEMAS[layout.kind]``, and the others, in file order too.

    Raises:
        ZoneNeededError: If a time has no zone and there is no clock to read it by.
    """
    n = len(chunk.rows)
    faults = _Faults(columns=layout.columns)
    raw = {name: chunk.columns.get(column, pa.nulls(n)) for name, column in layout.columns.items()}
    values: dict[str, pa.Array] = {}
    for spec in SCHEMAS[layout.kind]:
        column = raw.get(spec.name, pa.nulls(n))
        if spec.name == BAG[layout.kind]:
            values[spec.name] = _bag(chunk, layout, faults)
        elif spec.name == "at":
            values[spec.name] = _instants(column, values, raw, chunk, rules, faults)
        elif pa.types.is_floating(spec.type):
            values[spec.name] = _numbers(spec.name, column, faults)
        else:
            values[spec.name] = _texts(spec.name, column, faults, required=spec.name in REQUIRED[layout.kind])
    if layout.kind == "events":
        values["action"] = pc.fill_null(values["action"], rules.action)
        if rules.time_zone and rules.time_zone not in UTC_NAMES:
            values["time_zone"] = pc.fill_null(values["time_zone"], rules.time_zone)
    if layout.kind == "edges":
        values["kind"] = pc.fill_null(values["kind"], "knows")
        values["weight"] = pc.fill_null(values["weight"], 1.0)
    good = np.ones(n, bool)
    good[list(faults.found)] = False
    schema = SCHEMAS[layout.kind]
    if not good.all():
        values = {name: column.filter(pa.array(good)) for name, column in values.items()}
    batch = pa.RecordBatch.from_arrays([values[name] for name in schema.names], schema=schema)
    bad = [Fault(row=row, column=None, what=what) for row, what in chunk.broken]
    bad += [Fault(row=int(chunk.rows[p]), column=name, what=what) for p, (name, what) in faults.found.items()]
    return batch, sorted(bad, key=lambda fault: fault.row)


def text_column(values: pa.Array) -> pa.Array:
    """Any column as strings: whole numbers without a fraction, NaN as missing, nested values as JSON."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return text_column(values.dictionary_decode())
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
        whole = pc.equal(values, pc.floor(values))
        if pc.all(pc.and_(whole, pc.less(pc.abs(values), 2.0**53))).as_py() in (True, None):
            return pc.cast(pc.cast(values, pa.int64()), pa.string())  # ids that passed through a float column
        return pa.array([None if v is None else f"{v:.0f}" if v == v // 1 else repr(v) for v in values.to_pylist()])
    if pa.types.is_string(kind):
        return values
    try:
        return pc.cast(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([as_text(value) for value in _python(values)], pa.string())


def _texts(name: str, values: pa.Array, faults: _Faults, *, required: bool) -> pa.Array:
    column = text_column(values)
    if not name.endswith("_id"):  # no database keeps NUL, and in a free text it says nothing
        column = pc.replace_substring(column, "\0", "")
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), pa.scalar(None, pa.string()), column)
    else:
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        faults.mark(name, pc.match_substring(column, "\0"), "holds a NUL character")
    if required:
        faults.mark(name, pc.is_null(column), f"{'title is' if name == 'title' else 'the id is'} missing")
    limit = ID_CHARS if name.endswith("_id") else TEXT_CHARS
    length = pc.utf8_length(column)
    faults.mark(
        name,
        pc.greater(length, limit),
        lambda position: f"is {length[position].as_py():,} characters long; at most {limit:,} are kept, so shorten it",
    )
    if name == "time_zone":
        unknown = pa.array([z for z in pc.unique(column).to_pylist() if z and not is_zone(z)], pa.string())
        wrong = pc.is_in(column, unknown)
        faults.mark(
            name, wrong, lambda p: f"there is no time zone {_short(column[p].as_py())}; write it like Europe/Paris"
        )
        column = pc.if_else(wrong, pa.scalar(None, pa.string()), column)
    return column


def _instants(
    column: pa.Array,
    values: Mapping[str, pa.Array],
    raw: Mapping[str, pa.Array],
    chunk: Chunk,
    rules: Rules,
    faults: _Faults,
) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_time(column.type):
        column = text_column(column)
    zones = _texts("time_zone", raw.get("time_zone", pa.nulls(len(column))), faults, required=False)
    if rules.time_zone:
        zones = pc.fill_null(zones, rules.time_zone)
    if faults.found:  # a row that is left out anyway, perhaps for a clock that does not exist, needs no other clock
        out = np.isin(np.arange(len(column)), list(faults.found))
        column = pc.if_else(pa.array(out), pa.scalar(None, column.type), column)
    found = read_times(column, zones, time_format=rules.time_format)
    if found.zone_needed is not None:
        raise ZoneNeededError(int(chunk.rows[found.zone_needed]), str(column[found.zone_needed].as_py()))
    for position, what in found.faults.items():
        faults.found.setdefault(position, (faults.columns["at"], what))
    faults.mark("at", pc.is_null(found.at), "the time is missing")
    return found.at


def _is_time(kind: pa.DataType) -> bool:
    return any(
        is_(kind) for is_ in (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer, pa.types.is_floating)
    )


def _numbers(name: str, values: pa.Array, faults: _Faults) -> pa.Array:
    """A column as floats; NaN is missing, what is no number or not finite is a fault."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        column = pc.cast(values, pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        texts = text_column(values)
        column = pa.array([_float(text) for text in texts.to_pylist()], pa.float64())
        no_number = pc.and_(pc.is_valid(texts), pc.is_null(column))
        faults.mark(name, no_number, lambda position: f"{_short(texts[position].as_py())} is no number")
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    faults.mark(name, pc.is_inf(column), "is infinite")
    limit = {"latitude": 90.0, "longitude": 180.0}.get(name)
    if limit is not None:
        beyond = f"lies outside -{limit:g} to {limit:g} degrees"
        if name == "latitude":
            beyond += "; are latitude and longitude swapped?"
        faults.mark(name, pc.greater(pc.abs(column), limit), beyond)
    return column


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _bag(chunk: Chunk, layout: Layout, faults: _Faults) -> pa.Array:
    """Key-value data as JSON texts; a column named like the field itself holds objects or JSON."""
    bag_name = BAG[layout.kind]
    bag = dict(layout.bag)
    if layout.kind != "events":  # later rows of an open-ended table may bring keys of their own
        known = {*layout.columns.values(), *bag.values(), *layout.left_out}
        bag |= {name: name for name in chunk.columns if name not in known}
    columns = {key: chunk.columns[name] for key, name in bag.items() if name in chunk.columns}
    whole = columns.pop(bag_name, None) if bag_name else None
    if not columns and whole is None:
        return pa.nulls(len(chunk.rows), pa.string())
    texts = {key: text_column(values).to_pylist() for key, values in columns.items()}
    rows: list[dict[str, str]] = [
        {key: value for key, value in zip(texts, row, strict=True) if value} for row in _transposed(texts, chunk)
    ]
    if whole is not None:
        for position, value in enumerate(_python(whole)):
            try:
                pairs = _pairs(value)
            except ValueError:
                faults.found.setdefault(position, (bag_name, "is no JSON object"))
                continue
            rows[position] = pairs | rows[position]
    return pa.array([to_json({k: v.replace("\0", "") for k, v in row.items()}) for row in rows], pa.string())


def _transposed(texts: Mapping[str, list[str | None]], chunk: Chunk) -> Iterator[tuple[str | None, ...]]:
    return zip(*texts.values(), strict=True) if texts else iter([()] * len(chunk.rows))


def _python(values: pa.Array) -> list[Any]:
    """Values as Python objects; nothing where Python cannot say one of them, such as a date in the year 300,000."""
    try:
        return values.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        return [None] * len(values)


def _pairs(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else {}
    if value is None:
        return {}
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        value = dict(value)  # an Arrow map
    if not isinstance(value, dict):
        raise ValueError("no object")
    return {str(k): text for k, v in value.items() if (text := as_text(v))}


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
