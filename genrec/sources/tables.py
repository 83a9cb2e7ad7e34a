"""CSV, JSON, JSONL and Parquet files as streams of column chunks that know their row numbers.

Values keep the type the file gives them; what they mean is decided elsewhere. A row that cannot be parsed by itself is
reported in its chunk; damage after which nothing can be trusted (encoding, quoting, a truncated file) is a `DataError`.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genrec.errors import DataError

CHUNK_ROWS = 50_000
MISSING = pa.array(["", "NULL", "null", "None", "NaN", "nan", "<NA>", r"\N"])
"""How CSV writers spell a value that is not there: the format has no spelling of its own."""

Open = Callable[[], BinaryIO]
"""Opens the file from its beginning."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Consecutive rows of a table."""

    rows: np.ndarray
    """Number of each row as a person sees it in the file; shape (n,)."""
    columns: Mapping[str, pa.Array]
    """Column name → values; each of shape (n,)."""
    broken: Sequence[tuple[int, str]] = field(default=())
    """Row numbers that could not be parsed, and why; they are not among `rows`."""


class Table(ABC):
    """A file that can be read any number of times.

    Args:
        where: What to call it in errors.
        open_: Opens it.
    """

    unit = "row"
    """What its row numbers count."""
    open_ended = False
    """Whether later rows may have columns that `names` does not list."""
    names: Sequence[str]
    """Its columns, in order, as often as they stand there."""

    def __init__(self, where: str, open_: Open) -> None:
        self.where = where
        self._open = open_

    @abstractmethod
    def chunks(self, wanted: Collection[str] | None = None) -> Iterator[Chunk]:
        """Stream the rows in file order.

        Args:
            wanted: The columns to read; all when omitted.

        Raises:
            DataError: If the file is damaged beyond a row.
        """


