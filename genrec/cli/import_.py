"""`genrec import`: from a source into the store, or, with --dry-run, only what is wrong with the data."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.compute as pc

from genrec.actions import Actions
from genrec.cli._common import Advance, json_option, peak_memory_mib, print_json, progress, workspace_option
from genrec.config import FILE, load_settings, toml_key
from genrec.errors import ConfigError, DataError
from genrec.evaluation.claims import contradicted
from genrec.evaluation.positions import odd
from genrec.events import SCHEMAS, Kind
from genrec.plugins import installed
from genrec.sources.base import Problem, Source
from genrec.store import Appended, Store

ORDER: tuple[Kind, ...] = ("items", "users", "edges", "events")
"""What is imported before what: an event finds its item there."""
SHOWN = 20
"""Most problems that are printed; --rejects keeps all of them."""


@dataclass(kw_only=True)
class _Problems:
    """What a source reports: counted, the first ones kept, all of them written to the rejects file."""

    rejects: FileIO | None = None
    n: int = 0
    first: list[Problem] = field(default_factory=list)

    def __call__(self, problem: Problem) -> None:
        self.n += 1
        if len(self.first) < SHOWN:
            self.first.append(problem)
        if self.rejects is not None:
            try:
                self.rejects.write(json.dumps(asdict(problem), ensure_ascii=False).encode() + b"\n")
            except OSError as error:
                raise ConfigError(f"cannot write {self.rejects.name!s}: {error.strerror or error}") from error

    def lines(self) -> list[str]:
        more = [f"… and {self.n - len(self.first):,} more"] if self.n > len(self.first) else []
        return [f"  {problem.where}: {problem.what}" for problem in self.first] + more


@dataclass(kw_only=True)
class _Seen:
    """What passed by on its way into the store."""

    time_zone: str | None
    """The workspace's clock, where there is a workspace."""
    n_rows: dict[Kind, int] = field(default_factory=dict)
    item_ids: set[str] = field(default_factory=set)
    """Items that events name."""
    user_ids: set[str] = field(default_factory=set)
    """People that events name."""
    listed_ids: set[str] = field(default_factory=set)
    """Items with a row of their own."""
    actions: set[str] = field(default_factory=set)
    """What people did."""
    n_nowhere: int = 0
    """Events at latitude 0 and longitude 0."""
    n_turned_round: int = 0
    """Events far from their time zone that would lie in it with latitude and longitude swapped."""
    n_contradicted: int = 0
    """Events whose further context names a weekday or a part of day that their instant contradicts."""
    n_in_the_future: int = 0

    def suspects(self, actions: Actions) -> list[str]:
        """What counts as a choice for want of an entry, and is called like a refusal."""
        return sorted(action for action in self.actions if action and actions.suspects(action))[:SHOWN]

    def watch(self, kind: Kind, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if kind == "events":
                self.item_ids.update(pc.unique(batch["item_id"]).to_pylist())
                self.user_ids.update(pc.unique(batch["user_id"]).to_pylist())
                # Anything else is the store's to refuse, which says what is missing.
                if (batch.schema.names, batch.schema.types) == (SCHEMAS["events"].names, SCHEMAS["events"].types):
                    self.actions.update(pc.unique(batch["action"]).to_pylist())
                    n_nowhere, n_turned_round = odd(batch, self.time_zone)
                    self.n_nowhere += n_nowhere
                    self.n_turned_round += n_turned_round
                    self.n_contradicted += contradicted(batch)
                    self.n_in_the_future += pc.sum(pc.greater(batch["at"], datetime.now(UTC))).as_py() or 0
            elif kind == "items":
                self.listed_ids.update(batch["item_id"].to_pylist())
            yield batch
            self.n_rows[kind] = self.n_rows.get(kind, 0) + len(batch)  # counted once it is stored


@click.command("import", short_help="Bring data in through a source.")
@click.argument("source")
@click.argument("paths", nargs=-1)
@click.option("--kind", type=click.Choice(ORDER), help="What the files hold; of another source, read only this.")
@click.option("--column", "columns", multiple=True, metavar="FIELD=COLUMN", help="Which column is a field.")
@click.option("--time-zone", metavar="ZONE", help="The clock for times that name no zone: Europe/Paris, UTC …")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the source.")
@click.option(
    "--source-name", metavar="NAME", help="Name within which event ids are unique; the source's own if not given."
)
@click.option("--dry-run", is_flag=True, help="Say what is wrong, row by row; change nothing.")
@click.option(
    "--rejects", type=click.Path(dir_okay=False, path_type=Path), help="Import good rows, list bad ones here."
)
@workspace_option
@json_option
def command(
    source: str,
    paths: tuple[str, ...],
    kind: Kind | None,
    columns: tuple[str, ...],
    time_zone: str | None,
    options: tuple[str, ...],
    source_name: str | None,
    dry_run: bool,
    rejects: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Bring events, items, users and relations into the store of a workspace.

    SOURCE is a connector (genrec plugins list); `file` reads CSV, JSONL, JSON and Parquet from PATHS, `-` for
    standard input. An import that was interrupted is finished by running it again: no event is stored twice.

    \b
    genrec import file events.csv items.csv --time-zone Europe/Paris --dry-run
    genrec import file orders.parquet --kind events --column user_id=customer
    genrec import completejourney --option households=300
    """  # noqa: D301  (click's own mark for lines that are not to be wrapped)
    # A dry run looks at data before there is a workspace; one that is there still lends the source its options.
    settings = None if dry_run and not (workspace / FILE).is_file() else load_settings(workspace)
    given = _pairs("--option", options)
    for name, value in (("paths", paths), ("kind", kind), ("columns", _pairs("--column", columns))):
        if value:
            given[name] = value
    if time_zone:
        given["time_zone"] = time_zone
    reader = _build(source, given, settings.sources.get(source, {}) if settings else {})
    kinds = [kind] if kind else ORDER
    actions = Actions.of(settings.actions if settings else None)
    notes = [line for each in kinds for line in reader.notes(each)]
    if not as_json:
        for line in notes:
            click.echo(line)
    seen = _Seen(time_zone=settings.time_zone if settings else None)
    with ExitStack() as stack:
        problems = _Problems(rejects=stack.enter_context(_writable(rejects, paths)) if rejects else None)
        result: dict[str, Any] = {"source": source, "name": source_name or reader.identity(), "notes": notes}
        if dry_run:
            result |= _look(reader, kinds, seen, problems, actions)
        else:
            assert settings is not None
            store = stack.enter_context(Store.open(settings.store_in(workspace)))
            try:
                result |= _import(reader, kinds, seen, store, result["name"], problems, actions)
            except KeyboardInterrupt:
                click.echo("\ninterrupted: what was stored stays; the same command again finishes it", err=True)
                raise
        result["problems"] = {"n": problems.n, "first": [asdict(problem) for problem in problems.first]}
    if as_json:
        print_json(result)
    else:
        _tell(result, problems, dry_run, rejects)
    if dry_run and problems.n:
        sys.exit(DataError.exit_code)


def _look(reader: Source, kinds: Sequence[Kind], seen: _Seen, problems: _Problems, actions: Actions) -> dict[str, Any]:
    """Read everything, store nothing; the store is not even opened, for that could change it."""
    for kind in kinds:
        with progress(f"reading {kind}") as advance:
            for batch in seen.watch(kind, reader.read(kind, problems)):
                advance(len(batch))
    unknown = sorted(seen.item_ids - seen.listed_ids) if seen.listed_ids else []
    return {
        "n_rows": dict(seen.n_rows),
        "n_unlisted_items": len(unknown),
        "unlisted_items": unknown[:SHOWN],
        "suspect_actions": seen.suspects(actions),
        "n_nowhere": seen.n_nowhere,
        "n_turned_round": seen.n_turned_round,
        "n_contradicted": seen.n_contradicted,
        "n_in_the_future": seen.n_in_the_future,
    }


def _import(
    reader: Source, kinds: Sequence[Kind], seen: _Seen, store: Store, name: str, problems: _Problems, actions: Actions
) -> dict[str, Any]:
    started_s = time.monotonic()
    appended = Appended()
    for kind in kinds:
        batches = seen.watch(kind, _unspoilt(kind, reader.read(kind, problems), problems))
        with progress(f"importing {kind}") as advance:
            if kind == "events":
                appended = store.append(
                    batches, source=name, on_batch=lambda done: advance(done.n_new + done.n_known + done.n_corrected)
                )
            else:
                store.put(kind, _counted(batches, advance))
    wall_s = time.monotonic() - started_s
    return {
        "n_rows": dict(seen.n_rows),
        "events": asdict(appended),
        "n_unknown_items": len(seen.item_ids - _ids(store.items(), "item_id")) if seen.item_ids else 0,
        "suspect_actions": seen.suspects(actions),
        "n_unknown_users": len(seen.user_ids - _ids(store.users(), "user_id")) if seen.user_ids else 0,
        "n_nowhere": seen.n_nowhere,
        "n_turned_round": seen.n_turned_round,
        "n_contradicted": seen.n_contradicted,
        "n_in_the_future": seen.n_in_the_future,
        "wall_s": round(wall_s, 3),
        "rows_per_s": round(sum(seen.n_rows.values()) / max(wall_s, 1e-9)),
        "peak_memory_mib": peak_memory_mib(),
    }


def _unspoilt(kind: Kind, batches: Iterator[pa.RecordBatch], problems: _Problems) -> Iterator[pa.RecordBatch]:
    """Pass batches on until a row is bad, unless bad rows are kept in a rejects file."""
    n_passed = 0
    for batch in batches:
        _refuse(kind, problems, n_passed)
        yield batch
        n_passed += len(batch)
    _refuse(kind, problems, n_passed)


def _refuse(kind: Kind, problems: _Problems, n_passed: int) -> None:
    if problems.n and problems.rejects is None:
        before = f"the {_n(n_passed)} before are stored" if n_passed else f"no {kind} were stored"
        raise DataError(
            "\n".join([f"{_n(problems.n)} of {kind} cannot be stored; {before}", *problems.lines()]),
            hint="See all of them with --dry-run; import the rest and list them in a file with --rejects FILE.",
        )


def _counted(batches: Iterator[pa.RecordBatch], advance: Advance) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        advance(len(batch))


def _ids(batches: Iterator[pa.RecordBatch], column: str) -> set[str]:
    return {identifier for batch in batches for identifier in batch[column].to_pylist()}


def _build(source: str, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Source:
    registry = installed()
    if source not in registry.names("sources") and Path(source).is_file():
        raise ConfigError(
            f"{source} is a file, and the first word is the source that reads it",
            hint=f"Read it with: genrec import file {source}",
        )
    cls = registry.get("sources", source)
    names = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    if "paths" in given and "paths" not in names:
        raise ConfigError(f"the source {source!r} reads no files", hint="Leave the paths out.")
    values = {name: value for name, value in given.items() if not (name == "kind" and "kind" not in names)}
    built: Source = registry.build("sources", source, {**settings, **values})
    return built


def _pairs(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError(f"{flag} {text!r} is not of the form NAME=VALUE")
        pairs[key] = value
    return pairs


def _writable(path: Path, inputs: Sequence[str]) -> FileIO:
    if any(path.exists() and Path(name).exists() and path.samefile(name) for name in inputs):
        raise ConfigError(f"{path} is read from, and rejects would overwrite it", hint="Name another --rejects FILE.")
    try:
        return path.open("wb", buffering=0)  # a full disk shows at the row, not at the end
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _n(n_rows: int) -> str:
    return f"{n_rows:,} row{'s' * (n_rows != 1)}"


def _tell(result: Mapping[str, Any], problems: _Problems, dry_run: bool, rejects: Path | None) -> None:
    for kind, n_rows in result["n_rows"].items():
        click.echo(f"{kind}: {_n(n_rows)}" + (" could be imported" if dry_run else ""))
    if not result["n_rows"]:
        click.echo("nothing was found to import")
    if problems.n:
        click.echo(f"{_n(problems.n)} cannot be stored" + (f"; see {rejects}" if rejects else ":"))
        for line in problems.lines() if dry_run or not rejects else []:
            click.echo(line)
    if n := result["n_nowhere"]:
        click.echo(f"  {n:,} of the events are at latitude 0, longitude 0: taken for unknown, the position is not used")
    if n := result["n_turned_round"]:
        click.echo(
            f"  {n:,} of the events lie far from their time zone, and in it with latitude and longitude swapped: "
            "check --column latitude=… and longitude=…"
        )
    for action in result["suspect_actions"]:
        click.echo(
            f"  {action!r} counts as a choice: if it is a refusal, say so under [actions] in {FILE}: "
            f"{toml_key(action)} = -1"
        )
    if n := result["n_contradicted"]:
        click.echo(
            f"  {n:,} of the events name a weekday or a part of day that their own time contradicts: "
            "the time counts; check --time-zone"
        )
    if n := result["n_in_the_future"]:
        click.echo(f"  {n:,} of the events lie in the future: check --time-zone and how days and months are written")
    if dry_run:
        if n := result["n_unlisted_items"]:
            named = ", ".join(repr(item_id) for item_id in result["unlisted_items"][:3])
            click.echo(f"  the events name {n:,} item{'s' * (n > 1)} not listed here: {named}{' …' * (n > 3)}")
        click.echo("dry run: nothing was changed")
        return
    events = result["events"]
    if result["n_rows"].get("events"):
        click.echo(
            f"  {events['n_new']:,} new, {events['n_known']:,} known before, {events['n_corrected']:,} corrected; "
            f"source {result['name']!r}"
        )
    if n := result["n_unknown_items"]:
        click.echo(
            f"  the events name {n:,} item{'s' * (n > 1)} the catalogue does not have yet; "
            "they stay out of histories until those items are imported"
        )
    if n := result["n_unknown_users"]:
        click.echo(f"  {n:,} of the people in them have no row of their own (users); recommendations work without")
    memory = f", at most {result['peak_memory_mib']:,} MiB of memory" if result["peak_memory_mib"] else ""
    click.echo(f"{result['wall_s']:.1f} s, {result['rows_per_s']:,} rows/s{memory}")
