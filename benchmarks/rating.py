"""How much somebody likes what they choose, learned by squared error: MovieLens' ratings, from 1 to 5.

    python benchmarks/rating.py --dataset movielens-100k --work WORK

The language model reads a history, in which titles stand without their ratings, and the title that was rated; after it,
one of two read-outs says a rating: the mean of the words "1" to "5" by the probabilities that the output matrix gives
them, or a linear head on the hidden state, for what the means of person and film leave unexplained. Both learn by
squared error, with a LoRA or with the model as it is. On the ratings of people who were not learned from, each is
weighed beside the means by least squares on one half of these people and judged by its root mean squared error on the
other; what somebody's mean is follows from their earlier ratings alone. No validation or test rows are looked at.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from heads import HOW, descend, steps_of
from protocols import DATA, options
from rows import RESULTS, MovieLens

from genrec.bench.report import Book
from genrec.evaluation.metrics import bootstrap
from genrec.finetune.methods import adapt, hidden_before, load_model, output_embeddings
from genrec.finetune.packing import Chooser
from genrec.finetune.steps import Batch, Steps
from genrec.history import History

SHRINKAGE = 5.0
"""A mean of so many ratings counts half."""


class Means:
    """What films and people rate on average, from what was learned from and not from the rating in question."""

    def __init__(self, people: Sequence[History], rating: Mapping[tuple[str, str], float]) -> None:
        known = [(person.user_id, moment.item_ids[0]) for person in people for moment in person.moments]
        self.rating, self.known = rating, set(known)
        self.mean = float(np.mean([rating[one] for one in known]))
        self.of_item: dict[str, list[float]] = {}
        for user, item in known:
            self.of_item.setdefault(item, []).append(rating[user, item] - self.mean)

    def item(self, user_id: str, item_id: str) -> float:
        """How much better than the mean others find an item."""
        others = self.of_item.get(item_id, [])
        total, n = sum(others), len(others)
        if (user_id, item_id) in self.known:
            total, n = total - (self.rating[user_id, item_id] - self.mean), n - 1
        return total / (n + SHRINKAGE)

    def user(self, person: History, index: int) -> float:
        """How much better than others somebody has found what they rated before one of their moments."""
        had = [(person.user_id, m.item_ids[0]) for m in person.moments[:index]]
        return sum(self.rating[one] - self.mean - self.item(*one) for one in had) / (len(had) + SHRINKAGE)

    def features(self, person: History, index: int) -> list[float]:
        """All of that."""
        return [1.0, self.item(person.user_id, person.moments[index].item_ids[0]), self.user(person, index)]

    def left(self, person: History, index: int) -> float:
        """What they leave unexplained of a rating."""
        item = person.moments[index].item_ids[0]
        return self.rating[person.user_id, item] - self.mean - sum(self.features(person, index)[1:])


def after_title(lm: Any, step: Batch, chooser: Chooser) -> torch.Tensor:
    """Hidden states at the last token of each target. Shape ``(n_targets, n_hidden)``."""
    lengths = [len(chooser.trie.path(int(row))) for row in step.packed.target]
    return hidden_before(lm, step.packed, torch.from_numpy(step.packed.depth_step + np.array(lengths) - 1))


@click.command(help=__doc__)
@options
@click.option("--steps", default=100, show_default=True, help="Optimizer steps of each way.")
@click.option("--held-out", default=60, show_default=True, help="People of each half who are not learned from.")
def main(dataset: str, data: Path, work: Path, model: str, name: str, steps: int, held_out: int) -> None:
    """Learn ratings."""
    rows = DATA[dataset](data, model)
    if not isinstance(rows, MovieLens):
        raise click.UsageError("movielens-100k alone has ratings")
    people = random.Random(0).sample(rows.people, len(rows.people))
    means, chooser = Means(people[2 * held_out :], rows.rating), Chooser(rows.writing.encoded.trie)
    halves = [
        [(person, row) for person in half for row in rows.writing.rows(person)]
        for half in (people[:held_out], people[held_out : 2 * held_out])
    ]
    words = torch.tensor([rows.writing.tokenizer.encode([str(n)])[0][0] for n in range(1, 6)])
    book = Book(
        RESULTS / dataset / "rating.json",
        stage="rating",
        dataset=dataset,
        settings={"model": model, "steps": steps, "held_out": held_out},
        say=click.echo,
    )

    def rating(person: History, index: int) -> float:
        return rows.rating[person.user_id, person.moments[index].item_ids[0]]

    where = [[(person, int(i)) for person, row in half for i in row.moment] for half in halves]
    users = [person.user_id for person, _ in where[0]]
    judge, fit = (np.array([means.features(*one) for one in half]) for half in where)
    judge_rating, fit_rating = (np.array([rating(*one) for one in half]) for half in where)

    def errors(more: tuple[np.ndarray, np.ndarray], columns: list[int]) -> np.ndarray:
        """Squared error of each judging rating, weights by least squares on the other half."""
        ours, theirs = (np.column_stack([f[:, columns], x]) for f, x in zip((judge, fit), more, strict=True))
        return (ours @ np.linalg.lstsq(theirs, fit_rating, rcond=None)[0] - judge_rating) ** 2

    nothing = np.empty((len(judge), 0)), np.empty((len(fit), 0))
    of_means = errors(nothing, [0, 1, 2])

    def row(more: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """Root mean squared errors of one read-out, alone and beside the means."""
        beside = errors(more, [0, 1, 2])
        low, high = bootstrap(of_means - beside, users)
        return {
            "RMSE": round(float(np.sqrt(errors(more, [0]).mean())), 4),
            "RMSE, with means": round(float(np.sqrt(beside.mean())), 4),
            "squared error saved": round(float((of_means - beside).mean()), 4),
            "interval of that": [round(low, 4), round(high, 4)],
        }

    for what, columns in {"the mean": [0], "means of films": [0, 1], "means of people": [0, 2]}.items():
        book.add(what, lambda c=columns: {"RMSE": round(float(np.sqrt(errors(nothing, c).mean())), 4)})
    book.add("means of both", lambda: {"RMSE": round(float(np.sqrt(of_means.mean())), 4)})

    def measure(adapted: bool, spoken: bool) -> dict[str, Any]:
        torch.manual_seed(HOW.seed)
        lm = load_model(rows.model_folder)
        lm = adapt(lm, "lora") if adapted else lm.requires_grad_(False)
        head = torch.nn.Sequential(
            torch.nn.LayerNorm(lm.config.hidden_size), torch.nn.Linear(lm.config.hidden_size, 1)
        ).requires_grad_(not spoken)
        torch.nn.init.zeros_(head[1].weight)

        def say(step: Batch) -> torch.Tensor:
            hidden = after_title(lm, step, chooser).float()
            if not spoken:
                return head(hidden)[:, 0]
            logits = hidden @ output_embeddings(lm).weight[words].float().T  # (n_targets, 5)
            return logits.softmax(-1) @ torch.arange(1.0, 6.0)

        numbers = {"weight_of": rating if spoken else means.left}  # each target's weight is what is to be said of it
        planned = Steps(people[2 * held_out :], rows.writing, HOW, **numbers)
        descend([planned[i] for i in range(steps)], [lm, head], lambda step: (say(step) - step.weight).square().mean())
        lm.eval()
        with torch.no_grad():
            found = [torch.cat([say(step) for step in steps_of(rows, half)]).numpy() for half in halves]
        return row((found[0], found[1]))

    for what, way in {
        "head, untuned": (False, False),
        "words and LoRA": (True, True),
        "head and LoRA": (True, False),
    }.items():
        book.add(what, lambda way=way: measure(*way))


if __name__ == "__main__":
    main()
