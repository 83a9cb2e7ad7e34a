"""Whether an explanation tells the truth: what it names first is deleted from a history, and so is something else.

    python benchmarks/explain.py -w genrec-demo     # the workspace that `genrec demo` makes; results/ keeps the figures

Each person's best items are explained. Then the person's events are stored anew without those of the item that was
named first, of a random other one that makes a difference, and of the latest one; each time the best items are weighed
again, with nothing kept in the engine's cache. If what is named first counts, its deletion costs more.
"""

from __future__ import annotations

import random
from copy import copy
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import click
import numpy as np

from genrec.bench.report import Book, Row
from genrec.cli._common import table, workspace_option
from genrec.evaluation.metrics import bootstrap
from genrec.events import batch
from genrec.history import History
from genrec.recommender import Recommender
from genrec.store import Store
from genrec.workspace import ScoringName, Workspace, open_workspace

RESULTS = Path(__file__).parent / "results"
ITEMS = 3
"""Of each list so many are explained."""
ROUNDING = 1e-4
"""What changes a log-probability by less, in nats, was not read at all: it lies before the prompt begins."""


def without(asked: Recommender, person: History, gone: str | None, item_ids: list[str]) -> dict[str, float]:
    """Log-probabilities of items once the events of another are deleted, nats; the prior has been fitted before."""
    events = asked.store.history(person.user_id, person.at, max_events=asked.max_events)
    if asked.engine is not None:
        asked.engine.forget()
    with Store.open(":memory:") as store:
        if person.user:
            store.put("users", [batch("users", [person.user])])
        store.append([batch("events", [event for event in events if event.item_id != gone])], source="without")
        again = copy(asked)
        again.store = store
        answer = again.recommend(person.user_id, at=person.at, k=len(item_ids), candidates=item_ids)
    return {item.item_id: item.logprob for item in answer.items}


def measure(opened: Workspace, people: list[History], max_tokens: int, engine: str, scoring: ScoringName) -> Row:
    """How much the best items of each person lose with each deletion."""
    asked = opened.recommender(engine=engine, scoring=scoring)
    if asked.engine is not None:
        asked.max_tokens = min(asked.max_tokens, max_tokens)
    draw = random.Random(0)
    users: list[str] = []
    lost: dict[str, list[float]] = {"first": [], "other": [], "latest": []}
    wrong: list[float] = []
    explain_s, search_s = 0.0, 0.0
    for person in people:
        answer = asked.recommend(person.user_id, at=person.at, k=ITEMS, explain=True)
        explain_s, search_s = explain_s + answer.timings_s["explain"], search_s + answer.timings_s["search"]
        weigh = cache(partial(without, asked, person, item_ids=[item.item_id for item in answer.items]))
        for item in answer.items:
            had = [one for one in item.evidence or () if one.kind == "item"]
            others = [one for one in had[1:] if abs(one.change) > ROUNDING]
            if not others:
                continue
            users.append(person.user_id)
            latest = max(had, key=lambda one: one.at or person.at)
            for name, one in (("first", had[0]), ("other", draw.choice(others)), ("latest", latest)):
                lost[name].append(weigh(None)[item.item_id] - weigh(one.item_id)[item.item_id])
                wrong.append(abs(lost[name][-1] - one.change))
    more = np.array(lost["first"]) - lost["other"]
    return {
        "n": len(users),
        "lost": {name: round(fmean(values), 4) for name, values in lost.items()},
        "difference": round(float(more.mean()), 4),
        "interval": [round(end, 4) for end in bootstrap(more, users)],
        "share_more": round(float((more > 0).mean()), 3),
        "largest_error": round(max(wrong), 6),
        "explain_to_search": round(explain_s / search_s, 1),
    }


@click.command()
@click.option("--people", default=12, show_default=True, help="How many people, a few items each.")
@click.option("--max-tokens", default=384, show_default=True, help="Longest prompt; a longer one takes longer.")
@click.option("--engine", default="transformers", show_default=True, help="What runs the model.")
@workspace_option
def main(people: int, max_tokens: int, engine: str, workspace: Path) -> None:
    """Delete what explanations name first."""
    dataset = workspace.resolve().name
    with open_workspace(workspace, dtype="float32") as opened:
        settings = {
            "people": people,
            "max_tokens": max_tokens,
            "engine": engine,
            **{name: getattr(opened.settings, name) for name in ("model", "dtype", "prior")},
        }
        file = RESULTS / dataset / "explain.json"
        book = Book(file, stage="explain", dataset=dataset, settings=settings, say=click.echo)
        judge = opened.split(held_out=0.1, n_cases=people).judge
        cases = [History.before(person, -1) for person in judge]
        book.add("prior alone", partial(measure, opened, cases, max_tokens, "none", "auto"))
        book.add("masked", partial(measure, opened, cases, max_tokens, engine, "masked"))
        book.add("fused", partial(measure, opened, cases, max_tokens, engine, "fused"))
        measured = [row for row in book.rows if "failed" not in row]
        click.echo(
            table(
                [
                    {"nats lost without": row["name"]}
                    | {name: f"{nats:.3f}" for name, nats in row["lost"].items()}
                    | {"first - other": f"{row['difference']:.3f} [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]"}
                    | {"more": f"{row['share_more']:.0%} of {row['n']}"}
                    for row in measured
                ]
            )
        )


if __name__ == "__main__":
    main()
