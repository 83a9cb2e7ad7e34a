"""The file source: CSV, JSON, JSONL and Parquet files, or standard input, one or several per kind.

What a file holds, which column is what, the delimiter and how times are written are worked out, said by `notes`, and
overridden by options. The parts: `tables` reads rows, `sniff` reads column names, `rows` and `times` read values.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import ConfigError, DataError
from genrec.events import SCHEMAS, Kind
from genrec.sources.base import Problem, Report, Source
from genrec.sources.rows import Rules, ZoneNeededError, to_rows
from genrec.sources.sniff import Layout, lay_out, sniff_kind
from genrec.sources.tables import CsvTable, JsonTable, ParquetTable, Table
from genrec.sources.times import is_zone, spelling

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
"""File name suffix → format; without a known suffix the first bytes decide."""


@dataclass(frozen=True, kw_only=True)
class _Input:
    """One file that has been looked at."""

    name: str
    table: Table
    layout: Layout


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Files with events, items, users and edges."""

    paths: Sequence[str] = ()
    """The files, in the order they are read; ``-`` is standard input."""
    kind: Kind | None = None
    """What all of them hold: events, items, users or edges; without it the columns and the file name decide."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field → column, e.g. ``{"user_id" = "customer"}``; an empty column leaves the field out."""
    time_zone: str | None = None
    """The clock that reads times without a zone, e.g. Europe/Paris or UTC; events happened by it unless they say."""
    time_format: str | None = None
    """How times are written where it is no usual spelling, e.g. ``%d/%m/%Y %H:%M``."""
    action: str = "interact"
    """What people did, for events without a column that says so."""
    format: str | None = None
    """csv, jsonl, json or parquet; without it the file name and the first bytes decide."""
    encoding: str = "utf-8"
    """How CSV and JSON files are encoded, e.g. cp1252."""
    delimiter: str | None = None
    """What stands between the fields of a CSV file; without it the first row decides."""

    def __post_init__(self) -> None:
        """Refuse options that can mean nothing.

        Raises:
            ConfigError: If a kind, format, time zone or delimiter does not exist.
        """
        if isinstance(self.paths, str):  # a single path from a settings file
            object.__setattr__(self, "paths", (self.paths,))
        if self.kind is not None and self.kind not in SCHEMAS:
            raise ConfigError(f"no kind {self.kind!r}", hint=f"A file holds {', '.join(SCHEMAS)}.")
        if self.format is not None and self.format not in FORMATS.values():
            raise ConfigError(f"no format {self.format!r}", hint="It is csv, jsonl, json or parquet.")
        if self.time_zone is not None and not is_zone(self.time_zone):
            raise ConfigError(f"no time zone {self.time_zone!r}", hint="Write it like Europe/Paris, or UTC.")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ConfigError(f"the delimiter is one character, not {self.delimiter!r}")

    def identity(self) -> str:
        """The names of the files with events, without their folders.

        Moving a file or adding rows to it keeps its events' identity; renaming it does not.
        """
        names = sorted({file.name for file in self._inputs if file.layout.kind == "events"})
        if len(names) <= 1:
            return f"file:{''.join(names)}"
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        return f"file:{names[0]}+{len(names) - 1}:{digest}"

    def notes(self, kind: Kind) -> list[str]:
        """Each file of a kind: its format, which column is what, how times are written, what is left out."""
        return [line for file in self._inputs if file.layout.kind == kind for line in self._notes(file)]

    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        """Stream the rows of one kind, file by file, in file order; see `Source.read`."""
        rules = Rules(time_zone=self.time_zone, time_format=self.time_format, action=self.action)
        for file in self._inputs:
            if file.layout.kind != kind:
                continue
            for chunk in file.table.chunks(_wanted(file)):
                try:
                    batch, faults = to_rows(chunk, file.layout, rules)
                except ZoneNeededError as error:
                    raise DataError(
                        f"{file.name} {file.table.unit} {error.row:,}: the time {error.value!r} does not say its zone",
                        hint="Say by which clock it is to be read: --time-zone Europe/Paris, or UTC.",
                    ) from None
                for fault in faults:
                    column = f", column {fault.column}" if fault.column else ""
                    report(Problem(where=f"{file.name} {file.table.unit} {fault.row:,}{column}", what=fault.what))
                if len(batch):
                    yield batch

    @cached_property
    def _inputs(self) -> Sequence[_Input]:
        if not self.paths:
            raise ConfigError("no file is named", hint="Name one or more: genrec import file events.csv items.csv")
        return [self._look_at(path) for path in self.paths]

    @cached_property
    def _standard_input(self) -> bytes:
        return sys.stdin.buffer.read()

    def _look_at(self, path: str) -> _Input:
        name = "standard input" if path == "-" else Path(path).name

        def open_() -> BinaryIO:
            try:
                return io.BytesIO(self._standard_input) if path == "-" else open(path, "rb")
            except OSError as error:
                raise DataError(
                    f"cannot read {path}: {error.strerror or error}",
                    hint="Name files, each with its path from this folder; - is standard input.",
                ) from error

        with open_() as file:
            head = file.read(1024)
        if not head:
            raise DataError(f"{name} is empty", hint="Check that it was written, and that it is the file you mean.")
        format_ = self.format or FORMATS.get(Path(path).suffix.lower()) or _format_of(head)
        table: Table
        if format_ == "parquet":
            table = ParquetTable(name, open_)
        elif format_ == "csv":
            table = CsvTable(name, open_, self.encoding, self.delimiter)
        else:
            table = JsonTable(name, open_, self.encoding, lines=True if format_ == "jsonl" else None)
        said = [each for each, column in self.columns.items() if column in table.names]
        kind = self.kind or sniff_kind(Path(name).stem, [*table.names, *said])
        layout = lay_out(kind, table.names, self.columns, where=name, open_ended=table.open_ended)
        return _Input(name=name, table=table, layout=layout)

    def _notes(self, file: _Input) -> Iterator[str]:
        table, layout = file.table, file.layout
        delimiter = f", fields end with {table.delimiter!r}" if isinstance(table, CsvTable) else ""
        yield f"{file.name}: {layout.kind} ({type(table).__name__.removesuffix('Table').lower()}{delimiter})"
        for name, column in layout.columns.items():
            if column in table.names:
                yield f"  {name} ← {column}{self._how(file, column) if name == 'at' else ''}"
        for key, column in layout.bag.items():
            yield f"  {'extra' if layout.kind == 'events' else 'attributes'}.{key} ← {column}"
        if layout.left_out:
            yield f"  left out: {', '.join(layout.left_out)}"

    def _how(self, file: _Input, column: str) -> str:
        chunk = next(file.table.chunks([column]), None)
        values = chunk.columns[column] if chunk else pa.nulls(0)
        first = next((value.as_py() for value in values if pc.is_valid(value).as_py()), None)
        if first is None:
            return ""
        words = spelling(first, self.time_format)
        own = "the row's time zone" if file.layout.columns.get("time_zone") in file.table.names else None
        zone = self.time_zone or own or "… a zone that is still to be named"
        clock = f", read by the clock of {zone}" if "without" in words else ""
        return f" ({words}{clock})"


def _wanted(file: _Input) -> Sequence[str] | None:
    """The columns to read; all (None) where later rows may describe an item or user by columns of their own."""
    if file.table.open_ended and file.layout.kind in ("items", "users"):
        return None
    named = [*file.layout.columns.values(), *file.layout.bag.values()]
    return [*named, "extra"] if file.table.open_ended and file.layout.kind == "events" else named


def _format_of(head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    return "json" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") else "csv"
