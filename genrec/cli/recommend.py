"""`genrec recommend`: the answer as a table, as JSON lines, or as a Parquet file."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli._common import NameValue, json_option, plain, progress, table, workspace_option

if TYPE_CHECKING:
    from datetime import datetime

    from genrec.catalog import Catalog
    from genrec.recommendation import Query, RankedItem, Recommendation
    from genrec.recommender import Stage
    from genrec.workspace import Workspace

SHOWN = 20
"""Most notes that are printed beside a Parquet file."""
TELLS = 0.05
"""A change below this, in nats, is not worth a word in a sentence; ``--json`` has them all."""
BATCH = 64
"""People answered in one run of the engine; a file of users is written batch by batch."""


class Place(click.ParamType[tuple[float, float]]):
    """Degrees north and east."""

    name = "LAT,LON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Two numbers with a comma between them."""
        try:
            north, east = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a latitude and a longitude, such as 48.85,2.35", param, ctx)
        return north, east


@click.command("recommend", no_args_is_help=True)
@click.argument("users", metavar="[USER]...", nargs=-1)
@click.option(
    "--users", "users_file", type=click.File(encoding="utf-8-sig"), help="A file, one user a line; - is stdin."
)
@click.option("--at", metavar="TIME", help="The moment to recommend for, e.g. 2017-11-22T18:00. [default: now]")
@click.option("--place", help="Where the person is, in words.")
@click.option("--position", type=Place(), help="Where the person is, by latitude and longitude.")
@click.option("--device", help="What the person uses, in words.")
@click.option("-k", type=click.IntRange(1, 10_000), help="How many items. [default: 10, or genrec.toml's]")
@click.option(
    "--exclude-seen/--include-seen", default=False, help="Leave out what the person already has. [default: include]"
)
@click.option(
    "--exclude-refused/--include-refused",
    default=True,
    help="Leave out what the person refused and did not choose again since. [default: exclude]",
)
@click.option("--category", "categories", multiple=True, help="Only items of this category; more than one: of any.")
@click.option(
    "--where",
    type=NameValue("available=yes"),
    multiple=True,
    help="Only items with this attribute; more than one: all.",
)
@click.option("--near", type=Place(), help="Only items near this place, by their latitude and longitude.")
@click.option("--within-km", type=float, metavar="KM", help="How near.")
@click.option("--candidate", "candidates", multiple=True, help="Rank only this item, by id; may be given many times.")
@click.option("--engine", metavar="NAME", help="auto, vllm, vllm-server, transformers, chat, or none.")
@click.option("--model", metavar="NAME", help="The language model: an alias, a Hugging Face id or a folder.")
@click.option("--scoring", type=click.Choice(["auto", "joint", "masked", "fused"]), help="What a step is worth.")
@click.option("--explain", is_flag=True, help="Say what speaks for each item; takes several times as long.")
@click.option("--trace", is_flag=True, help="Show what every stage made, on standard error.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a Parquet file, one row an item; print none.",
)
@json_option
@workspace_option
def command(
    users: tuple[str, ...],
    users_file: Iterable[str] | None,
    at: str | None,
    place: str | None,
    position: tuple[float, float] | None,
    device: str | None,
    k: int | None,
    exclude_seen: bool,
    exclude_refused: bool,
    categories: tuple[str, ...],
    where: tuple[tuple[str, str], ...],
    near: tuple[float, float] | None,
    within_km: float | None,
    candidates: tuple[str, ...],
    engine: str | None,
    model: str | None,
    scoring: str | None,
    explain: bool,
    trace: bool,
    out: Path | None,
    as_json: bool,
    workspace: Path,
) -> None:
    """Recommend items to people, now or at any moment.

    \b
    genrec recommend 1985
    genrec recommend 1985 --at 2017-11-22T18:00 --place "store 406" --explain
    genrec recommend --users users.txt --out lists.parquet
    genrec recommend 1985 --category dairy --where available=yes --near 40.71,-74.01 --within-km 5

    With --json every person is one JSON object on a line of its own (JSON Lines). A time without a zone is read on the
    person's own clock, or the workspace's.
    """  # noqa: D301  (click's own mark for lines that are not to be wrapped)
    from genrec.recommendation import Query
    from genrec.workspace import open_workspace

    listed = _lines(users_file or ())
    if not users and not listed:
        raise click.UsageError("Name at least one USER, or give --users FILE.")
    if explain and out is not None:
        raise click.UsageError("--explain needs an answer that is printed; the file of --out has no room for it.")
    with open_workspace(workspace, engine=engine, model=model, scoring=scoring, k=k) as opened:
        queries = [
            Query(
                user_id=user_id,
                at=at,
                k=opened.settings.k,
                place=place,
                position=position,
                device=device,
                exclude_seen=exclude_seen,
                exclude_refused=exclude_refused,
                categories=categories,
                where=dict(where),
                near=near,
                within_km=within_km,
                candidates=candidates,
                explain=explain,
            )
            for user_id in [*users, *listed]
        ]
        answers = _answers(opened, queries, trace=trace)
        if out is not None:
            _write_parquet(out, answers, n_total=len(queries))
        else:
            for number, answer in enumerate(answers):
                if as_json:
                    click.echo(json.dumps(answer.to_dict(), ensure_ascii=False))
                else:
                    click.echo(("\n" if number else "") + as_text(answer))
                for note in () if as_json else answer.notes:
                    click.echo(f"note: {plain(note)}", err=True)
        for note in opened.notes:
            click.echo(f"note: {note}", err=True)


