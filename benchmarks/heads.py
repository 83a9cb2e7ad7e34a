"""Heads beside generation: what a forward pass knows, when a small layer reads it instead of the output matrix.

    python benchmarks/heads.py frozen --data DIR --work WORK --name untuned   # the model as it is
    python benchmarks/heads.py frozen --data DIR --work WORK --name NAME      # as `finetune.py train` left it
    python benchmarks/heads.py together --data DIR --work WORK                # a LoRA with and without a head's loss

The language model reads each history once, up to the line for "now". On what it holds there, a head gives every item a
logit at once: a linear layer, one over a mean of the whole history weighted by attention, or an item tower (an inner
product with the vector of the item's title plus a learned one of low rank). An encoder of the BERT family, which reads
the last titles as a sentence, gets the first and the last. All learn by softmax over the whole catalogue, stop by the
half of the validation people that weights are fitted to and are judged by the other half, as `finetune.py fit` does:
alone, beside the prior (a product of both, weighted by likelihood), and as part of the prior inside the trie.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from protocols import DATA, options
from rows import RESULTS, Rows
from transformers import get_cosine_schedule_with_warmup

from genrec.bench.report import Book
from genrec.evaluation.metrics import bootstrap, figures
from genrec.finetune.loss import choice_losses, logits_of, trie_loss
from genrec.finetune.methods import adapt, hidden_before, load_model, output_embeddings
from genrec.finetune.options import Options
from genrec.finetune.packing import Chooser
from genrec.finetune.steps import Batch, Steps, batch
from genrec.finetune.weighing import fit_weights
from genrec.history import History
from genrec.models import model_folder
from genrec.prompt import Row
from genrec.vectors import Embedder

N_TITLES = 5
"""Titles that the encoder reads, the last ones."""
HOW = Options(epochs=1, step_tokens=1024)
"""How all that learns does."""
Cases = Sequence[tuple[History, Row]]


@dataclass
class Seen:
    """What a model holds of a few rows."""

    now: torch.Tensor
    """At the end of each target's open line. Shape ``(n, n_hidden)``, float32."""
    target: torch.Tensor
    """Catalogue rows. Shape ``(n,)``, int64."""
    held: torch.Tensor | None = None
    """At every place. Shape ``(n_tokens, n_hidden)``, float16."""
    begin: torch.Tensor | None = None
    """Where the history of each target begins in it. Shape ``(n,)``, int64."""
    end: torch.Tensor | None = None
    """Where it ends."""
    logits: torch.Tensor | None = None
    """What generation says of all alternatives. Shape ``(n_alternatives,)``, float32."""


def read(model: Any, steps: Sequence[Batch]) -> list[Seen]:
    """Run a language model over steps."""
    model.eval()
    found = []
    with torch.no_grad():
        for step in steps:
            packed = step.packed
            held = hidden_before(model, packed, torch.arange(len(packed.token_ids)))[: len(packed.token_ids)]
            end = torch.from_numpy(packed.position)
            begin = torch.minimum(torch.from_numpy(np.cumsum(packed.lengths[:-1])[packed.of]), end)
            logits = logits_of(held[step.index], output_embeddings(model).weight, step.among)
            found.append(Seen(held[end].float(), torch.from_numpy(packed.target), held.half(), begin, end, logits))
    return found


class Linear(torch.nn.Module):
    """A logit for each item from what the model holds now."""

    def __init__(self, n_hidden: int, log_popularity: torch.Tensor) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(n_hidden)
        self.out = torch.nn.Linear(n_hidden, len(log_popularity))
        torch.nn.init.zeros_(self.out.weight)
        self.out.bias.data = log_popularity.clone()

    def forward(self, seen: Seen) -> torch.Tensor:
        """Logits of all items for each target. Shape ``(n, n_items)``."""
        return self.out(self.norm(seen.now))


class Pooled(Linear):
    """The same from a mean of all that the model holds of a history, weighted by attention."""

    def __init__(self, n_hidden: int, log_popularity: torch.Tensor) -> None:
        super().__init__(n_hidden, log_popularity)
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

    def __init__(self, n_hidden: int, log_popularity: torch.Tensor, titles: torch.Tensor, rank: int = 16) -> None:
        super().__init__()
        self.titles = titles
        self.norm = torch.nn.LayerNorm(n_hidden)
        self.project = torch.nn.Linear(n_hidden, titles.shape[1])
        self.own = torch.nn.Parameter(0.01 * torch.randn(len(titles), rank))
        self.basis = torch.nn.Parameter(torch.randn(rank, titles.shape[1]) / titles.shape[1] ** 0.5)
        self.bias = torch.nn.Parameter(log_popularity.clone())
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, seen: Seen) -> torch.Tensor:
        """Logits of all items for each target. Shape ``(n, n_items)``."""
        items = self.titles + self.own @ self.basis
        return self.scale * self.project(self.norm(seen.now)) @ items.T + self.bias


