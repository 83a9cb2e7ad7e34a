"""`genrec bench`: speed and exactness on this machine, with the workspace's own people where there are any."""

from __future__ import annotations

import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli._common import json_option, print_json, progress, table, workspace_option

if TYPE_CHECKING:
    from genrec.workspace import Workspace

engines_option = click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(["transformers", "vllm"]),
    default=["transformers", "vllm"],
    show_default=True,
    help="Which engines; may be given twice.",
)


@click.group("bench")
def command() -> None:
    """Measure this machine: decoding speed and exactness."""


PARTS = ("ours", "server", "peers", "append", "catalogue", "cpu")


@command.command("decode")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this; may be given several times.")
@engines_option
@click.option("--people", "n_people", default=32, show_default=True, help="How many people; vLLM gets all at once.")
@click.option("--slow-people", "n_slow", default=8, show_default=True, help="How many of them where it takes long.")
@click.option("--repeats", "n_repeats", default=5, show_default=True, help="Runs of vLLM, of which the median counts.")
@click.option("--tokens", "n_tokens", default=305, show_default=True, help="What the median prompt comes close to.")
@click.option("--long-tokens", "n_long", default=1_000, show_default=True, help="What a long history has at least.")
@click.option("-k", default=10, show_default=True, help="Length of a list.")
@click.option(
    "--items",
    "sizes",
    multiple=True,
    type=click.IntRange(10),
    default=(1_700, 17_000, 170_000, 1_000_000),
    show_default=True,
    help="Sizes of the generated catalogues, ascending.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps PART.json of each part; what is there is not measured again.",
)
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the cost against the catalogue's size."
)
@workspace_option
@json_option
def decode(
    parts: tuple[str, ...],
    engines: tuple[str, ...],
    n_people: int,
    n_slow: int,
    n_repeats: int,
    n_tokens: int,
    n_long: int,
    k: int,
    sizes: tuple[int, ...],
    out: Path | None,
    plot: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Time recommendations against reading their prompts alone, and against other ways on the same model.

    \b
    ours        whole recommendations beside the prefill of their prompts
    server      many clients of genrec serve; the same search from outside over HTTP
    peers       constrained generate, vLLM's beam search and structured outputs
    append      the next recommendation after one moment more
    catalogue   the cost as the catalogue grows, with and without a filter
    cpu         int8 weights, compilation, fewer layers

    What fails is reported and does not stop the rest; the exit code is 1 then.
    """  # noqa: D301  (click's own mark for lines that are not to be wrapped)
    import sys

    from genrec import bench
    from genrec.bench import tables

    plan = bench.Plan(
        workspace=workspace,
        engines=engines,
        n_people=n_people,
        n_slow=min(n_slow, n_people),
        n_repeats=n_repeats,
        k=k,
        n_tokens=n_tokens,
        n_long=n_long,
        sizes=sizes,
    )
    reports = bench.decode(plan, parts or PARTS, folder=out, say=_say)
    if plot:
        from genrec.bench.plot import cost_by_size

        rows: list[bench.Row] = next((report["rows"] for report in reports if report["stage"] == "catalogue"), [])
        if all("failed" in row for row in rows):
            _say("There is nothing to plot: the part catalogue has no rows.")
        else:
            cost_by_size(rows, plot)
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            shown = tables.cells(report["stage"], report["rows"])
            click.echo(f"\n{report['stage']}, {report['dataset']}\n{table(shown)}")
    failed = [line for report in reports for line in tables.failures(report["rows"])]
    for line in failed:
        click.secho(f"failed: {line}", fg="red", err=True)
    if failed:
        sys.exit(1)


@command.command("exact")
@engines_option
@click.option("--people", "n_people", default=50, show_default=True, help="How many people.")
@click.option("--max-tokens", type=int, default=320, show_default=True, help="Longest prompt.")
@click.option("-k", default=10, show_default=True, help="Length of a list.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON to a file, too.")
@workspace_option
@json_option
def exact(
    engines: tuple[str, ...],
    n_people: int,
    max_tokens: int,
    k: int,
    dtype: str,
    out: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Compare the search's lists with brute force over all items, by transformers in the same number format."""
    from genrec import bench
    from genrec.engines.transformers import TransformersEngine
    from genrec.workspace import open_workspace

    started_s = time.perf_counter()
    rows: list[dict[str, Any]] = []
    with open_workspace(workspace, history={"max_tokens": max_tokens}, dtype=dtype) as opened:
        asked = bench.queries(opened, n_people=n_people, k=k)
        with _engine(opened, "transformers") as reference:
            assert isinstance(reference, TransformersEngine)
            recommender = opened.recommender(engine="transformers")
            encoded = recommender.encoded
            prompts = [list(prompt.token_ids) for prompt in recommender.prompts(asked)]
            truths = []
            with progress("brute force", len(prompts)) as advance:
                for prompt in prompts:
                    truths.append(bench.brute_force(reference, encoded, prompt))
                    advance(1)
            if "transformers" in engines:
                rows += bench.exact(reference, encoded, prompts, truths, k=k, say=_say)
        if "vllm" in engines:
            with _engine(opened, "vllm") as engine:
                rows += bench.exact(engine, encoded, prompts, truths, k=k, say=_say)
        _finish(bench.report(f"exact {dtype}", opened.folder.resolve().name, rows, started_s), as_json, out)


@command.command("catalogue")
@click.option("--items", "n_items", default=100_000, show_default=True, help="How many items.")
@click.option("--model", metavar="NAME", default="smollm2-135m", show_default=True, help="Whose tokenizer.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON to a file, too.")
@json_option
def catalogue(n_items: int, model: str, out: Path | None, as_json: bool) -> None:
    """Time a large catalogue: making it, opening it, filtering it, one item more while it serves.

    Real product descriptions come first where genrec-completejourney is installed; the rest is made up.
    """
    import tempfile

    from genrec import bench
    from genrec.models import model_folder
    from genrec.tokenizer import HfTokenizer

    started_s = time.perf_counter()
    titles: list[str] = []
    with suppress(ImportError, AttributeError):
        titles = import_module("genrec_completejourney").descriptions()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = HfTokenizer(model_folder(model))
        row = bench.catalogue(tokenizer, Path(folder), n_items=n_items, titles=titles, say=_say)
    _finish(bench.report("catalogue", "product descriptions and made-up titles", [row], started_s), as_json, out)


def _engine(opened: Workspace, name: str) -> Any:
    """A running engine that stops with the block."""
    from contextlib import closing

    engine = opened.engine(name)
    assert engine is not None
    return closing(engine)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _finish(report: dict[str, Any], as_json: bool, out: Path | None) -> None:
    import json

    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(report)
