"""Write benchmarks/decode.md and its picture from the files that `genrec bench decode --out` left behind.

    python benchmarks/decode.py

So the text never disagrees with the files; a test compares them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genrec.bench.plot import cost_by_size
from genrec.bench.tables import markdown

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "decode"

INTRODUCTION = """\
# What decoding costs

This page is written by `python benchmarks/decode.py` from the files under [results/decode](results/decode), which
`genrec bench decode -w genrec-demo --out benchmarks/results/decode` makes, part by part (`--part NAME`). Every part
runs on the workspace of `genrec demo` unless it says otherwise, with its most active people, at the end of what the
store knows, and asks for ten items. Machines differ and are shared, so believe ratios: what is compared was measured
in turns, and the ratios are medians of pairs, with the smallest and the largest beside them.

"Prefill alone" reads the same prompts and nothing more: no recommendation from this model can cost less. "A whole
recommendation" is everything from history to list, with emptied caches.
"""

SECTIONS = {
    "ours": (
        "A whole recommendation beside reading its prompt",
        """\
Prompts of about 300 tokens: `history.max_tokens` is {max_tokens}, chosen so that the median comes closest to
{n_tokens}, because a window that overflows lets go of a quarter at once. transformers answers one person at a time,
and the figures are medians over {n_people} people; vLLM gets all of them at once, and its figures are medians over
{n_repeats} runs (three at most for joint) with an emptied prefix cache, divided by the number of people.""",
    ),
    "server": (
        "Inside the server, and from outside",
        """\
{n_people} clients at once, each with a connection of its own, on the machine of the server; the time is divided by
the number of clients, and theirs is in it. `fused` scoring, vLLM. The prefill of the same prompts is measured twice:
on the same server, as {n_people} concurrent calls of `/v1/completions` for one token with the prompt as token ids, in
turns with what it is compared with; and before that in process, without HTTP. vLLM's prefix cache is emptied before
each. "From outside" is the engine `vllm-server`: the same search, but each of its rounds is a call over HTTP to the
same server. With a tiny model of two layers and random weights nearly all of the time is the way there and back.""",
    ),
    "peers": (
        "Other ways on the same model",
        """\
The first {n_slow} of the people, same prompts. transformers: one at a time, median. vLLM: all at once, divided. The
truth is the exact search on transformers, of the distribution that each way approximates: `joint` for beams, `masked`
for samples, for the grammar leaves at each step what is legal; ours on vLLM differs from it by what bfloat16 does to
near ties. `generate` has a prefix function over the same texts and no length penalty. `beam_search` of vLLM's `LLM`
has no constraint that works with it, so it writes on for as many tokens as the longest item has, and what stands
before the first semicolon counts. Structured outputs draw whole titles from a grammar of all of them; the same title
may come more than once, and samples are no ranking.""",
    ),
    "peers-32": (
        "The same for more people",
        """\
All {n_slow} people, whom vLLM gets at once. Grammars for so many requests of a hundred samples were more than vLLM's
engine process bore on this machine.""",
    ),
    "append": (
        "One moment more",
        """\
A recommendation for one of a person's moments, then for the next, which sees one moment (a basket, often a dozen
items) more. Cold has nothing cached, warm comes right after the first recommendation. `fused` scoring; transformers
one at a time, vLLM all at once. "Window moved" counts people of whom old lines had to go to make room: then the
beginning is another one and is read anew; that happens once in a quarter of the window.""",
    ),
    "catalogue": (
        "A growing catalogue",
        """\
Generated titles of two to five words, {n_slow} made-up people, a prior fitted to 200,000 events after Zipf's law.
"Filtered" leaves out what the person already has, which makes a mask over all items. Beyond the model, a
recommendation sums the prior's mass over all items; that is what grows.

![Milliseconds a person against the number of items](decode.svg)""",
    ),
    "cpu": (
        "What else a CPU offers",
        """\
The transformers engine with the model changed in place, `masked` scoring, {n_slow} people. Quality is against the
whole model in float32: how much of its true top ten is found, and how far the log-probabilities of those ten are off.
int8 by torch's dynamic quantisation and by torchao; fewer layers is early exit without training. A first call that
compiles is not in the times.""",
    ),
}


def page(results: Path) -> str:
    """The page, from the reports in a folder; parts that are not there are left out."""
    pieces = [INTRODUCTION]
    for part, (title, text) in SECTIONS.items():
        file = results / f"{part}.json"
        if not file.is_file():
            continue
        report = json.loads(file.read_text(encoding="utf-8"))
        rows = report["rows"]
        known = {name: value for row in rows for name, value in row.items() if name == "max_tokens"}
        pieces += [f"## {title}\n", text.format_map({"max_tokens": "–", **report["settings"], **known}) + "\n"]
        pieces += [markdown(part.split("-")[0], rows) + "\n", _origin(report, part) + "\n"]
    return "\n".join(pieces)


def _origin(report: dict[str, Any], part: str) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    commit = (report["commit"] or "unknown")[:12]
    return (
        f"`{report['command']}`, model {report['settings']['model']}, commit {commit}, {report['machine']}, "
        f"{versions}, {report['wall_s'] / 60:,.0f} minutes; [file](results/decode/{part}.json)"
    )


def main(say: Callable[[str], object] = print) -> None:
    """Write the page and the picture."""
    (HERE / "decode.md").write_text(page(RESULTS), encoding="utf-8")
    say("benchmarks/decode.md")
    sizes = RESULTS / "catalogue.json"
    if sizes.is_file():
        cost_by_size(json.loads(sizes.read_text(encoding="utf-8"))["rows"], HERE / "decode.svg")
        say("benchmarks/decode.svg")


if __name__ == "__main__":
    sys.exit(main())
