"""`genrec demo`: the whole road on real groceries, told step by step, in a folder that stays a workspace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from genrec.cli._common import progress
from genrec.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from genrec.explain import Move
    from genrec.prompt import Prompt
    from genrec.recommendation import RankedItem, Recommendation
    from genrec.recommender import Recommender
    from genrec.store import Store
    from genrec.workspace import Workspace

ZONE = ZoneInfo("America/New_York")
HOUSEHOLDS = ("1985", "690", "1040")
"""A family with three kids, somebody over 65 and a young single; all three are in the sample of 300."""
MOMENTS = (datetime(2017, 6, 1, 9, tzinfo=ZONE), datetime(2017, 11, 22, 18, tzinfo=ZONE))
"""A weekday morning, the first of summer, and the evening before Thanksgiving."""
K = 5
SETTINGS = {"time_zone": "America/New_York", "country": "US", "prompt": "grocery"}
MARKER = "demo"
"""File beside the caches of a workspace that the demo made; it says whether the import was finished."""
COLUMN = 46
"""Characters between the two moments' lists."""
N_MOVED = 2
"""Of both together and of the model alone, so many items that words raised and so many that they lowered are shown."""


@click.command("demo")
@click.option(
    "-w",
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default="genrec-demo",
    show_default=True,
    help="The folder to make; a second run uses it again.",
)
@click.option("--engine", metavar="NAME", help="auto, vllm, transformers, or none to stop before the model.")
@click.option("--model", metavar="NAME", help="The language model: an alias, a Hugging Face id or a folder.")
@click.option("--train", is_flag=True, help="Also teach the model these households for a few minutes.")
def command(workspace: Path, engine: str | None, model: str | None, train: bool) -> None:
    """Real data, a real language model, end to end, in a folder you can go on with.

    Imports a year of groceries of 300 households, recommends from the prior alone, then with the language model: for
    three households on a weekday morning in June and on the evening before Thanksgiving. For one of them it tells what
    moved items from the one list to the other, word by word.
    """
    from genrec.workspace import open_workspace

    clock = _Clock()
    _prepare(workspace)
    with open_workspace(workspace, engine=engine, model=model) as opened:
        _heading("1", "A year of groceries")
        _import(opened, clock)
        _describe(opened.store)
        _heading("2", "The prior alone: what everybody buys, pulled towards what this household buys")
        with clock("prior fitted"):
            by_prior = opened.recommender(engine="none")
        with clock("6 lists by the prior"):
            _recommend(by_prior, opened.store)
        by_model = _load(opened, clock)
        if by_model is not None:
            with clock("6 lists by the language model"):
                alone = _recommend(by_model, opened.store)[:2]
            _heading("4", "Both together, which is what `genrec recommend` gives")
            together = opened.recommender()
            with clock("2 lists by both"):
                both = _recommend(together, opened.store, HOUSEHOLDS[:1])
            with clock("what moved their items, by both and by the model"):
                _show_moves(("both", together, both), ("model", by_model, alone))
            _explain()
            if train:
                _heading("5", "A little training: the model before and after, beside the prior")
                with clock("trained and judged"):
                    _train(opened)
    number = (6 if train else 5) if by_model else 3
    _heading(str(number), "How long it took")
    click.echo(clock.as_text())
    _next_commands(workspace, str(number + 1), has_model=by_model is not None)


