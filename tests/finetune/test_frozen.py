"""What frozen layers made of a row is used again, and changes nothing about losses and gradients."""

from __future__ import annotations

import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genrec.finetune.frozen import Frozen
from genrec.finetune.methods import adapt, hidden_below, load_model
from genrec.finetune.options import Options
from genrec.finetune.packing import Packed, Writing
from genrec.finetune.steps import Steps, target_losses
from tests.support.people import learners

OPTIONS = Options(rank=4, epochs=3, step_tokens=400, learning_rate=1e-2, last_layers=1)


def losses_and_gradients(model: Any, step: Any, frozen: Frozen | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    losses = target_losses(model, step, OPTIONS, frozen)
    losses.mean().backward()
    return losses, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_and_gradients_are_those_of_the_whole_model(
    writing: Writing, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    steps = Steps(learners(), writing, OPTIONS)
    model = adapt(load_model(tiny_model, dtype="float32"), method, rank=4, last_layers=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01  # LoRA's own beginning would hide what lies below from its gradients
    with closing(Frozen((row.token_ids for _, row in steps.rows), tmp_path)) as frozen:
        for i in range(len(steps)):
            found, expected = (losses_and_gradients(model, steps[i], using) for using in (frozen, None))
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("has_room", [True, False])
def test_a_row_is_computed_once_where_there_is_room(
    writing: Writing, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    if not has_room:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    steps = Steps(learners(), writing, OPTIONS)
    model = adapt(load_model(tiny_model, dtype="bfloat16"), "lora", rank=4, last_layers=1)
    whole, n_read = partial(hidden_below, model), 0

    def compute(packed: Packed) -> torch.Tensor:
        nonlocal n_read
        n_read += len(packed.lengths) - 1
        return whole(packed)

    with closing(Frozen((row.token_ids for _, row in steps.rows), tmp_path)) as frozen:
        for i in range(len(steps)):
            packed = steps[i].packed
            found = frozen.below(packed, compute)
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found, whole(packed), atol=2e-2, rtol=2e-2)
        assert not list(tmp_path.iterdir()), "the file has no name, so it goes with the process"
    n_different = len({row.token_ids.tobytes() for _, row in steps.rows})
    assert n_different < 0.7 * len(steps.rows)
    assert n_read == (n_different if has_room else len(steps.rows))
