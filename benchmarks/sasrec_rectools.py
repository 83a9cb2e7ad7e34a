"""One SASRec by RecTools, from plain files to ranks; `sasrec.py` runs it with an interpreter that has RecTools.

    python sasrec_rectools.py DATA.json JOB RESULT.json

Knows nothing of genrec. The job, in JSON, has RecTools' settings, a seed, the split whose targets are placed, and
epochs: after how many to look each time, how many at most, and how many without a gain are enough. The result is of the
look with the best NDCG@10.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np


def main(data_file: str, asked: str, result_file: str) -> None:
    """Train as the job says, place the targets of its split and write the result."""
    import pandas as pd
    from pytorch_lightning import seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    started_s = time.perf_counter()
    job, data = json.loads(asked), json.loads(Path(data_file).read_text(encoding="utf-8"))
    events = [(n, item, 1, at) for n, items in enumerate(data["train"]) for at, item in enumerate(items)]
    frame = pd.DataFrame(events, columns=[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime])
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="s")
    dataset = Dataset.construct(frame)
    popularity = Counter(frame[Columns.Item])

    seed_everything(job["seed"])
    model = SASRecModel.from_config(job["settings"])
    best: dict[str, Any] = {"epochs": 0, "NDCG@10": -1.0}
    log = []
    for epochs in range(job["every"], job["epochs"] + 1, job["every"]):
        model.fit_partial(dataset, min_epochs=job["every"], max_epochs=job["every"])
        ranks = place_all(model, data[job["split"]], data["items"], popularity)
        gain = float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean())
        log.append([epochs, round(gain, 4)])
        if gain > best["NDCG@10"]:
            best = {"epochs": epochs, "NDCG@10": gain, "ranks": ranks.tolist()}
        elif epochs - best["epochs"] >= job["patience"]:
            break
    seconds = round(time.perf_counter() - started_s, 1)
    Path(result_file).write_text(json.dumps({**best, "log": log, "seconds": seconds}), encoding="utf-8")


def place_all(model: Any, cases: list[dict[str, Any]], items: list[str], popularity: Counter[str]) -> np.ndarray:
    """The place of each case's target in the whole catalogue. Shape ``(n_cases,)``.

    An item that nobody was trained on comes after all others. Where nothing of a history is known, popularity ranks.
    """
    import torch

    network, id_map = model.torch_model.eval(), model.data_preparator.item_id_map
    number = {item: n for n, item in enumerate(id_map.external_ids)}  # 0 is the padding
    column = {item: n for n, item in enumerate(items)}
    known = [column[item] for item in model.data_preparator.get_known_item_ids()]
    popular = np.array([popularity[item] for item in items], np.float32)
    length, ranks = model.session_max_len, []
    for first in range(0, len(cases), 256):
        some = cases[first : first + 256]
        x = torch.zeros(len(some), length, dtype=torch.int64)
        for line, case in zip(x, some, strict=True):
            if history := [number[item] for item in case["history"] if item in number][-length:]:
                line[-len(history) :] = torch.tensor(history)
        with torch.no_grad():
            vectors = network.item_model.get_all_embeddings()
            now = network.encode_sessions({"x": x}, vectors)[:, -1]
            logits = network.similarity_module(now, vectors)[:, len(vectors) - len(known) :].numpy()
        scores = np.full((len(some), len(items)), -np.inf, np.float32)
        scores[:, known] = logits
        scores[~(x != 0).any(1).numpy()] = popular
        for row, case in zip(scores, some, strict=True):
            ranks.append(place(row, column[case["target"]], [column[item] for item in case["seen"]]))
    return np.array(ranks)


def place(scores: np.ndarray, target: int, seen: list[int]) -> int:
    """How many items stand above one, from 0; of those with the same score half do.

    Args:
        scores: Of every item; changed. Shape ``(n_items,)``.
        target: The item.
        seen: Items that are not ranked.
    """
    scores[seen] = np.nan  # neither above nor the same
    same = int((scores == scores[target]).sum()) - 1
    return int((scores > scores[target]).sum()) + same // 2


if __name__ == "__main__":
    main(*sys.argv[1:])