def said(head: torch.nn.Module, seen: list[Seen]) -> torch.Tensor:
    """Log-probabilities of all items for all targets. Shape ``(n, n_items)``."""
    with torch.no_grad():
        return torch.cat([head(one).log_softmax(-1) for one in seen])


def learn(head: torch.nn.Module, train: list[Seen], fit: list[Seen]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Train a head, from where it was best a third as fast whenever the rows that stop it get no better.

    Returns:
        The best head; what it took.
    """
    started_s, target = time.perf_counter(), torch.cat([one.target for one in fit])
    best, best_loss, rate, epoch = copy.deepcopy(head.state_dict()), np.inf, HOW.learning_rate, 0
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.1)
    while rate > HOW.learning_rate / 30:
        for i in np.random.default_rng(epoch).permutation(len(train)):
            loss = torch.nn.functional.cross_entropy(head(train[i]), train[i].target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        held_out = torch.nn.functional.nll_loss(said(head, fit), target).item()
        epoch += 1
        if held_out < best_loss - 1e-3:
            best, best_loss = copy.deepcopy(head.state_dict()), held_out
        else:
            head.load_state_dict(best)
            rate /= 3
            optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.1)
    return head, {
        "epochs": epoch,
        "seconds": round(time.perf_counter() - started_s),
        "trainable": sum(p.numel() for p in head.parameters()),
    }


def weigh(voices: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Weights of log-probabilities under which targets are likeliest in the product. Shape ``(n_voices,)``."""
    weights = torch.full((len(voices),), 0.5, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=30, line_search_fn="strong_wolfe")

    def again() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(product(weights, voices), target)
        loss.backward()
        return loss

    optimizer.step(again)
    return weights.detach()


def product(weights: torch.Tensor, voices: Sequence[torch.Tensor]) -> torch.Tensor:
    """A weighted product of distributions, as log-probabilities."""
    return sum(weight * voice for weight, voice in zip(weights, voices, strict=True)).log_softmax(-1)


@dataclass
class Half:
    """Validation cases of one half of the people."""

    rows: Rows
    cases: Cases

    @cached_property
    def target(self) -> torch.Tensor:
        """Catalogue rows. Shape ``(n,)``."""
        return torch.tensor([int(row.target[0]) for _, row in self.cases])

    @cached_property
    def prior(self) -> torch.Tensor:
        """Log prior probability of all items. Shape ``(n, n_items)``."""
        return torch.from_numpy(np.array([self.rows.log_mass(case) for case, _ in self.cases])).float()

    def steps(self, log_p: torch.Tensor) -> list[Batch]:
        """The cases as steps, with what some distributions say of each branch."""
        masses = iter(log_p.exp().double().numpy())
        return steps_of(self.rows, self.cases, mass_of=lambda *_: next(masses))


def steps_of(rows: Rows, cases: Cases, **masses: Any) -> list[Batch]:
    """Cases as steps."""
    chooser, parts = Chooser(rows.writing.encoded.trie), [cases[i : i + 40] for i in range(0, len(cases), 40)]
    return [batch(part, chooser, HOW, **masses) for part in parts]


class Task:
    """A data set, and what all heads start from."""

    def __init__(self, data: Path, *, dataset: str, model: str, cases: int, embedding: str, **_: Any) -> None:
        self.rows: Rows = DATA[dataset](data, model)
        self.learned = [(person, row) for person in self.rows.people for row in self.rows.writing.rows(person)]
        self.judge, self.fit = (Half(self.rows, some) for some in self.rows.halves(cases))
        count = np.bincount([t for _, row in self.learned for t in row.target], minlength=len(self.rows.catalog))
        self.log_popularity = torch.from_numpy(np.log((count + 0.5) / (count + 0.5).sum())).float()
        self.embedder = Embedder(model_folder(embedding))
        self.titles = torch.from_numpy(self.embedder.embed(self.rows.catalog.titles))

    def head(self, kind: str, n_hidden: int) -> torch.nn.Module:
        """A new head."""
        torch.manual_seed(0)
        if kind == "item tower":
            return Tower(n_hidden, self.log_popularity, self.titles)
        return {"linear": Linear, "attention": Pooled}[kind](n_hidden, self.log_popularity)

    def sentences(self, cases: Cases) -> list[Seen]:
        """Histories as an encoder reads them."""
        texts, targets, catalog = [], [], self.rows.catalog
        for person, row in cases:
            for moment, target in zip(row.moment, row.target, strict=True):
                before = person.moments[max(0, moment - N_TITLES) : moment]
                had = [catalog.titles[catalog.row[m.item_ids[0]]] for m in before]
                texts.append("; ".join(title[:60] for title in reversed(had)))
                targets.append(int(target))
        now = torch.from_numpy(self.embedder.embed(texts)).split(256)
        return [Seen(*some) for some in zip(now, torch.tensor(targets).split(256), strict=True)]

    def ranked(self, name: str, log_p: torch.Tensor) -> dict[str, float]:
        """What distributions over the items come to on the judging half."""
        own = log_p.gather(1, self.judge.target[:, None])
        return {f"nats, {name}": round(-own.mean().item(), 4)} | shown(name, (log_p > own).sum(1).numpy())


def shown(name: str, ranks: np.ndarray) -> dict[str, float]:
    """The figures that are kept of some ranks."""
    found = figures(ranks, 10)
    return {f"{figure}, {name}": round(found[figure], 4) for figure in ("HR@1", "HR@10", "NDCG@10")}


class Generation:
    """What a model generates, for heads to be judged beside it."""

    def __init__(self, task: Task, lm: Any) -> None:
        self.task, (judge, fit) = task, (task.judge, task.fit)
        steps = judge.steps(judge.prior)
        self.seen = read(lm, steps), read(lm, fit.steps(fit.prior))
        self.judged, self.fitted = ([one.logits for one in seen] for seen in self.seen)
        self.alone = losses(self.judged, steps, 1.0, 0.0)
        self.with_prior = self.beside(judge.prior, fit.prior)

    def beside(self, judge: torch.Tensor, fit: torch.Tensor) -> np.ndarray:
        """Fuse with distributions of both halves: each judging target's loss, nats."""
        gamma, beta, _ = fit_weights(self.fitted, self.task.fit.steps(fit))
        return losses(self.judged, self.task.judge.steps(judge), gamma, beta)

    def no_head(self) -> dict[str, Any]:
        """What there is without a head."""
        return {
            "nats, generation": round(float(self.alone.mean()), 4),
            **self.task.ranked("with prior", self.task.judge.prior),
            "nats, with both": round(float(self.with_prior.mean()), 4),
        }

    def compare(self, head: torch.nn.Module, seen: Sequence[list[Seen]]) -> dict[str, Any]:
        """Judge a head by what it says of what was seen of both halves."""
        task, (judge, fit) = self.task, (said(head, half) for half in seen)
        weights = weigh([task.fit.prior, fit], task.fit.target)
        fused = product(weights, [task.judge.prior, judge])
        beside = self.beside(judge, fit)
        everything = self.beside(fused, product(weights, [task.fit.prior, fit]))
        gain, users = self.with_prior - everything, [case.user_id for case, _ in task.judge.cases]
        return {
            **task.ranked("alone", judge),
            **task.ranked("with prior", fused),
            "nats, with generation": round(float(beside.mean()), 4),
            "nats, with both": round(float(everything.mean()), 4),
            **gained(gain, users),
        }


def losses(logits: Sequence[torch.Tensor], steps: Sequence[Batch], gamma: float, beta: float) -> np.ndarray:
    """Negative log-probability of each target, nats. Shape ``(n,)``."""
    found = []
    for logit, step in zip(logits, steps, strict=True):
        cost = choice_losses(gamma * logit + beta * step.among.log_mass, step.among)
        found.append(torch.zeros(len(step.weight)).index_add(0, step.target, cost))
    return torch.cat(found).double().numpy()


def book_of(stage: str, settings: dict[str, Any]) -> Book:
    """Where rows are kept."""
    dataset = settings["dataset"]
    return Book(RESULTS / dataset / f"{stage}.json", stage=stage, dataset=dataset, settings=settings, say=click.echo)


def common(command: Any) -> Any:
    """What both commands take."""
    for option in (
        click.option("--cases", default=1200, show_default=True, help="Validation rows of each half."),
        click.option("--embedding", default="minilm-l6-v2", show_default=True, help="Encoder, and titles' vectors."),
    ):
        command = option(command)
    return options(command)


@click.group(help=__doc__)
def main() -> None:
    """Heads beside generation."""


@main.command("frozen")
@common
def frozen(data: Path, work: Path, **settings: Any) -> None:
    """Train heads on a model that stays as it is."""
    task, dataset, name = Task(data, **settings), settings["dataset"], settings["name"]
    folder = task.rows.model_folder if name == "untuned" else work / dataset / name / "merged"
    book = book_of(f"heads-{name}", settings)
    generation = Generation(task, lm := load_model(folder))
    book.add("no head", generation.no_head)
    readers: dict[str, tuple[Callable[[], list[list[Seen]]], tuple[str, ...]]] = {
        "": (
            lambda: [*generation.seen, read(lm, steps_of(task.rows, task.learned))],
            ("linear", "attention", "item tower"),
        ),
        "encoder, ": (
            lambda: [task.sentences(cases) for cases in (task.judge.cases, task.fit.cases, task.learned)],
            ("linear", "item tower"),
        ),
    }
    for reader, (reads, kinds) in readers.items():
        *halves, learned = reads()
        for kind in kinds:
            head, about = learn(task.head(kind, learned[0].now.shape[1]), learned, halves[1])
            found = generation.compare(head, halves)
            book.add(reader + kind, lambda found=found, about=about: found | about)


@main.command("together")
@common
@click.option("--steps", default=100, show_default=True, help="Optimizer steps of each LoRA.")
def together(data: Path, work: Path, steps: int, **settings: Any) -> None:
    """Train a LoRA and an item tower in the same steps: the tower's loss changes the model, or reads it alone.

    Towers begin with what the same steps teach them on the untuned model: one that knows nothing of a model would pull
    it anywhere (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).
    """
    task = Task(data, **settings)
    book = book_of("heads-together", {**settings, "steps": steps})
    planned = Steps(task.rows.people, task.rows.writing, HOW)
    shown_steps = [planned[i] for i in range(steps)]

    def judge(way: str, lm: Any, tower: torch.nn.Module | None) -> tuple[torch.nn.Module, list[np.ndarray]]:
        generation = Generation(task, lm)
        if tower is None:
            learned = read(lm, shown_steps)
            tower, _ = learn(task.head("item tower", learned[0].now.shape[1]), learned, generation.seen[1])
        book.add(way, generation.no_head)
        book.add(f"{way}, item tower", lambda: generation.compare(tower, generation.seen))
        own = -said(tower, generation.seen[0]).gather(1, task.judge.target[:, None])[:, 0].numpy()
        return tower, [generation.alone, own]

    first, _ = judge("untuned", load_model(task.rows.model_folder), None)
    found = []
    for way, pull in (("LoRA", 0.0), ("LoRA in one pass with it", 1.0)):
        tower = copy.deepcopy(first)
        found.append(judge(way, learn_together(task.rows, shown_steps, tower, pull), tower)[1])
    users = [case.user_id for case, _ in task.judge.cases]
    for what, apart, one_pass in zip(("generation", "item tower"), *found, strict=True):
        book.add(f"{what}, gained by one pass", lambda gain=apart - one_pass: gained(gain, users))


def gained(gain: np.ndarray, users: Sequence[str]) -> dict[str, Any]:
    """What is saved of each target's loss, nats."""
    return {"gained": round(float(gain.mean()), 4), "interval of that": [round(x, 4) for x in bootstrap(gain, users)]}


def learn_together(rows: Rows, steps: Sequence[Batch], head: torch.nn.Module, pull: float) -> Any:
    """Train a LoRA over the trie and a head in the same steps; how much the head's loss counts for the LoRA."""
    torch.manual_seed(HOW.seed)
    lm = adapt(load_model(rows.model_folder), "lora")

    def loss_of(step: Batch) -> torch.Tensor:
        packed, target = step.packed, torch.from_numpy(step.packed.target)
        hidden = hidden_before(lm, packed, torch.cat([step.index, torch.from_numpy(packed.position)]))
        choices, now = hidden[: len(step.index)], hidden[len(step.index) :].float()
        loss = trie_loss(choices, output_embeddings(lm).weight, step.among).sum() / len(target)
        now = pull * now + (1 - pull) * now.detach()
        return loss + torch.nn.functional.cross_entropy(head(Seen(now, target)), target)

    descend(steps, [lm, head], loss_of)
    return lm


def descend(
    steps: Sequence[Batch], modules: Sequence[torch.nn.Module], loss_of: Callable[[Batch], torch.Tensor]
) -> None:
    """Minimise a loss by what may change of some modules, as training does."""
    learned = [[p for p in module.train().parameters() if p.requires_grad] for module in modules]
    groups = [{"params": some} for some in learned]
    optimizer = torch.optim.AdamW(groups, lr=HOW.learning_rate, weight_decay=HOW.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(HOW.warmup * len(steps)), len(steps))
    for step in steps:
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        for some in learned:
            torch.nn.utils.clip_grad_norm_(some, HOW.clip)
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main()
