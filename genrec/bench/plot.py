"""The cost of a recommendation against the size of the catalogue, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genrec.bench.report import Row
from genrec.errors import ModelError

COLOURS = {"fused": "#0a6c74", "masked": "#b3400b"}
GREY = "#57606a"
STYLES = {"transformers": ("o", "-"), "vllm": ("s", "--")}


def cost_by_size(rows: Sequence[Row], file: Path) -> None:
    """Draw the rows of the part `catalogue` without a filter: milliseconds a person over the number of items.

    Args:
        rows: At least one that did not fail.
        file: Where to put it; its ending says what kind of picture.

    Raises:
        ModelError: If matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModelError(
            f"a plot needs a package that is missing: {error.name}", hint="pip install 'genrec[bench]'"
        ) from error
    shown = [row for row in rows if "failed" not in row and not row["filtered"]]
    look = {"svg.hashsalt": "genrec", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11}
    with mpl.rc_context(look):
        figure = Figure(figsize=(10.4, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for engine in dict.fromkeys(row["engine"] for row in shown):
            of_engine = [row for row in shown if row["engine"] == engine]
            marker, line = STYLES.get(engine, ("^", ":"))
            for scoring in dict.fromkeys(row["scoring"] for row in of_engine):
                some = sorted((row for row in of_engine if row["scoring"] == scoring), key=lambda row: row["n_items"])
                axes.plot(
                    [row["n_items"] for row in some],
                    [row["whole_s"] * 1e3 for row in some],
                    color=COLOURS.get(scoring, GREY),
                    marker=marker,
                    linestyle=line,
                    linewidth=2,
                    label=f"{engine}, {scoring}",
                )
            sizes = sorted({row["n_items"] for row in of_engine})
            prefill_ms = [
                sum(times) / len(times) * 1e3
                for times in ([row["prefill_s"] for row in of_engine if row["n_items"] == size] for size in sizes)
            ]
            axes.plot(
                sizes, prefill_ms, color=GREY, marker=marker, linestyle=line, linewidth=1, markersize=4,
                label=f"{engine}, prefill of the prompt alone",
            )  # fmt: skip
        axes.set_xscale("log")
        sizes = sorted({row["n_items"] for row in shown})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("items in the catalogue (log scale)")
        axes.set_ylabel("milliseconds a person")
        axes.set_title(f"A whole top-{shown[0]['k']} recommendation, nothing cached", loc="left", fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#d0d7de", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
