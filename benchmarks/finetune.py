"""What training buys: the untuned model, the prior, the tuned model and both together, on published test rows.

    python benchmarks/finetune.py train --data DIR --work WORK   # trains; run again to go on after a stop
    python benchmarks/finetune.py fit --data DIR --work WORK     # weighs model and prior on half of the validation
    python benchmarks/finetune.py test --data DIR --work WORK    # places the test rows' targets exactly; one look
    python benchmarks/finetune.py packing --work WORK            # what a second teaches, beside one prompt a target
    python benchmarks/finetune.py frozen --data DIR --work WORK  # what it saves to keep what frozen layers made of rows
    python benchmarks/finetune.py brief --data DIR --work WORK   # losses, methods and layers at equal steps
    python benchmarks/finetune.py page                           # writes training.md from what was measured

What DIR holds for each data set (`--dataset`) is said in rows.py. WORK keeps checkpoints and models; results go to
`benchmarks/results/<data set>`.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from rows import DATA, LOOKS, RESULTS, Rows, figures, followers, look, options

from genrec.bench.report import Book
from genrec.cli._common import peak_memory_mib
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import place, place_by_weight
from genrec.evaluation.metrics import difference
from genrec.events import Context
from genrec.finetune.options import Options
from genrec.history import History
from genrec.models import fingerprint
from genrec.prompt import render


@click.group(help=__doc__)
def main() -> None:
    """What training buys."""


@main.command("train")
@options
@click.option("--epochs", default=2.0, show_default=True)
@click.option("--rank", default=32, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--last-layers", type=int)
@click.option("--loss", type=click.Choice(["trie", "full-vocabulary"]), default="trie", show_default=True)
@click.option("--gamma", default=1.0, show_default=True, help="Weight of the model in the loss.")
@click.option("--beta", default=0.0, show_default=True, help="Weight of the prior in the loss.")
@click.option("--taught", default=0.0, show_default=True, help="Share of the loss that the prior teaches.")
@click.option("--max-steps", default=0, show_default=True)
@click.option("--step-tokens", default=1024, show_default=True)
@click.option("--seed", default=0, show_default=True)
def train_(dataset: str, data: Path, work: Path, model: str, name: str, **settings: Any) -> None:
    """Train a LoRA."""
    from genrec.finetune.merging import write_whole
    from genrec.finetune.methods import load_model
    from genrec.finetune.train import train

    rows = DATA[dataset](data, model)
    how = Options(save_every=20, **settings)
    lm = load_model(rows.model_folder)
    result = train(
        lm,
        rows.people,
        rows.writing,
        how,
        work / dataset / name / "checkpoints",
        mass_of=rows.held_out_mass if how.needs_prior else None,
        progress=True,
    )
    write_whole(result.model.merge_and_unload(), rows.model_folder, work / dataset / name / "merged")
    book = Book(
        RESULTS / dataset / f"train-{name}.json",
        stage=f"train-{name}",
        dataset=dataset,
        settings={"model": model, **settings},
        say=click.echo,
    )
    book.add(
        "train",
        lambda: {
            "seconds": round(result.seconds),
            "peak_mib": peak_memory_mib(),
            "steps": result.n_steps,
            "tokens_per_epoch": result.n_tokens,
            "targets_per_epoch": result.n_targets,
            "log": result.log,
        },
    )


def popularity(rows: Rows, before: list[History]) -> list[np.ndarray]:
    """How many people took each item."""
    counts = Counter(m.item_ids[0] for person in rows.people for m in person.moments)
    scores = np.array([counts[item] for item in rows.catalog.item_ids], np.float64)
    return [scores] * len(before)


def ease(rows: Rows, before: list[History]) -> list[np.ndarray]:
    """EASE (Steck 2019), lambda 100."""
    row = rows.catalog.row
    taken = np.zeros((len(rows.people), len(rows.catalog)), np.float32)
    for i, person in enumerate(rows.people):
        taken[i, [row[m.item_ids[0]] for m in person.moments]] = 1
    inverse = np.linalg.inv(taken.T @ taken + 100 * np.eye(taken.shape[1], dtype=np.float32))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return [weights[[row[m.item_ids[0]] for m in case.moments]].sum(0) for case in before]


WEIGHTS = ("gamma", "beta")
UNTRAINED: dict[str, Any] = {"prior": None, "popularity": popularity, "ease": ease}


live_option = click.option(
    "--live", is_flag=True, help="Let the prior count what was chosen before each row, as a running store would."
)


@main.command("fit")
@options
@click.option("--cases", default=1200, show_default=True, help="Validation rows of each half.")
@live_option
def fit_(dataset: str, data: Path, work: Path, model: str, name: str, cases: int, live: bool) -> None:
    """Fit the weights of model and prior to one half of the validation people; judge by the other."""
    import torch

    from genrec.finetune.methods import load_model
    from genrec.finetune.packing import Chooser
    from genrec.finetune.steps import batch
    from genrec.finetune.weighing import choice_logits, fit_weights, mean_loss

    rows = DATA[dataset](data, model)
    if live:
        rows.go_live()
    run = f"{name}-live" if live else name
    chooser, how = Chooser(rows.writing.encoded.trie), Options()
    book = Book(
        RESULTS / dataset / f"fit-{run}.json",
        stage=f"fit-{run}",
        dataset=dataset,
        settings={"model": model, "cases": cases},
        say=click.echo,
    )

    def weigh() -> dict[str, Any]:
        lm = load_model(work / dataset / name / "merged" if name != "untuned" else rows.model_folder)
        judged_steps, fitted_steps = (
            [batch(some[i : i + 40], chooser, how, mass_of=rows.mass) for i in range(0, len(some), 40)]
            for some in rows.halves(cases)
        )
        judged, fitted = choice_logits(lm, judged_steps), choice_logits(lm, fitted_steps)
        gamma, beta, loss = fit_weights(fitted, fitted_steps)
        others = {"prior": (0.0, 1.0), "model": (1.0, 0.0), "both": (gamma, beta)}
        nats = {key: round(mean_loss(judged, judged_steps, *weights), 4) for key, weights in others.items()}
        nats["both, weights by depth"] = more_weights(by_depth, fitted, fitted_steps, judged, judged_steps)
        if name != "untuned":
            lm = load_model(rows.model_folder)
            every = [*fitted_steps, *judged_steps]
            untuned = {id(step): logits for step, logits in zip(every, choice_logits(lm, every), strict=True)}
            nats["both, untuned taken away"] = more_weights(
                lambda logits, step: torch.stack([logits, step.among.log_mass, untuned[id(step)]], 1),
                *(fitted, fitted_steps, judged, judged_steps),
            )
        return {
            "gamma": round(gamma, 3),
            "beta": round(beta, 3),
            "fitted, nats": round(loss, 4),
            "held out, nats": nats,
        }

    book.add("weights", weigh)


def by_depth(logits: Any, step: Any) -> Any:
    """The model's and the prior's say at the first choice, the second and all later ones, apart."""
    import torch

    target = step.target.numpy()
    place = np.arange(len(target))
    nth = place - np.maximum.accumulate(np.where(np.diff(target, prepend=-1), place, 0))
    depth = torch.from_numpy(np.minimum(nth, 2))[step.among.choice]
    columns = [(depth == d) * side for d in range(3) for side in (logits, step.among.log_mass)]
    return torch.stack(columns, 1)


def more_weights(features: Any, fitted: Any, fitted_steps: Any, judged: Any, judged_steps: Any) -> float:
    """Held-out loss of a mixture with more weights than gamma and beta, nats a target."""
    import torch

    from genrec.finetune.loss import choice_losses

    made = [features(*pair) for pair in zip(fitted, fitted_steps, strict=True)]
    weights = torch.full((made[0].shape[1],), 0.3, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def mean(columns: Any, steps: Any) -> Any:
        found = [choice_losses(c @ weights, step.among).sum() for c, step in zip(columns, steps, strict=True)]
        return sum(found) / sum(len(step.weight) for step in steps)

    def again() -> Any:
        optimizer.zero_grad()
        loss = mean(made, fitted_steps)
        loss.backward()
        return loss

    optimizer.step(again)
    click.echo(f"weights {[round(w, 3) for w in weights.tolist()]}")
    with torch.no_grad():
        return round(float(mean([features(*pair) for pair in zip(judged, judged_steps, strict=True)], judged_steps)), 4)


@main.command("test")
@options
@click.option("--split", type=click.Choice(["valid", "test"]), default="test", show_default=True)
@click.option("--cases", default=0, show_default=True, help="So many rows, drawn by chance; all when 0.")
@click.option("--first", type=int, help="The first so many rows alone, such as those of the first round.")
@click.option("--engine", "engine_name", type=click.Choice(["vllm", "transformers"]), default="transformers")
@click.option("--ways", "every", default="prior,model,both", show_default=True, help="What to rank with.")
@click.option("--part", "share", default="0/1", show_default=True, help="1/2: place the second half of the rows alone.")
@live_option
def test_(
    dataset: str,
    data: Path,
    work: Path,
    model: str,
    name: str,
    split: str,
    cases: int,
    first: int | None,
    engine_name: str,
    every: str,
    share: str,
    live: bool,
) -> None:
    """Place the targets of published rows exactly."""
    from genrec.engines.transformers import TransformersEngine
    from genrec.engines.vllm import VllmEngine

    rows = DATA[dataset](data, model)
    if live:
        rows.go_live()
    run = f"{name}-live" if live else name
    everything = rows.cases(split)[:first]
    easy = followers(everything)
    numbers = random.Random(1).sample(range(len(everything)), cases) if cases else range(len(everything))
    chosen, follows = [everything[i] for i in numbers], np.array([i in easy for i in numbers])
    target = np.array([rows.catalog.row[case.moments[-1].item_ids[0]] for case in chosen])
    people = [case.user_id for case in chosen]
    book = Book(
        RESULTS / dataset / f"{split}-{run}.json",
        stage=f"{split}-{run}",
        dataset=dataset,
        settings={"model": model, "cases": len(chosen), "engine": engine_name},
        say=click.echo,
    )
    fits = [file for one in (run, name) if (file := RESULTS / dataset / f"fit-{one}.json").is_file()]
    ways = every.split(",")
    if "both" in ways and not fits:
        raise click.ClickException(f"nothing says how much {name} counts beside the prior: run the stage fit first")
    fitted = json.loads(fits[0].read_text())["rows"][0] if fits else {"gamma": 1.0, "beta": 1.0}
    asked = [way for way in ways if way not in UNTRAINED]
    if asked:
        folder = rows.model_folder if name == "untuned" else work / dataset / name / "merged"
        scorings = {"model": Scoring(name="masked"), "both": Scoring(name="fused", **{k: fitted[k] for k in WEIGHTS})}
        part, n_parts = (int(number) for number in share.split("/"))
        seconds, placed = place_all(
            rows,
            {n: everything[n] for n in numbers},
            {way: scorings[way] for way in asked},
            lambda: {"vllm": VllmEngine, "transformers": TransformersEngine}[engine_name](folder, model=name),
            work / dataset / name / (f"{split}-live" if live else split),
            (part, n_parts),
            fingerprint(folder),
        )
        if n_parts > 1:
            return

    def rank(way: str) -> dict[str, Any]:
        if way in asked:
            ranks = [placed[way][n] for n in numbers]
        else:
            log_masses = [rows.log_mass(case) for case in chosen]
            scores = log_masses if way == "prior" else UNTRAINED[way](rows, [case.before(-1) for case in chosen])
            lives = [rows.live(case) for case in chosen]
            ranks = [
                place_by_weight(score, t, live) for score, t, live in zip(scores, target.tolist(), lives, strict=True)
            ]
        found = np.array(ranks)
        said = {"both": f"fused, gamma {fitted['gamma']}, beta {fitted['beta']}", "model": "masked"}
        return {
            **figures(found, people, follows),
            "seconds": round(seconds) if way in asked else 0,
            "scoring": said.get(way, way),
            "ranks": ranks,
        }

    if split == "test":
        look(dataset, f"test-{run}: {every}", len(chosen))
    for way in ways:
        book.add(way, lambda way=way: rank(way))
    found = {row["name"]: row["ranks"] for row in book.rows if "ranks" in row}
    for better, than in (("both", "prior"), ("both", "model"), ("model", "prior")):
        if better in found and than in found:
            book.add(f"{better} - {than}", lambda a=better, b=than: difference(found[a], found[b], people))


def place_all(
    rows: Rows,
    cases: dict[int, History],
    scorings: dict[str, Scoring],
    start_engine: Callable[[], Any],
    folder: Path,
    share: tuple[int, int],
    model_key: str,
) -> tuple[float, dict[str, dict[int, int]]]:
    """Place the targets of cases under each scoring, exactly to 10; what was done before is taken from the folder.

    Args:
        rows: The data set.
        cases: By number.
        scorings: By name.
        start_engine: Starts an engine.
        folder: Where what is done is kept, so that a stopped run goes on and several can share the work.
        share: This process's share: which of how many.
        model_key: Tells the model from others.

    Returns:
        Seconds that it took in all, over all processes; places by scoring and number.
    """
    part, n_parts = share
    done: dict[str, dict[int, int]] = {way: {} for way in scorings}
    made = {"model": model_key, "prior": rows.prior.weights.round(6).tolist()}
    keys = {way: {**made, "scoring": asdict(scoring)} for way, scoring in scorings.items()}
    seconds = 0.0
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        kept = json.loads(file.read_text())
        same = [way for way in scorings if kept.get("keys", {}).get(way) == keys[way]]  # others are of another run
        seconds += kept["seconds"] if same else 0.0
        for way in same:
            done[way] |= {int(n): rank for n, rank in kept["ranks"][way].items()}
    blocks = [n for i, n in enumerate(cases) if i // 64 % n_parts == part]  # neighbours share much of their prompts
    mine = [n for n in blocks if any(n not in done[way] for way in scorings)]
    if not mine:
        return seconds, done
    writing, engine, started_s = rows.writing, start_engine(), time.perf_counter()
    new: dict[str, dict[int, int]] = {way: {} for way in scorings}
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{part}.json"
    try:
        for first in range(0, len(mine), 64):
            jobs, whose = [], []
            for n in mine[first : first + 64]:
                case, before, mass = cases[n], cases[n].before(-1), rows.log_mass(cases[n])
                ids = render(
                    writing.template,
                    before,
                    Context(),
                    writing.encoded,
                    writing.tokenizer,
                    words=writing.words,
                    max_tokens=writing.max_tokens,
                ).token_ids
                target = rows.catalog.row[case.moments[-1].item_ids[0]]
                for way in scorings:  # one after the other, so that the prompt is read once
                    how = {"scoring": scorings[way], "log_mass": mass, "live": rows.live(case)}
                    jobs.append((ids, place(writing.encoded.trie, target, within=10, **how)))
                    whose.append((way, n))
            for (way, n), rank in zip(whose, engine.run(jobs), strict=True):
                new[way][n] = done[way][n] = rank
            took = time.perf_counter() - started_s
            out.write_text(json.dumps({"seconds": took, "keys": keys, "ranks": new}))
            click.echo(f"{first + 64} of {len(mine)}, {took:.0f} s")
    finally:
        engine.close()
    return seconds + time.perf_counter() - started_s, done


@main.command("packing")
@options
@click.option("--steps", default=4, show_default=True, help="Steps of each way that are timed, in turns.")
def packing(dataset: str, data: Path, work: Path, model: str, name: str, steps: int) -> None:
    """Time what a second teaches: rows with every moment a target, and one prompt for each target."""
    import torch

    from genrec.finetune.methods import adapt, load_model
    from genrec.finetune.packing import pack
    from genrec.finetune.steps import Steps, batch, target_losses

    rows, how = DATA[dataset](data, model), Options(epochs=1)
    whole = Steps(rows.people, rows.writing, how)
    rng = random.Random(0)
    single = []
    for person in rng.sample(rows.people, min(len(rows.people), 40 * steps)):
        end = rng.randrange(len(person.moments))
        single.append(rows.last(replace(person, moments=person.moments[: end + 1])))
    learner = adapt(load_model(rows.model_folder), "lora", n_steps=2 * steps)
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-4)

    def learn(some: list[Any]) -> tuple[float, int, int]:
        started_s = time.perf_counter()
        step = batch(some, whole.chooser, how)
        target_losses(learner, step, how).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started_s, len(step.weight), len(step.packed.token_ids)

    def alone() -> list[Any]:
        some = [single.pop()]
        while single and len(pack([row for _, row in [*some, single[-1]]]).token_ids) <= how.step_tokens:
            some.append(single.pop())
        return some

    figures: dict[str, list[tuple[float, int, int]]] = {"packed": [], "one prompt a target": []}
    for i in range(steps + 1):
        packed = learn([whole.rows[j] for j in whole.steps[i]])
        apart = learn(alone())
        if i:  # the first of each warms up
            figures["packed"].append(packed)
            figures["one prompt a target"].append(apart)
    book = Book(
        RESULTS / dataset / "packing.json",
        stage="packing",
        dataset=dataset,
        settings={"model": model, "steps": steps},
        say=click.echo,
    )
    for way, found in figures.items():
        seconds, targets, tokens = (sum(column) for column in zip(*found, strict=True))
        rate = {"targets_per_s": round(targets / seconds, 2), "tokens_per_s": round(tokens / seconds, 1)}
        book.add(way, lambda rate=rate: rate)


@main.command("frozen")
@options
@click.option("--people", "n_people", default=100, show_default=True, help="So many of them, all their rows.")
@click.option("--last-layers", default=12, show_default=True, help="The layers that learn.")
@click.option("--epochs", default=3, show_default=True)
def frozen_(
    dataset: str, data: Path, work: Path, model: str, name: str, n_people: int, last_layers: int, epochs: int
) -> None:
    """Time steps that take what the frozen layers made of a row from disk, and steps that compute it, in turns."""
    from contextlib import closing

    import torch

    from genrec.finetune.frozen import Frozen
    from genrec.finetune.methods import adapt, load_model
    from genrec.finetune.steps import Steps, target_losses

    rows = DATA[dataset](data, model)
    how = Options(epochs=epochs, step_tokens=1024, last_layers=last_layers)
    steps = Steps(rows.people[:n_people], rows.writing, how)
    learner = adapt(load_model(rows.model_folder), "lora", last_layers=last_layers)
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-4)
    n_each = len(steps) // epochs
    book = Book(
        RESULTS / dataset / f"frozen-{last_layers}.json",
        stage=f"frozen-{last_layers}",
        dataset=dataset,
        settings={"model": model, "people": n_people, "step_tokens": how.step_tokens},
        say=click.echo,
    )

    def learn(step: Any, frozen: Frozen | None) -> float:
        started_s = time.process_time()
        target_losses(learner, step, how, frozen).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - started_s

    seen: set[bytes] = set()

    def epoch(i: int, frozen: Frozen) -> dict[str, Any]:
        found, come_again = [], []
        for j in range(i * n_each, (i + 1) * n_each):
            ids = [steps.rows[row][1].token_ids.tobytes() for row in steps.steps[j]]
            come_again += [one in seen for one in ids]
            seen.update(ids)
            found.append((learn(steps[j], frozen), learn(steps[j], None)))
        kept, computed = np.mean(found, axis=0)
        return {
            "rows seen before": round(float(np.mean(come_again)), 3),
            "CPU seconds a step": round(kept, 3),
            "all computed": round(computed, 3),
            "kept / computed": round(kept / computed, 3),
        }

    learn(steps[0], None)  # the first warms up
    work.mkdir(parents=True, exist_ok=True)
    with closing(Frozen((row.token_ids for _, row in steps.rows), work)) as frozen:
        for i in range(epochs):
            book.add(f"epoch {i + 1}", lambda i=i: epoch(i, frozen))


BRIEF: dict[str, dict[str, Any]] = {
    "LoRA, loss over the trie": {},
    "LoRA, loss over the whole vocabulary": {"loss": "full-vocabulary"},
    "LoRA, yes or no to each branch": {"loss": "binary"},
    "LoRA beside the prior, gamma .3": {"gamma": 0.3, "beta": 0.7},
    "LoRA beside the prior, gamma .3, scale / gamma": {"gamma": 0.3, "beta": 0.7, "alpha": 32 / 0.3},
    "LoRA, texts of items first": {"domain_epochs": 0.2},
    "LoRA, half taught by the prior": {"taught": 0.5},
    "LoRA, last 24 layers of 30": {"last_layers": 24},
    "LoRA, last 18 layers": {"last_layers": 18},
    "LoRA, last 12 layers": {"last_layers": 12},
    "AdaLoRA": {"method": "adalora"},
    "bottlenecks of 32": {"method": "bottleneck"},
    "prefix of 16": {"method": "prefix", "rank": 16, "learning_rate": 1e-2},
    "all weights": {"method": "full", "learning_rate": 1e-4},
    "LoRA, 2,048 tokens a step": {"step_tokens": 2048},
}
"""What is compared at equal steps, by name: options that differ from the first."""


@main.command("brief")
@options
@click.option("--steps", default=40, show_default=True, help="Optimizer steps of each way.")
@click.option("--cases", default=400, show_default=True, help="Validation rows that judge; as many others fit weights.")
@click.option("--row", type=click.Choice(list(BRIEF)), help="One way alone; all when omitted, a process for each.")
def brief(data: Path, work: Path, steps: int, cases: int, row: str | None, **rest: Any) -> None:
    """Compare losses, methods and layers at an equal number of steps."""
    import shutil
    import subprocess
    import sys

    from genrec.finetune.methods import load_model
    from genrec.finetune.packing import Chooser
    from genrec.finetune.steps import batch
    from genrec.finetune.train import train
    from genrec.finetune.weighing import choice_logits, fit_weights, mean_loss

    dataset, model = rest["dataset"], rest["model"]
    if row is None:
        for one in BRIEF:
            subprocess.run([sys.executable, *sys.argv, "--row", one], check=False)
        return
    book = Book(
        RESULTS / dataset / "brief.json",
        stage="brief",
        dataset=dataset,
        settings={"model": model, "steps": steps, "cases": cases, "step_tokens": 1024},
        say=click.echo,
    )
    if not book.lacks(row):
        return
    rows = DATA[dataset](data, model)
    how = Options(**({"epochs": 1.0, "step_tokens": 1024, "max_steps": steps, "save_every": 10**6} | BRIEF[row]))
    chooser = Chooser(rows.writing.encoded.trie)

    def measure() -> dict[str, Any]:
        folder = work / dataset / "brief"
        shutil.rmtree(folder, ignore_errors=True)
        mass_of = rows.held_out_mass if how.needs_prior else None
        began_s = time.process_time()
        result = train(load_model(rows.model_folder), rows.people, rows.writing, how, folder, mass_of=mass_of)
        learned = sum(p.numel() for p in result.model.parameters() if p.requires_grad)
        seconds = round(time.process_time() - began_s)
        figures = {"trainable": learned, "CPU seconds": seconds, "peak_mib": peak_memory_mib()}
        judged_steps, fitted_steps = (
            [batch(some[i : i + 20], chooser, Options(), mass_of=rows.mass) for i in range(0, len(some), 20)]
            for some in rows.halves(cases)
        )
        judged, fitted = (choice_logits(result.model, some) for some in (judged_steps, fitted_steps))
        gamma, beta, _ = fit_weights(fitted, fitted_steps)
        nats = {"model": (1.0, 0.0), "both": (gamma, beta), "prior": (0.0, 1.0)}
        figures |= {f"nats, {way}": round(mean_loss(judged, judged_steps, *w), 3) for way, w in nats.items()}
        return figures | {"gamma": round(gamma, 2), "beta": round(beta, 2)}

    book.add(row, measure)


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


@main.command("page")
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
            if stem.startswith("train-"):
                curves[f"{dataset}, {stem.removeprefix('train-')}"] = rows[0]["log"]
    (RESULTS.parent / "training.md").write_text("\n".join(pieces), encoding="utf-8")
    if curves:
        _plot(curves, RESULTS.parent / "training.svg")


def _rows(stem: str, rows: list[dict[str, Any]]) -> str:
    """The rows of one unit as Markdown."""
    if stem.startswith("train-"):
        [row] = rows
        tokens, targets, losses = row["tokens_per_epoch"], row["targets_per_epoch"], [x["loss"] for x in row["log"]]
        return (
            f"{row['steps']} steps in {row['seconds'] / 60:.0f} minutes; an epoch is {tokens:,} tokens and {targets:,} "
            f"targets; loss {losses[0]:.2f} → {losses[-1]:.2f} nats a target."
        )
    lines = []
    ranked = [row for row in rows if "interval" in row]
    if ranked:
        lines += [
            "|  | HR@1 | HR@10 | NDCG@10 | n | HR@10, follows | HR@10, does not |",
            "|---|---|---|---|---:|---:|---:|",
        ]
        for row in ranked:
            cells = [f"{row[m]:.4f} [{row['interval'][m][0]:.3f}, {row['interval'][m][1]:.3f}]" for m in FIGURES]
            slices = [f"{row[part]['HR@10']:.3f}" if row.get(part) else "–" for part in ("follows_another", "does_not")]
            lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['n']:,} | {' | '.join(slices)} |")
        for row in rows:
            if "interval" not in row and "HR@1" in row:
                parts = [
                    f"{m} {row[m]['difference']:+.4f} [{row[m]['interval'][0]:+.4f}, {row[m]['interval'][1]:+.4f}]"
                    + (" (tied)" if row[m]["tied"] else "")
                    for m in FIGURES
                ]
                lines.append(f"\n{row['name']}: {', '.join(parts)}.")
        return "\n".join(lines)
    rows = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "name"))
    lines += [f"|  | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [f"| {row['name']} | {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows]
    return "\n".join(lines)


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


if __name__ == "__main__":
    main()
