"""Heads beside generation: what one forward pass knows, when a small layer reads it instead of the output matrix.

    python benchmarks/heads.py --data DIR --work WORK

The language model reads each history once, up to the line for "now", and stays as it is: untuned, or as trained by
`finetune.py train`. On what it holds there, a head gives every item a logit at once: a linear layer, one with attention
over the whole history, or an item tower (an inner product with the vector of the item's title plus a learned one of low
rank). An encoder of the BERT family, which reads the last titles as a sentence, gets the first and the last. All learn
by softmax over the whole catalogue, stop by one half of the validation people and are judged by the other, alone and
beside the prior, on the same rows as `finetune.py fit`.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rows import DATA, RESULTS, Rows, options

from genrec.bench.report import Book
from genrec.evaluation.metrics import summary
from genrec.finetune.methods import hidden_before, load_model
from genrec.finetune.packing import pack
from genrec.history import History
from genrec.models import model_folder
from genrec.prompt import Row
from genrec.vectors import Embedder

N_TITLES = 5
"""Titles that the encoder reads, the last ones."""


@dataclass
class Seen:
    """What a model holds of a few rows."""

    now: torch.Tensor
    """At the end of each target's open line. Shape ``(n, n_hidden)``, float32."""
    target: torch.Tensor
    """Catalogue rows. Shape ``(n,)``, int64."""
    held: torch.Tensor
    """At every place. Shape ``(n_tokens, n_hidden)``, float16."""
    begin: torch.Tensor
    """Where the history of each target begins in it. Shape ``(n,)``, int64."""
    end: torch.Tensor
    """Where it ends."""


def read(model: Any, rows: list[tuple[History, Row]]) -> list[Seen]:
    """Run a model over rows."""
    model.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), 40):
            packed = pack([row for _, row in rows[start : start + 40]])
            held = hidden_before(model, packed, torch.arange(len(packed.token_ids))).float()
            end = torch.from_numpy(packed.position)
            begin = torch.from_numpy(np.cumsum(packed.lengths[:-1])[packed.of])
            found.append(Seen(held[end], torch.from_numpy(packed.target), held.half(), torch.minimum(begin, end), end))
    return found


class Linear(torch.nn.Module):
    """A logit for each item from what the model holds now."""

    def __init__(self, n_hidden: int, popularity: torch.Tensor) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(n_hidden)
        self.out = torch.nn.Linear(n_hidden, len(popularity))
        torch.nn.init.zeros_(self.out.weight)
        self.out.bias.data = popularity.clone()

    def forward(self, seen: Seen) -> torch.Tensor:
        """Logits of all items for each target. Shape ``(n, n_items)``."""
        return self.out(self.norm(seen.now))


class Pooled(Linear):
    """The same from a mean of all that the model holds of a history, weighted by attention."""

    def __init__(self, n_hidden: int, popularity: torch.Tensor) -> None:
        super().__init__(n_hidden, popularity)
        self.query = torch.nn.Parameter(torch.zeros(n_hidden))

    def forward(self, seen: Seen) -> torch.Tensor:
        """Logits of all items for each target. Shape ``(n, n_items)``."""
        held = self.norm(seen.held.float())
        score = held @ self.query / held.shape[1] ** 0.5
        weight = (score - score.max()).exp()[:, None]
        total = torch.nn.functional.pad((weight * held).cumsum(0), (0, 0, 1, 0))
        mass = torch.nn.functional.pad(weight.cumsum(0), (0, 0, 1, 0))
        first, last = seen.begin, seen.end + 1
        return self.out((total[last] - total[first]) / (mass[last] - mass[first]).clamp(min=1e-6))


class Tower(torch.nn.Module):
    """An inner product with the vector of an item's title and a learned one of low rank."""

    def __init__(self, n_hidden: int, popularity: torch.Tensor, titles: torch.Tensor, rank: int = 16) -> None:
        super().__init__()
        self.titles = titles
        self.norm = torch.nn.LayerNorm(n_hidden)
        self.project = torch.nn.Linear(n_hidden, titles.shape[1])
        self.own = torch.nn.Parameter(0.01 * torch.randn(len(titles), rank))
        self.basis = torch.nn.Parameter(torch.randn(rank, titles.shape[1]) / titles.shape[1] ** 0.5)
        self.bias = torch.nn.Parameter(popularity.clone())
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, seen: Seen) -> torch.Tensor:
        """Logits of all items for each target. Shape ``(n, n_items)``."""
        items = self.titles + self.own @ self.basis
        return self.scale * self.project(self.norm(seen.now)) @ items.T + self.bias


def logits_of(head: torch.nn.Module, seen: list[Seen]) -> torch.Tensor:
    """What a head says of all targets, as log-probabilities."""
    with torch.no_grad():
        return torch.cat([head(one).log_softmax(-1) for one in seen])


def targets_of(seen: list[Seen]) -> torch.Tensor:
    """All targets."""
    return torch.cat([one.target for one in seen])