def _lines(file: Iterable[str]) -> list[str]:
    """The lines of a file that say something."""
    from genrec.errors import DataError

    try:
        return [line.strip() for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file of users is not UTF-8: {error}", hint="Write it in UTF-8, one user a line."
        ) from None


def _answers(opened: Workspace, queries: Sequence[Query], *, trace: bool) -> Iterator[Recommendation]:
    """Answers, a batch at a time; a person for whom nothing is left is an error alone and a note among others."""
    with progress("getting ready"):
        recommender = opened.recommender()

    def show(user_id: str, stage: Stage, value: Any) -> None:
        click.echo(stage_as_text(user_id, stage, value, opened.catalog), err=True)

    seen = show if trace else None
    if len(queries) == 1:
        yield recommender.recommend(**vars(queries[0]), trace=seen)
        return
    waiting = iter(queries)
    while batch := list(islice(waiting, BATCH)):
        yield from recommender.recommend_many(batch, trace=seen)


def as_text(answer: Recommendation) -> str:
    """An answer as people read it: who, when, by what, then the list."""
    by = f"{answer.model} on {answer.engine}, {answer.scoring}" if answer.model else "the prior alone"
    when = f"{answer.at:%A %d %B %Y, %H:%M}"
    where = [part for part in (answer.context.place, answer.context.device) if part]
    head = plain(" · ".join([answer.user_id, when, *where, by]))
    if not answer.items:
        return head
    weight = "log share" if answer.scoring == "ground" else "log p"
    rows = [
        {"rank": item.rank, "item": item.title[:60], weight: f"{item.logprob:.3f}"}
        | ({"p": f"{item.probability:.2%}"} if item.probability is not None else {})
        | ({"score": f"{item.score:.3f}"} if any(i.score != i.logprob for i in answer.items) else {})
        | {"id": item.item_id}
        for item in answer.items
    ]
    columns, *lines = table(rows).splitlines()
    why = [f"\n      {because(item, answer.at)}" if item.evidence is not None else "" for item in answer.items]
    return "\n".join([head, columns, *(line + reason for line, reason in zip(lines, why, strict=True))])


def because(item: RankedItem, at: datetime) -> str:
    """What speaks for an item and against it, in one sentence; changes in nats."""
    for_it, against, voices = list[str](), list[str](), list[str]()
    for one in item.evidence or ():
        when = ""
        if one.kind == "item" and one.at:
            times = f"{one.n_events} times, last " if one.n_events != 1 else ""
            when = f" ({times}{_ago((at.date() - one.at.date()).days)})"
        said = f"{plain(one.what)[:40]}{when} {one.change:+.2f}"
        if one.kind == "voice":
            voices.append(said)
        elif one.kind == "now":  # whose words speak for themselves
            continue
        elif one.change >= TELLS:
            for_it.append(said)
        elif one.change <= -TELLS and one.kind != "others":
            against.append(said)
    parts = [f"because of: {', '.join(for_it[:3])}" if for_it else "nothing alone speaks for it"]
    parts += [f"in spite of: {against[-1]}"] if against else []
    return "; ".join([*parts, *([", ".join(voices)] if voices else [])])


