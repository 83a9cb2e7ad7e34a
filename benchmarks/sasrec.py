"""The strong trained baseline: SASRec (Kang and McAuley 2018) with softmax over the whole catalogue.

    python benchmarks/sasrec.py --data DIR --work WORK
    python benchmarks/sasrec.py --data DIR --work WORK --dataset movielens-100k

Trains what `finetune.py train` trains on, with RecTools' implementation; tunes it on validation rows, one setting after
the other; places the targets of the test rows once, with five seeds; and writes paired differences to all rows that
`finetune.py test` has left for the data set. Half of the items with a target's score stand above it; items that nobody
was trained on have no score and come last, as one tie. DIR and the data sets: see `finetune.py`. WORK keeps RecTools in
an environment of its own, made when it is missing, and the outcome of every training, so that a stopped run goes on.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from protocols import DATA
from rows import RESULTS, Rows, figures, followers
from rows import look as note_look

from genrec.bench.report import Book
from genrec.evaluation.metrics import difference
from genrec.history import History

HERE = Path(__file__).parent
REQUIREMENTS, RUNNER = HERE / "sasrec-requirements.txt", HERE / "sasrec_rectools.py"
START = {"n_factors": 128, "n_blocks": 2, "dropout_rate": 0.2, "lr": 0.001}
GRID: dict[str, tuple[float, ...]] = {
    "lr": (0.003,),
    "dropout_rate": (0.5,),
    "n_factors": (64, 256),
    "n_blocks": (1,),
}
"""What else is tried of each setting, one after the other, the others being the best so far."""
EPOCHS = {"every": 5, "epochs": 100, "patience": 10}
"""How often validation is looked at, how long at most, and when no better look is waited for."""


@click.command(help=__doc__)
@click.option("--dataset", type=click.Choice(list(DATA)), default="amazon-industrial", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), default="../shared/data", show_default=True)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Keeps the environment and the results.")
@click.option(
    "--tune", type=click.Choice(list(GRID)), multiple=True, default=list(GRID), help="Which settings; all when omitted."
)
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
def main(dataset: str, data: Path, work: Path, tune: tuple[str, ...], seeds: int) -> None:
    """Tune SASRec, place the test rows' targets, and say how far it is from ours."""
    rows = DATA[dataset](data, "smollm2-135m")
    python, folder = environment(work / "rectools"), work / dataset
    folder.mkdir(parents=True, exist_ok=True)
    plain = plain_data(rows)
    (folder / "data.json").write_text(json.dumps(plain), encoding="utf-8")
    fixed = {"loss": "softmax", "session_max_len": max(map(len, plain["train"]))}
    pinned = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    book = Book(
        RESULTS / dataset / "sasrec.json",
        stage="sasrec",
        dataset=dataset,
        settings={**fixed, "validation": EPOCHS, "tuned": tune, "seeds": seeds, "requirements": pinned},
        say=click.echo,
    )

    def run(chosen: dict[str, float], **job: Any) -> dict[str, Any]:
        return trained(python, folder, {"settings": {**fixed, **chosen}, **job})

    def look(chosen: dict[str, float]) -> dict[str, Any]:
        result = run(chosen, seed=0, split="valid", **EPOCHS)
        said = {key: result[key] for key in ("epochs", "seconds", "log")}
        name = f"valid, {', '.join(f'{key} {value}' for key, value in chosen.items())}"
        book.add(name, lambda: {"NDCG@10, valid": round(result["NDCG@10"], 4), **said})
        return result

    best, found = START, look(START)
    for key in tune:
        for value in GRID[key]:
            tried = look({**best, key: value})
            if tried["NDCG@10"] > found["NDCG@10"]:
                best, found = {**best, key: value}, tried

    cases, n_epochs = rows.cases("test"), found["epochs"]
    note_look(dataset, f"sasrec, {seeds} seeds", len(cases))
    people, easy = [case.user_id for case in cases], followers(cases)
    follows = np.array([n in easy for n in range(len(cases))])
    ranks, single = [], []
    for seed in range(seeds):
        result = run(best, seed=seed, split="test", every=n_epochs, epochs=n_epochs, patience=0)
        judged = figures(np.array(result["ranks"]), people, follows)
        row = {**judged, **best, **{key: result[key] for key in ("epochs", "seconds", "ranks")}}
        book.add(f"sasrec, seed {seed}", lambda row=row: row)
        ranks += result["ranks"]
        single.append(judged)
    everyone = people * seeds  # so that an interval draws a person with all seeds
    spread = {m: round(float(np.std([row[m] for row in single])), 4) for m in ("HR@1", "HR@10", "NDCG@10")}
    mean = figures(np.array(ranks), everyone, np.tile(follows, seeds))
    book.add(f"sasrec, mean of {seeds}", lambda: {**mean, "n": len(cases), "deviation": spread})
    for name, ours in placed(dataset, len(cases)):
        book.add(f"{name} - sasrec", lambda ours=ours: difference(ours * seeds, ranks, everyone))


def environment(folder: Path) -> Path:
    """The interpreter of an environment with RecTools, which is made unless it is there."""
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if not done.is_file() or done.read_text() != REQUIREMENTS.read_text():
        click.echo(f"installing RecTools into {folder}, some minutes, once", err=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS], check=True)
        done.write_text(REQUIREMENTS.read_text())
    return python


def plain_data(rows: Rows) -> dict[str, Any]:
    """A data set as item ids: all items, the cases of validation and test, and what is learned from."""
    items = np.array(rows.catalog.item_ids)

    def plain(case: History) -> dict[str, Any]:
        *history, target = items_of(case)
        live = rows.live(case)
        return {"history": history, "target": target, "seen": [] if live is None else items[~live].tolist()}

    found: dict[str, Any] = {split: [plain(case) for case in rows.cases(split)] for split in ("valid", "test")}
    return {"items": items.tolist(), "train": [items_of(person) for person in rows.people], **found}


def items_of(history: History) -> list[str]:
    """What someone took, in order."""
    return [moment.item_ids[0] for moment in history.moments]


def trained(python: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The result of a job, from an earlier run if there is one with the same code, data and settings."""
    data, asked = folder / "data.json", json.dumps(job)
    made = b"\n".join([RUNNER.read_bytes(), data.read_bytes(), asked.encode()])
    result = folder / f"{hashlib.blake2b(made, digest_size=8).hexdigest()}.json"
    if not result.is_file():
        ran = subprocess.run([python, RUNNER, data, asked, result], capture_output=True, text=True)
        if ran.returncode:
            raise click.ClickException(f"RecTools failed with {asked}:\n{ran.stderr[-2000:]}")
    read: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return read


def placed(dataset: str, n_cases: int) -> Iterator[tuple[str, list[int]]]:
    """Rows of `finetune.py test` that place all cases: their names and ranks."""
    for file in sorted((RESULTS / dataset).glob("test-*.json")):
        for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
            if len(row.get("ranks", ())) == n_cases:
                yield f"{row['name']} ({file.stem.removeprefix('test-')})", row["ranks"]


if __name__ == "__main__":
    main()