class _Clock:
    """Takes down how long each step took."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float]] = []

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        started_s = time.perf_counter()
        yield
        self.steps.append((step, time.perf_counter() - started_s))

    def as_text(self) -> str:
        total_s = sum(seconds for _, seconds in self.steps)
        return "\n".join(f"   {seconds:7.2f} s  {step}" for step, seconds in [*self.steps, ("together", total_s)])


def _prepare(folder: Path) -> None:
    """Make the workspace, or see that it is one of ours."""
    from genrec.config import FILE, create_workspace
    from genrec.workspace import CACHE

    marker = folder / CACHE / MARKER
    if (folder / FILE).exists():
        if not marker.exists():
            raise ConfigError(
                f"{folder} is a workspace that the demo did not make, and the demo would add its data to it",
                hint="Choose another folder: genrec demo --workspace DIR",
            )
        return
    create_workspace(folder, SETTINGS)
    marker.parent.mkdir(exist_ok=True)
    marker.write_text("begun\n")


def _import(opened: Workspace, clock: _Clock) -> None:
    """Bring the data in, unless an earlier run did; one that was interrupted is finished."""
    from genrec.workspace import CACHE

    marker = opened.folder / CACHE / MARKER
    if marker.read_text() == "imported\n":
        click.echo(f"   {opened.folder} holds the data of an earlier run.")
        return
    try:
        source = opened.registry.build("sources", "completejourney")
    except PluginError as error:
        raise PluginError(
            f"the demo needs the source completejourney: {error}", hint="pip install 'genrec[demo]', then: genrec demo"
        ) from error
    with clock("data imported"), progress("importing groceries") as advance:
        for kind in ("items", "users"):
            opened.store.put(kind, source.read(kind, _no_problem))
        opened.store.append(
            source.read("events", _no_problem), source=source.identity(), on_batch=lambda done: advance(done.n_new)
        )
    marker.write_text("imported\n")


def _no_problem(problem: Any) -> None:
    raise ConfigError(f"the demo's data is not what it should be: {problem.where}: {problem.what}")


def _describe(store: Store) -> None:
    has = store.summary()
    assert has.first_at is not None
    assert has.last_at is not None
    click.echo(
        f"   {has.n_users:,} households, {has.n_items:,} items, {has.n_events:,} purchases "
        f"from {_day(has.first_at)} to {_day(has.last_at)},\n"
        f"   {has.n_bytes / 1e6:.0f} MB on disk. More with: genrec describe"
    )


def _load(opened: Workspace, clock: _Clock) -> Recommender | None:
    """Fetch and start the language model; None where there is none to start."""
    from genrec.models import fetch

    name = opened.engine_name()
    if name == "none":
        for note in opened.notes:
            click.echo(f"\n   {note}")
        return None
    model = opened.settings.model
    _heading("3", f"The language model alone: {model} on {name}")
    click.echo("   … the last lines of history that it read   ▸ the line of the moment, which it goes on with")
    with clock("model found or fetched"):
        fetch(model, progress)
    with clock(f"{name} started, catalogue encoded"), progress(f"starting {name}"):
        return opened.recommender(engine=name, scoring="joint")


def _recommend(recommender: Recommender, store: Store, households: Sequence[str] = HOUSEHOLDS) -> list[Recommendation]:
    """Ask for all households and moments at once, then show them household by household."""
    from genrec.recommendation import Query

    queries = [Query(user_id=user_id, at=at, k=K) for user_id in households for at in MOMENTS]
    prompts: list[Prompt] = []

    def keep(user_id: str, stage: str, value: Any) -> None:
        if stage == "prompt":
            prompts.append(value)

    answers = recommender.recommend_many(queries, trace=keep)
    for position, user_id in enumerate(households):
        pair = slice(2 * position, 2 * position + 2)
        user = store.user(user_id)
        profile = ", ".join(user.attributes.values()) if user else ""
        click.echo(f"\n   Household {user_id}" + (f" ({profile})" if profile else ""))
        if recommender.scoring.name == "joint" and prompts:
            _show_lines(prompts[pair])
        click.echo(_side_by_side(answers[pair]))
    return answers


def _show_moves(*asked: tuple[str, Recommender, Sequence[Recommendation]]) -> None:
    """What moved items from one of a household's two lists to the other: those that words raised or lowered most.

    Args:
        asked: The name of a recommender with a model, itself, and its lists.
    """
    from genrec.catalog import BAR
    from genrec.context import FEATURES
    from genrec.explain import moves
    from genrec.recommendation import Query

    rows: list[tuple[str, Move]] = []
    for name, recommender, pair in asked:
        first, second = ({item.item_id for item in answer.items} for answer in pair)
        moved = tuple(sorted(first ^ second or first))  # what is in one list alone, if there is any
        queries = [
            Query(user_id=answer.user_id, at=answer.at, k=len(moved), candidates=moved, explain="context")
            for answer in pair
        ]
        found = moves(*recommender.recommend_many(queries))
        rows += [(name, move) for move in found[:N_MOVED] + found[N_MOVED:][-N_MOVED:]]
    before, after = (prompt.lines[-1].removesuffix(f" {BAR}") for prompt in recommender.prompts(queries))
    features = [feature for feature in FEATURES if any(feature in move.alone for _, move in rows)]
    columns = [f"  {head}" for head in ("change =", "prior +", "past +", "words")]
    columns += [f"  {feature.replace('_', ' ')}" for feature in features]
    click.echo(f"\n   From “{before}” to “{after}”:")
    click.echo(" " * 36 + "".join(columns))
    for name, move in rows:
        n_digits = 1 if move.prior is None else 2  # in bfloat16, rounding makes noise of the others
        alone = [move.alone.get(feature, 0.0) for feature in features]
        parts = [move.change, move.prior, move.past, move.words, *alone]
        cells = ["" if part is None else f"{part:+.{n_digits}f}" for part in parts]
        numbers = "".join(cell.rjust(len(head)) for cell, head in zip(cells, columns, strict=True))
        click.echo(f"     {name:7}{_cut(move.title, 24):24}{numbers}")


def _train(opened: Workspace) -> None:
    """Train for a few steps, and say what that was worth to people whose last weeks it has not seen."""
    from genrec.finetune.options import Options

    session = opened.training(
        held_out=0.1, n_cases=25, engine="transformers", say=lambda line: click.echo(f"   {line}")
    )
    click.echo(f"   The first product of the next visit after {_day(session.split.cut)}, of households' first visits:")
    options = Options(epochs=1, max_steps=15, step_tokens=1024, rank=16, save_every=15)
    session.run("demo", opened.adapters / "demo", options)
    click.echo(
        "   Fifteen steps show how it goes, not what it can do: go on with genrec train. Where the intervals overlap,\n"
        "   so few households cannot tell. genrec adapters use demo puts it to use."
    )


def _show_lines(pair: Sequence[Prompt]) -> None:
    """The last lines of what the model read, and the open line of each moment."""
    for prompt in pair:
        *past, now = prompt.lines
        for line in past[-2:]:
            click.echo(f"     … {_cut(line, 100)}")
        click.echo(f"     ▸ {now}")


def _side_by_side(pair: Sequence[Recommendation]) -> str:
    """Two lists beside each other, with probabilities where there are any and log-probabilities where not."""
    heads = [f"{answer.at:%A %-d %B %Y, %H:%M}" for answer in pair]
    lines = ["     " + "".join(head.ljust(COLUMN) for head in heads).rstrip()]
    for rank in range(max(len(answer.items) for answer in pair)):
        cells = [
            f"{item.rank}  {_number(item)}  {_cut(item.title, 32)}"
            for item in (answer.items[rank] for answer in pair if rank < len(answer.items))
        ]
        lines.append("     " + "".join(cell.ljust(COLUMN) for cell in cells).rstrip())
    return "\n".join(lines)


def _number(item: RankedItem) -> str:
    return f"{item.logprob:6.2f}" if item.probability is None else f"{item.probability:6.1%}"


def _explain() -> None:
    click.echo(
        "\n   Every list is the exact best of all items under what its heading names. Percentages are probabilities\n"
        "   of the next product; the model's numbers are natural logarithms of what it gives each item's text after\n"
        "   the last line. It is small and was never trained on groceries, so its say in the mixture is small.\n"
        "   From moment to moment, items moved by so many of these logarithms: by the prior alone, by the past (what\n"
        "   the model makes of the lines above) and by the words of the moment, left out at both; then by each kind\n"
        "   of word alone, which need not add up. In bfloat16 the tenths of the model alone are rough."
    )


def _next_commands(folder: Path, number: str, *, has_model: bool) -> None:
    _heading(number, "Go on")
    asked = f"{HOUSEHOLDS[0]} --at {MOMENTS[1]:%Y-%m-%dT%H:%M}"
    for line in (
        f"cd {folder}",
        f"genrec recommend {asked} --exclude-seen" + (" --trace" if has_model else " --engine none"),
        f"genrec recommend {asked} --engine none",
        f"genrec prompts render {SETTINGS['prompt']} --user {asked}",
    ):
        click.echo(f"   {line}")


def _heading(number: str, text: str) -> None:
    click.secho(f"\n{number}  {text}", bold=True)


def _day(at: datetime) -> str:
    return f"{at.astimezone(ZONE):%-d %B %Y}"


def _cut(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else text[: n_chars - 1] + "…"