def _ago(days: int) -> str:
    for n_days, unit in ((365, "year"), (30, "month"), (7, "week")):
        if days >= 2 * n_days:
            return f"{days // n_days} {unit}s ago"
    return f"{days} days ago" if days > 1 else ("today", "yesterday")[days]


def stage_as_text(user_id: str, stage: Stage, value: Any, catalog: Catalog) -> str:
    """What a stage made, in a few lines."""
    if stage == "history":
        lines = [f"{moment.at:%Y-%m-%d %H:%M}  {', '.join(moment.item_ids)}" for moment in value.moments[-5:]]
        what = f"{len(value.moments)} moments before {value.at:%Y-%m-%d %H:%M}, the last of them"
    elif stage == "prompt":
        lines = value.text.splitlines()
        what = f"{len(value.token_ids)} tokens" if value.token_ids else f"{len(value.text)} characters"
    elif stage in ("search", "ground"):
        lines = [
            f"{logprob:8.3f}  {catalog.texts[int(row)]}"
            for row, logprob in zip(value.rows, value.logprobs, strict=True)
        ]
        what = f"{len(value.rows)} candidates, "
        what += (
            f"{value.n_opened} branches opened in {value.n_rounds} rounds"
            if stage == "search"
            else f"{value.n_titles} titles in {value.n_answers} answers, {value.n_lost} lost"
        )
    else:
        lines = [f"{candidate.score:8.3f}  {candidate.title}" for candidate in value]
        what = f"{len(value)} kept"
    return "\n".join([plain(f"── {user_id} · {stage}: {what}"), *(f"   {plain(line)}" for line in lines)])


def _write_parquet(file: Path, answers: Iterable[Recommendation], *, n_total: int) -> None:
    """One row an item, written as answers come; the file appears under its name when it is complete.

    What a reader should know of single answers is said for the first ones, the people without a list are counted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from genrec.errors import ConfigError

    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("rank", pa.int32()),
            ("item_id", pa.string()),
            ("title", pa.string()),
            ("logprob", pa.float64()),
            ("probability", pa.float64()),
            ("score", pa.float64()),
            ("model", pa.string()),
            ("prompt", pa.string()),
            ("catalog", pa.string()),
            ("engine", pa.string()),
            ("scoring", pa.string()),
            ("needs_review", pa.bool_()),
        ]
    )
    part = file.with_name(file.name + ".part")
    same = ("user_id", "at", "model", "prompt", "catalog", "engine", "scoring", "needs_review")
    n_lists = 0
    notes: dict[str, None] = {}
    try:
        if file.exists() and not file.is_file():
            raise OSError(errno.EEXIST, "it is no plain file")
        with pq.ParquetWriter(part, schema) as writer, progress("recommending", n_total) as advance:
            for answer in answers:
                shared = {name: getattr(answer, name) for name in same}
                writer.write_table(pa.Table.from_pylist([shared | vars(item) for item in answer.items], schema=schema))
                n_lists += bool(answer.items)
                notes |= dict.fromkeys(answer.notes)
                advance(1)
        part.replace(file)
    except OSError as error:
        raise ConfigError(
            f"cannot write {file}: {error.strerror or error}", hint="Choose another --out FILE, or make room."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    for note in islice(notes, SHOWN):
        click.echo(f"note: {plain(note)}", err=True)
    if len(notes) > SHOWN:
        click.echo(f"note: … and {len(notes) - SHOWN:,} more notes", err=True)
    without = f", {n_total - n_lists:,} have none" if n_lists < n_total else ""
    click.echo(f"{file}: lists for {n_lists:,} people{without}", err=True)
