"""From the files of results to the page of what training buys, its tables and its picture; runs side by side."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import priors
from protocols import DATA, PLAIN, hyphened
from rows import LOOKS, MEASURES, RESULTS, beside, figures

INTRODUCTION = """\
# What training buys

Written by `python benchmarks/finetune.py page` from the files under [results](results). Ranks are those of exact lists
over the whole catalogue; brackets are 95 % intervals, bootstrapped over people. "Prior" is the untrained `sequence`
prior, on the data sets of priors.py the one that was best there on validation cases, "model" the language model alone
(`masked`), "both" the model and the prior inside the trie, weighted by what was fitted to half of the validation
people, and "late" the same two lists fused afterwards. Nothing was chosen by looking at test rows, and each look is
counted. A run called "plain" knows no days, as the published rows have none in their histories; one called "dated" has
them back, from the rows and events in which the same person's choices stand with theirs, and writes "soon after", "next
day" or "two weeks later" before what they chose. The prior of "plain" is an earlier version, which did not tell what
goes on with a visit from what begins one.

![Loss by step](training.svg)
"""
PUBLISHED = """\
Published for the same test rows, trained on the whole training split, of which this one holds a third (HR@10/NDCG@10
as MiniOneRec reports them): GRU4Rec .0999/.0669, SASRec .1088/.0806, HSTU .1163/.0958, TIGER .1321/.0908, LC-Rec
.1332/.0952, BIGRec .1370/.0997, D3 .1500/.1082, S-DPO .1524/.1082, MiniOneRec .1586/.1167. Rows that follow another of
the same person and day have that one's target in their history and are easy; the last two columns tell them apart.
"""


STAGES = ("brief", "fit", "frozen", "heads", "late", "packing", "rating", "sasrec", "test", "train")
"""What the page shows."""


@click.command("page")
def page() -> None:
    """Write benchmarks/training.md and its picture from the results."""
    pieces, curves = [INTRODUCTION], {}
    for dataset in DATA:
        found = {file.stem: json.loads(file.read_text()) for file in sorted((RESULTS / dataset).glob("*.json"))}
        if not found:
            continue
        looks = [json.loads(line) for line in LOOKS.read_text().splitlines()]
        n_looks = sum(one["dataset"] == dataset for one in looks)
        pieces.append(
            f"## {dataset}\n\nThe test rows have been looked at {n_looks} times ([looks.jsonl](looks.jsonl)).\n"
        )
        if dataset == "amazon-industrial" and any(stem.startswith("test-") for stem in found):
            pieces.append(PUBLISHED)
        for stem, made in found.items():
            if "rows" not in made or stem.split("-")[0] not in STAGES:
                continue
            rows, origin = made["rows"], f"`{made['command']}`, commit {(made['commit'] or 'unknown')[:12]}"
            pieces.append(f"### {stem}\n\n{_rows(stem, rows)}\n\n{origin}, {made['machine']}\n")
            if re.match(r"train-(?!.*-fold-[1-4])", stem):  # folds look alike
                curves[f"{dataset}, {stem.removeprefix('train-')}"] = rows[0]["log"]
    (RESULTS.parent / "training.md").write_text("\n".join(pieces), encoding="utf-8")
    if curves:
        _plot(curves, RESULTS.parent / "training.svg")


@click.command("table")
@click.option("--dataset", type=click.Choice([name for name in DATA if name + PLAIN in DATA]), required=True)
@click.option("--name", default="plain", show_default=True, help="Of the run, with context and without.")
def table(dataset: str, name: str) -> None:
    """Print what runs with and without context come to, all folds together, and which of them is better.

    Both were trained, fitted and placed under one name, and placed the same rows.
    """
    found: dict[tuple[str, str], tuple[list[int], list[str]]] = {}
    for way, (source, without) in itertools.product(
        priors.DATA[dataset], ((dataset, ""), (dataset + PLAIN, " without context"))
    ):
        files = [(RESULTS / source).glob(f"test-{name}{fold}{hyphened(way)}.json") for fold in ("", "-fold-?")]
        for file in sorted(itertools.chain(*files)):
            rows = {row["name"]: row for row in json.loads(file.read_text())["rows"]}
            for who in (who for who, row in rows.items() if "ranks" in row and not (without and who == "prior")):
                ranks, whose = found.setdefault((way, who + without), ([], []))
                ranks += rows[who]["ranks"]
                whose += [f"{file.stem} {n}" for n in rows["whose"]["whose"]]
    rows = []
    for (way, who), (ranks, whose) in found.items():
        label = f"{way}: " if way else ""
        rows.append({"name": label + who, **figures(np.array(ranks), whose, np.zeros(len(ranks), bool))})
        for other in ("prior", f"{who} without context"):
            if other != who and found.get((way, other), ([], []))[1] == whose:
                rows.append({"name": f"{label}{who} - {other}", **beside(ranks, found[way, other][0], whose)})
    click.echo(_ranked(rows))


def _rows(stem: str, rows: list[dict[str, Any]]) -> str:
    """The rows of one unit as Markdown."""
    if stem.startswith("train-"):
        [row] = rows
        tokens, targets, losses = row["tokens_per_epoch"], row["targets_per_epoch"], [x["loss"] for x in row["log"]]
        return (
            f"{row['steps']} steps in {row['seconds'] / 60:.0f} minutes; an epoch is {tokens:,} tokens and {targets:,} "
            f"targets; loss {losses[0]:.2f} → {losses[-1]:.2f} nats a target."
        )
    if any("interval" in row for row in rows):
        return _ranked(rows)
    rows = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "name"))
    lines = [f"|  | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [f"| {row['name']} | {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows]
    return "\n".join(lines)


def _ranked(rows: list[dict[str, Any]]) -> str:
    """Figures of ranks as Markdown: over cases, over people where that was measured, and what is better than what."""
    ranked = [row for row in rows if "interval" in row]
    slices = [part for part in ("follows_another", "does_not") if any(row.get(part) for row in ranked)]
    shown = [m for m in MEASURES if all(m in row["interval"] for row in ranked)]
    titles = [*shown, "n", *(f"HR@10, {part.split('_another')[0].replace('_', ' ')}" for part in slices)]
    lines = [f"|  | {' | '.join(titles)} |", "|---" * (len(shown) + 1) + "|---:" * (1 + len(slices)) + "|"]
    for row in ranked:
        apart = [f"{row[part]['HR@10']:.3f}" if row.get(part) else "–" for part in slices]
        lines.append(_line(row["name"], row, shown, apart))
        if "over people" in row and not slices:
            lines.append(_line(f"{row['name']}, over people", row["over people"], shown, []))
    for row in rows:
        if "interval" not in row and "HR@1" in row:
            lines.append(f"\n{row['name']}: {_differences(row)}.")
            if "over people" in row and not slices:
                lines[-1] += f" Over people: {_differences(row['over people'])}."
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any], shown: Sequence[str], more: Sequence[str]) -> str:
    """A row of a table: figures with intervals, of how many, and more."""
    cells = [f"{row[m]:.4f} [{row['interval'][m][0]:.3f}, {row['interval'][m][1]:.3f}]" for m in shown]
    n = f"{row['n']:,}"
    return f"| {' | '.join([name, *cells, n, *more])} |"


def _differences(row: dict[str, Any]) -> str:
    parts = []
    for m in FIGURES:
        found = row[m] if isinstance(row[m], dict) else {"difference": row[m], "interval": row["interval"][m]}
        low, high = found["interval"]
        tied = " (tied)" if found.get("tied", low <= 0 <= high) else ""
        parts.append(f"{m} {found['difference']:+.4f} [{low:+.4f}, {high:+.4f}]{tied}")
    return ", ".join(parts)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what it holds in a table of its own beside the rest."""
    inner = {f"{key}: {name}": v for key, value in row.items() if isinstance(value, dict) for name, v in value.items()}
    return {key: value for key, value in row.items() if not isinstance(value, dict)} | inner


FIGURES = ("HR@1", "HR@10", "NDCG@10")


def _plot(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw the loss by step."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "genrec"
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, log in curves.items():
        seen = [entry for entry in log if "loss" in entry]
        axes.plot([entry["step"] for entry in seen], [entry["loss"] for entry in seen], label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a target")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
