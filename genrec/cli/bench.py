"""`genrec bench`: speed and exactness on this machine, with the workspace's own people where there are any."""

from __future__ import annotations

import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from genrec.cli._common import json_option, print_json, progress, workspace_option

if TYPE_CHECKING:
    from genrec.workspace import Workspace

SCORINGS: tuple[Literal["fused", "masked", "joint"], ...] = ("fused", "masked", "joint")

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


@command.command("decode")
@engines_option
@click.option("--people", "n_people", default=32, show_default=True, help="How many people; vLLM gets all at once.")
@click.option("--repeats", "n_repeats", default=5, show_default=True, help="Runs of vLLM, of which the median counts.")
@click.option("--max-tokens", type=int, help="Longest prompt. [default: genrec.toml's]")
@click.option("-k", default=10, show_default=True, help="Length of a list.")
@click.option("--peer/--no-peer", default=True, show_default=True, help="Also run constrained generate with k beams.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON to a file, too.")
@workspace_option
@json_option
def decode(
    engines: tuple[str, ...],
    n_people: int,
    n_repeats: int,
    max_tokens: int | None,
    k: int,
    peer: bool,
    out: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Time a whole top-k recommendation against reading its prompt alone, and against constrained beam search."""
    from genrec import bench
    from genrec.decoding.scoring import Scoring
    from genrec.engines.transformers import TransformersEngine
    from genrec.workspace import open_workspace

    started_s = time.perf_counter()
    rows: list[dict[str, Any]] = []
    with open_workspace(workspace, history={"max_tokens": max_tokens} if max_tokens else None) as opened:
        asked = bench.queries(opened, n_people=n_people, k=k)
        for name in engines:
            with _engine(opened, name) as engine:
                for scoring in SCORINGS:
                    recommender = opened.recommender(engine=name)
                    recommender.scoring = Scoring(name=scoring)
                    # The raw scores of an untuned model have to look at hundreds of branches: one run of vLLM will do.
                    repeats = 1 if scoring == "joint" else n_repeats
                    rows.append(bench.decode(recommender, asked, n_repeats=repeats, say=_say))
                if peer and isinstance(engine, TransformersEngine):
                    rows.append(bench.peer(engine, opened.recommender(engine=name), asked, rows, k=k, say=_say))
        _finish(bench.report("decode", opened.folder.resolve().name, rows, started_s), as_json, out)


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
