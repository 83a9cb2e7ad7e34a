"""What was found by judging, for people: Markdown, and one HTML page with its pictures in it.

Knows the result of `genrec.evaluation.judge.judge` and how to draw; knows nothing of how it was found.
"""

from __future__ import annotations

import html
import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genrec.errors import ConfigError

HEADLINES = ("HR@1", "HR@10", "NDCG@10")
"""Figures that come with intervals, the first one first."""


def can_draw() -> None:
    """Look whether a page can be made.

    Raises:
        ConfigError: If the package that draws is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("drawing needs the package matplotlib", hint="pip install 'genrec[bench]'")


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Write ``evaluation.json``, ``evaluation.md`` and ``evaluation.html``, which needs no other file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(markdown(found), encoding="utf-8")
    (folder / "evaluation.html").write_text(page(found), encoding="utf-8")


def tables(found: Mapping[str, Any]) -> list[tuple[str, list[dict[str, str]]]]:
    """All tables with their titles; each row has the same keys, the first one its name."""
    ways = found["ways"]
    whole = [{"": name} | with_intervals(row) | _cost(row) for name, row in ways.items()]
    made = [(f"{found['n']} choices", whole)]
    shown = [
        {
            "": name,
            "catalogue shown": f"{row['lists']['coverage']:.1%}",
            "novelty, bits": f"{row['lists']['novelty']:.2f}",
            "of choices": f"{row['lists']['novelty_of_choices']:.2f}",
            "diversity": f"{row['lists']['diversity']:.3f}",
            "calibration error": f"{row['calibration']['ECE']:.4f}" if "calibration" in row else "–",
        }
        for name, row in ways.items()
        if "lists" in row
    ]
    if shown:
        made.append((f"Whole lists of {next(iter(ways.values()))['lists']['n']} of them", shown))
    for kind in next(iter(ways.values()))["slices"]:
        n = next(iter(ways.values()))["slices"][kind]["n"]
        rows = [{"": name} | with_intervals(row["slices"][kind]) for name, row in ways.items()]
        made.append((f"{kind[0].upper()}{kind[1:]}: {n}", rows))
    return made


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Verdicts in words: each way beside the best prior, and what a model's lead costs."""
    said = [
        f"{name}: {', '.join(f'{metric} {versus(part)}' for metric, part in parts.items())}"
        for name, parts in found["differences"].items()
    ]
    for name, buys in found["buys"].items():
        said.append(
            f"What {name} buys over {found['best_prior']}: {buys['NDCG@10']:+.4f} NDCG@10 for "
            f"{buys['added_ms']:,.0f} ms more a person, {buys['NDCG@10_per_ms']:+.2e} a millisecond"
            + (f"; {buys['NDCG@10_per_hour']:+.4f} an hour of training." if "training_s" in buys else ".")
        )
    said += found.get("notes", [])
    return said


def versus(part: Mapping[str, Any]) -> str:
    """A paired difference of one figure in words, as `genrec.evaluation.metrics.difference` found it."""
    low, high = part["interval"]
    return f"{part['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" + (" tied" if part["tied"] else "")


def with_intervals(row: Mapping[str, Any]) -> dict[str, str]:
    """The headlines of a row with their intervals."""
    return {metric: f"{row[metric]:.3f} [{low:.3f}, {high:.3f}]" for metric, (low, high) in row["interval"].items()}


def _cost(row: Mapping[str, Any]) -> dict[str, str]:
    return {"s a person": f"{row['seconds_a_person']:.3f}", "tokens": f"{row['tokens_a_person']:,}"}


def title(found: Mapping[str, Any]) -> str:
    """What was judged, on one line."""
    cuts = ", ".join(str(one["cut"])[:16].replace("T", " ") for one in found["origins"])
    last = found["origins"][0]["target"] == "last"
    return f"{found['n']} {f'last choices from {cuts} on' if last else f'first choices after {cuts}'}"


def markdown(found: Mapping[str, Any]) -> str:
    """Tables and verdicts as Markdown."""
    return document(title(found), tables(found), sentences(found))


def document(title: str, tables: Sequence[tuple[str, Sequence[Mapping[str, str]]]], sentences: Sequence[str]) -> str:
    """Tables with titles of their own and sentences as Markdown."""
    pieces = [f"# {title}"]
    for name, rows in tables:
        head = "| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0])
        lines = ["| " + " | ".join(row.values()) + " |" for row in rows]
        pieces.append("\n".join([f"## {name}\n", head, *lines]))
    pieces.append("\n".join(f"- {sentence}" for sentence in sentences))
    return "\n\n".join(pieces) + "\n"


def page(found: Mapping[str, Any]) -> str:
    """The same as one HTML page, with a picture of the headlines and one of how true the probabilities are."""
    parts = [f"<h1>{html.escape(title(found))}</h1>", _headlines(found["ways"]), _reliability(found["ways"])]
    for name, rows in tables(found):
        head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row.values())}</tr>" for row in rows)
        parts.append(f"<h2>{html.escape(name)}</h2><table><tr>{head}</tr>{body}</table>")
    parts.append("<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences(found)) + "</ul>")
    style = (
        "body{font:16px system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}td,th{padding:.3em .8em;border-bottom:1px solid #ddd;text-align:right}"
        "td:first-child{text-align:left}"
        "svg{max-width:100%;height:auto}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title(found))}</title>'
        f"<style>{style}</style>{''.join(parts)}</html>\n"
    )


def _headlines(ways: Mapping[str, Any]) -> str:
    figure, axes = _figure(len(HEADLINES))
    names = list(ways)
    for axis, metric in zip(axes, HEADLINES, strict=True):
        values = [ways[name][metric] for name in names]
        low, high = zip(*(ways[name]["interval"][metric] for name in names), strict=True)
        spread = [
            [max(v - x, 0) for v, x in zip(values, low, strict=True)],
            [max(x - v, 0) for v, x in zip(values, high, strict=True)],
        ]
        axis.barh(names, values, xerr=spread, color="#4c78a8", ecolor="#333")
        axis.invert_yaxis()
        axis.set_title(metric)
    return _svg(figure)


def _reliability(ways: Mapping[str, Any]) -> str:
    known = {name: row["calibration"]["bins"] for name, row in ways.items() if "calibration" in row}
    if not known:
        return ""
    figure, [axis] = _figure(1)
    for name, bins in known.items():
        axis.plot([b["probability"] for b in bins], [b["hits"] for b in bins], marker="o", label=name)
    top = max(b[key] for bins in known.values() for b in bins for key in ("probability", "hits"))
    axis.plot([0, top], [0, top], color="#999", linestyle=":")
    axis.set_xlabel("probability given")
    axis.set_ylabel("share chosen")
    axis.legend()
    return _svg(figure)


def _figure(n: int) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * n, 3.2), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    drawn = out.getvalue()
    return drawn[drawn.index("<svg") :]