class _TextTable(Table):
    """What CSV and JSON share: an encoding."""

    def __init__(self, where: str, open_: Open, encoding: str) -> None:
        super().__init__(where, open_)
        try:
            self.encoding = codecs.lookup(encoding).name
        except LookupError:
            raise DataError(f"there is no encoding {encoding!r}", hint="Common ones: utf-8, cp1252, utf-16.") from None
        if self.encoding == "utf-8":
            self.encoding = "utf-8-sig"  # the same, but for the mark some programs put in front

    def _text(self, newline: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(self._open(), encoding=self.encoding, newline=newline)

    def _undecodable(self) -> DataError:
        """Find the first byte that is not in the encoding."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        line, offset = 1, 0
        with self._open() as file:
            head = file.read(4)
            file.seek(0)
            for text in file:
                try:
                    decoder.decode(text)
                except UnicodeDecodeError as error:
                    offset += max(0, error.start)
                    break
                line, offset = line + 1, offset + len(text)
        guess = "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252"
        return DataError(
            f"{self.where} is not {self.encoding.removesuffix('-sig')}: "
            f"byte {offset + 1:,} (line {line:,}) cannot be read",
            hint=f"Say how it was written, e.g. --option encoding={guess}.",
        )


class CsvTable(_TextTable):
    """A CSV file whose first row names the columns; row 1 is that row."""

    def __init__(self, where: str, open_: Open, encoding: str = "utf-8", delimiter: str | None = None) -> None:
        super().__init__(where, open_, encoding)
        try:
            with self._text("") as file:
                head = file.readline(1 << 20)
                self.delimiter = delimiter or max(",;\t|", key=head.count)
                file.seek(0)
                self.names = next(csv.reader(file, delimiter=self.delimiter, strict=True), [])
        except UnicodeError:
            raise self._undecodable() from None
        except (csv.Error, TypeError) as error:
            raise DataError(f"{where}: the first row, which must name the columns, cannot be read: {error}") from error
        if not any(self.names):
            raise DataError(f"{where} is empty", hint="The first row of a CSV file must name the columns.")

    def chunks(self, wanted: Collection[str] | None = None) -> Iterator[Chunk]:  # noqa: D102
        n_names = len(self.names)
        first = 2
        with self._text("") as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            next(reader, None)  # the row of names; gone if somebody has emptied the file meanwhile
            while True:
                rows: list[list[str]] = []
                try:
                    rows.extend(islice(reader, CHUNK_ROWS))
                except UnicodeError:
                    raise self._undecodable() from None
                except csv.Error as error:
                    raise self._quoting(first + len(rows), error) from error
                if not rows:
                    return
                numbers = np.arange(first, first + len(rows))
                first += len(rows)
                widths = np.fromiter(map(len, rows), np.int64, len(rows))
                odd = np.flatnonzero((widths != n_names) & (widths > 0))  # a blank line is no row
                broken = [(int(numbers[i]), f"has {widths[i]} fields, the header has {n_names}") for i in odd]
                if (widths != n_names).any():
                    keep = np.flatnonzero(widths == n_names)
                    rows, numbers = [rows[i] for i in keep], numbers[keep]
                columns = {}
                for name, values in zip(self.names, zip(*rows, strict=True) if rows else [()] * n_names, strict=True):
                    if wanted is not None and name not in wanted:
                        continue
                    column = pa.array(values, pa.string())
                    columns[name] = pc.if_else(pc.is_in(column, MISSING), pa.scalar(None, pa.string()), column)
                yield Chunk(rows=numbers, columns=columns, broken=broken)

    def _quoting(self, row: int, error: csv.Error) -> DataError:
        reason = {"unexpected end of data": "a quotation mark is opened and never closed"}.get(str(error), str(error))
        if "field limit" in reason:
            reason = "a field is longer than 131,072 characters; usually a quotation mark is opened and never closed"
        return DataError(
            f"{self.where} row {row:,}: {reason}",
            hint='Inside quotation marks a quotation mark is doubled: "19"" monitor".',
        )


class JsonTable(_TextTable):
    """JSON objects: one a line (row = line), or a whole document with an array or a single object (row = element).

    ``{"user_id": …, "events": [{…}, {…}]}`` is a session: what stands beside the list holds for each element. An
    object named ``context`` is opened. A document, unlike lines, is held in memory.
    """

    open_ended = True

    def __init__(self, where: str, open_: Open, encoding: str = "utf-8", *, lines: bool | None = None) -> None:
        super().__init__(where, open_, encoding)
        try:
            self._lines = self._is_lines() if lines is None else lines
            self.unit = "row" if self._lines else "element"
            seen = next(self._parsed(1_000), ([], [], []))
        except UnicodeError:
            raise self._undecodable() from None
        rows, _, broken = seen
        self.names = list(dict.fromkeys(name for row in rows for name in row))
        if not rows:
            what = f"has nothing that is JSON ({self.unit} {broken[0][0]}: {broken[0][1]})" if broken else "is empty"
            raise DataError(f"{where} {what}", hint="Each line is one JSON object, or the file is one JSON array.")

    def chunks(self, wanted: Collection[str] | None = None) -> Iterator[Chunk]:  # noqa: D102
        try:
            for rows, numbers, broken in self._parsed(CHUNK_ROWS):
                names = wanted if wanted is not None else dict.fromkeys(name for row in rows for name in row)
                yield Chunk(
                    rows=np.array(numbers, np.int64),
                    columns={name: _column([row.get(name) for row in rows]) for name in names},
                    broken=broken,
                )
        except UnicodeError:
            raise self._undecodable() from None

    def _is_lines(self) -> bool:
        """Whether the first line that is not blank is an object by itself."""
        with self._text("\n") as file:
            first = next((line for line in file if line.strip()), "{}")
        if first.lstrip().startswith("["):
            return False
        try:
            found = json.loads(first)
        except (ValueError, RecursionError):
            return not first.strip().startswith("{") or first.strip().endswith("}")
        return not (isinstance(found, dict) and isinstance(found.get("events"), list))

    def _parsed(self, size: int) -> Iterator[tuple[list[dict[str, Any]], list[int], list[tuple[int, str]]]]:
        """Rows, their numbers, and the broken ones, at most `size` at a time."""
        numbered: Iterator[tuple[int, Any]]
        with self._text("\n") as file:
            numbered = enumerate(file if self._lines else self._document(file), 1)
            while piece := list(islice(numbered, size)):
                rows: list[dict[str, Any]] = []
                numbers: list[int] = []
                broken: list[tuple[int, str]] = []
                for number, value in piece:
                    if self._lines:
                        if value.isspace():
                            continue
                        try:
                            value = json.loads(value)
                        except (ValueError, RecursionError) as error:
                            broken.append((number, f"is not JSON: {error}"[:200]))
                            continue
                    if not isinstance(value, dict):
                        broken.append((number, "is not a JSON object"))
                        continue
                    if isinstance(value.get("context"), dict):
                        value = {**{k: v for k, v in value.items() if k != "context"}, **value["context"]}
                    rows.append(value)
                    numbers.append(number)
                yield rows, numbers, broken

    def _document(self, file: io.TextIOWrapper) -> list[Any]:
        try:
            found = json.load(file)
        except UnicodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.where} is not JSON: {error}", hint="Check how it was written or cut.") from error
        if isinstance(found, dict) and isinstance(found.get("events"), list):
            shared = {name: value for name, value in found.items() if name != "events"}
            return [{**shared, **event} if isinstance(event, dict) else event for event in found["events"]]
        return found if isinstance(found, list) else [found]


class ParquetTable(Table):
    """A Parquet file; row 1 is its first row."""

    def __init__(self, where: str, open_: Open) -> None:
        super().__init__(where, open_)
        with self._damage(), self._open() as file:
            self.names = pq.read_schema(file).names

    def chunks(self, wanted: Collection[str] | None = None) -> Iterator[Chunk]:  # noqa: D102
        first = 1
        with self._damage(), self._open() as file:
            names = None if wanted is None else list(wanted)
            for rows in pq.ParquetFile(file).iter_batches(CHUNK_ROWS, columns=names):
                yield Chunk(
                    rows=np.arange(first, first + len(rows)),
                    columns=dict(zip(rows.schema.names, rows.columns, strict=True)),
                )
                first += len(rows)

    def _damage(self) -> _Damage:
        return _Damage(self.where)


class _Damage:
    """Turns what pyarrow raises about a damaged file into advice; leaves a `DataError` from inside alone."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowException | OSError | ValueError | OverflowError | MemoryError):
            reason = str(error).splitlines()[0][:200]
            raise DataError(
                f"{self._where} is not a whole Parquet file: {reason}",
                hint="It may be cut off: copy or write it again.",
            ) from error


def _column(values: list[Any]) -> pa.Array:
    """A column from JSON values: of their type where they share one, as texts where they do not."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([as_text(value) for value in values], pa.string())


def as_text(value: Any) -> str | None:
    """One value as text: strings as they are, NaN as missing, anything nested as JSON."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # Half a surrogate pair, which JSON can spell, is no character.
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