def learn(head: torch.nn.Module, train: list[Seen], fit: list[Seen]) -> tuple[torch.nn.Module, int]:
    """Train a head until the rows that stop it get no better; returns the best and its epochs."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.1)
    best, best_loss, kept = 0, np.inf, copy.deepcopy(head)
    for epoch in range(1, 31):
        for i in np.random.default_rng(epoch).permutation(len(train)):
            loss = torch.nn.functional.cross_entropy(head(train[i]), train[i].target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        held_out = torch.nn.functional.nll_loss(logits_of(head, fit), targets_of(fit)).item()
        if held_out < best_loss:
            best, best_loss, kept = epoch, held_out, copy.deepcopy(head)
        elif epoch - best >= 3:
            break
    return kept, best


def weigh(logits: torch.Tensor, prior: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """Weights of a head's and the prior's log-probabilities under which targets are likeliest."""
    weights = torch.tensor([0.5, 0.5], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=30, line_search_fn="strong_wolfe")

    def again() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(weights[0] * logits + weights[1] * prior, target)
        loss.backward()
        return loss

    optimizer.step(again)
    return float(weights[0]), float(weights[1])


@click.command(help=__doc__)
@options
@click.option("--cases", default=1200, show_default=True, help="Validation rows of each half.")
@click.option("--embedding", default="minilm-l6-v2", show_default=True, help="The encoder, and the titles' vectors.")
def main(dataset: str, data: Path, work: Path, model: str, name: str, cases: int, embedding: str) -> None:
    """Measure heads."""
    torch.manual_seed(0)
    rows: Rows = DATA[dataset](data, model)
    learned = [(person, row) for person in rows.people for row in rows.writing.rows(person)]
    judge, fit = rows.halves(cases)
    priors = [torch.from_numpy(np.array([rows.log_mass(case) for case, _ in some])).float() for some in (judge, fit)]
    count = np.bincount([int(t) for _, row in learned for t in row.target], minlength=len(rows.catalog))
    popularity = torch.from_numpy(np.log((count + 0.5) / (count + 0.5).sum())).float()
    embedder = Embedder(model_folder(embedding))
    titles = torch.from_numpy(embedder.embed(rows.catalog.titles))
    users = [case.user_id for case, _ in judge]
    book = Book(
        RESULTS / dataset / "heads.json",
        stage="heads",
        dataset=dataset,
        settings={"model": model, "cases": cases, "embedding": embedding},
        say=click.echo,
    )

    def figures(logits: torch.Tensor, target: torch.Tensor) -> dict[str, Any]:
        score = logits.log_softmax(-1)
        own = score.gather(1, target[:, None])
        return {"nats": round(-own.mean().item(), 3), **summary((score > own).sum(1).numpy(), users)}

    def measure(head: torch.nn.Module, seen: list[list[Seen]], read_s: float) -> dict[str, Any]:
        started_s = time.perf_counter()
        head, epochs = learn(head, seen[0], seen[2])
        seconds = time.perf_counter() - started_s
        judged, fitted = (logits_of(head, one) for one in seen[1:])
        gamma, beta = weigh(fitted, priors[1], targets_of(seen[2]))
        alone = figures(judged, targets_of(seen[1]))
        both = figures(gamma * judged + beta * priors[0], targets_of(seen[1]))
        return {
            **{key: value for key, value in alone.items() if key != "interval"},
            "nats, both": both["nats"],
            "HR@10, both": both["HR@10"],
            "NDCG@10, both": both["NDCG@10"],
            "epochs": epochs,
            "seconds": round(seconds),
            "seconds to read": round(read_s),
            "trainable": sum(p.numel() for p in head.parameters()),
        }

    target = torch.cat([torch.from_numpy(row.target.astype(np.int64)) for _, row in judge])
    prior = figures(priors[0], target)
    book.add("prior alone", lambda: {key: value for key, value in prior.items() if key != "interval"})
    for reader, folder in (("untuned", rows.model_folder), ("tuned", work / dataset / name / "merged")):
        heads = {"linear": Linear, "attention": Pooled, "item tower": Tower}
        if not book.lacks(*(f"{reader}, {kind}" for kind in heads)) or not folder.is_dir():
            continue
        started_s = time.perf_counter()
        lm = load_model(folder)
        seen = [read(lm, some) for some in (learned, judge, fit)]
        read_s, n_hidden = time.perf_counter() - started_s, seen[0][0].now.shape[1]
        for kind, build in heads.items():
            head = build(n_hidden, popularity, titles) if build is Tower else build(n_hidden, popularity)
            book.add(f"{reader}, {kind}", partial(measure, head, seen, read_s))

    def sentences(some: list[tuple[History, Row]]) -> list[Seen]:
        """Histories as an encoder reads them."""
        texts, targets = [], []
        for person, row in some:
            for moment, t in zip(row.moment, row.target, strict=True):
                before = person.moments[max(0, moment - N_TITLES) : moment]
                had = [rows.catalog.titles[rows.catalog.row[m.item_ids[0]]] for m in before]
                texts.append("; ".join(title[:60] for title in reversed(had)))
                targets.append(int(t))
        now, target, nothing = torch.from_numpy(embedder.embed(texts)), torch.tensor(targets), torch.empty(0)
        parts = zip(now.split(256), target.split(256), strict=True)
        return [Seen(some, chosen, nothing, nothing, nothing) for some, chosen in parts]

    if book.lacks("encoder, linear", "encoder, item tower"):
        started_s = time.perf_counter()
        seen = [sentences(some) for some in (learned, judge, fit)]
        read_s = time.perf_counter() - started_s
        n_hidden = seen[0][0].now.shape[1]
        for kind, head in {
            "linear": Linear(n_hidden, popularity),
            "item tower": Tower(n_hidden, popularity, titles),
        }.items():
            book.add(f"encoder, {kind}", partial(measure, head, seen, read_s))


if __name__ == "__main__":
    main()
