"""Reports as tables: which figures of each part are shown, under which heading, in which form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genrec.bench.report import Row

Column = tuple[str, Callable[[Row], str]]


def cells(part: str, rows: Sequence[Row]) -> list[dict[str, str]]:
    """The rows of one part as text by heading; those that failed are left out."""
    return [{head: show(row) for head, show in COLUMNS[part]} for row in rows if "failed" not in row]


def failures(rows: Sequence[Row]) -> list[str]:
    """What failed, one line each."""
    return [f"{row['name']}: {row['failed']}" for row in rows if "failed" in row]


def markdown(part: str, rows: Sequence[Row]) -> str:
    """The rows of one part as a table in Markdown, what failed below it."""
    shown = cells(part, rows)
    lines = []
    if shown:
        lines += [_line(shown[0]), "|---" + "|---:" * (len(shown[0]) - 1) + "|"]
        lines += [_line(row.values()) for row in shown]
    lines += ["", *(f"- Failed: {line}" for line in failures(rows))] if failures(rows) else []
    return "\n".join(lines)


def _line(values: Any) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


def _get(key: str, form: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: "–" if row.get(key) is None else form(row[key])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 0.01 else f"{seconds * 1e3:,.0f} ms"


def _times(value: float) -> str:
    return f"{value:.2f}"


def _share(value: float) -> str:
    return f"{value:.0%}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _nats(value: float) -> str:
    return f"{value:.2g}"


def _range(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[f'{key}_min']:.2f} – {row[f'{key}_max']:.2f}" if f"{key}_min" in row else "–"


NAME: Column = ("", lambda row: str(row["name"]))
PREFILL: Column = ("prefill alone", _get("prefill_s", _ms))
WHOLE: Column = ("a person", _get("whole_s", _ms))
RATIO: Column = ("whole / prefill", _get("ratio", _times))
RANGE: Column = ("from – to", _range("ratio"))
AT_ONCE: Column = ("at once", _get("n_at_once", _count))
PROMPT: Column = ("prompt tokens", _get("prompt_tokens", _count))
COMPUTED: Column = ("tokens computed", _get("computed_tokens", _count))

COLUMNS: Mapping[str, Sequence[Column]] = {
    "ours": (NAME, AT_ONCE, PROMPT, COMPUTED, PREFILL, WHOLE, RATIO, RANGE),
    "server": (
        NAME,
        PROMPT,
        ("prefill, same server", _get("prefill_s", _ms)),
        ("prefill, in process", _get("prefill_in_process_s", _ms)),
        WHOLE,
        ("/ prefill, same server", _get("ratio", _times)),
        ("/ prefill, in process", _get("ratio_in_process", _times)),
        ("/ in the server", _get("to_in_server", _times)),
    ),
    "peers": (
        NAME,
        ("approximates", _get("approximates", str)),
        AT_ONCE,
        COMPUTED,
        WHOLE,
        RATIO,
        ("true top found", _get("recall", _share)),
        ("different items", _get("n_distinct", lambda n: f"{n:.1f}")),
        ("illegal", _get("illegal", _share)),
    ),
    "append": (
        NAME,
        ("people", _get("n_people", _count)),
        PROMPT,
        ("new tokens", _get("new_tokens", _count)),
        ("window moved", _get("n_moved", _count)),
        ("computed, cold", _get("computed_cold", _count)),
        ("computed, warm", _get("computed_warm", _count)),
        ("cold", _get("cold_s", _ms)),
        ("warm", _get("warm_s", _ms)),
        ("warm / cold", _get("warm_to_cold", _times)),
        ("from – to", _range("warm_to_cold")),
    ),
    "catalogue": (
        NAME,
        ("trie nodes", _get("n_nodes", _count)),
        PROMPT,
        COMPUTED,
        PREFILL,
        WHOLE,
        RATIO,
        RANGE,
    ),
    "cpu": (
        NAME,
        ("layers", _get("n_layers", _count)),
        PREFILL,
        WHOLE,
        RATIO,
        ("joint: true top found", _get("recall_joint", _share)),
        ("off by, nats", _get("mean_difference_joint", _nats)),
        ("masked: true top found", _get("recall_masked", _share)),
        ("off by, nats ", _get("mean_difference_masked", _nats)),
    ),
}
"""Columns of each part's table."""
