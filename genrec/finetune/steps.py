"""People as steps: all that is read, in which order, and what is to be chosen where.

All steps of all epochs are planned before the first, from the seed alone, so that a run that was cut off goes on with
the data that would have come next. Knows rows and the loss; knows nothing of optimizers or checkpoints.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from genrec.errors import TrainingError
from genrec.finetune.frozen import Frozen
from genrec.finetune.loss import (
    Alternatives,
    alternatives,
    binary_losses,
    choice_losses,
    full_vocabulary,
    trie_loss,
)
from genrec.finetune.methods import hidden_before, hidden_below, output_embeddings
from genrec.finetune.options import Options
from genrec.finetune.packing import Chooser, Packed, Writing, pack, plan
from genrec.history import History
from genrec.prompt import Row

MassOf = Callable[[History, int], np.ndarray]
"""Prior probability of each catalogue row before a person's moment, given by its index; shape ``(n_items,)``."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step: what is read, and what is to be chosen."""

    packed: Packed
    index: torch.Tensor
    """Place before each choice. Shape ``(n_choices,)``."""
    among: Alternatives | None
    """What can be chosen; None for the whole vocabulary."""
    token: torch.Tensor
    """Token that was chosen. Shape ``(n_choices,)``."""
    target: torch.Tensor
    """Which target each choice belongs to. Shape ``(n_choices,)``."""
    weight: torch.Tensor
    """Weight of each target. Shape ``(n_targets,)``, float32."""


class Steps(torch.utils.data.Dataset):  # type: ignore[misc]
    """All steps of all epochs, in order.

    Args:
        people: Who is learned from.
        writing: How they are written.
        options: How to train.
        weight_of: Weight of a person's moment, given by its index; 1 when omitted.
        mass_of: Prior probabilities; needed where `options.needs_prior`.
    """

    def __init__(
        self,
        people: Sequence[History],
        writing: Writing,
        options: Options,
        *,
        weight_of: Callable[[History, int], float] | None = None,
        mass_of: MassOf | None = None,
    ) -> None:
        self.options, self.weight_of, self.mass_of = options, weight_of, mass_of
        self.chooser = Chooser(writing.encoded.trie)
        self.texts: list[np.ndarray] = []
        self.text_steps: list[list[int]] = []
        self.rows: list[tuple[History, Row]] = []
        self.steps: list[list[int]] = []
        self.n_tokens = self.n_targets = 0
        if options.domain_epochs:
            self.texts = list(writing.texts())
        for epoch in range(math.ceil(options.domain_epochs)):
            rng = random.Random(f"{options.seed} texts {epoch}")
            steps = plan([len(ids) for ids in self.texts], options.step_tokens, rng)
            self.text_steps += _part(steps, options.domain_epochs - epoch)
        for epoch in range(math.ceil(options.epochs)):
            rows = [
                (person, row)
                for person in people
                for row in writing.rows(person, random.Random(f"{options.seed} {epoch} {person.user_id}"))
            ]
            if not rows:
                raise TrainingError("there is nothing to learn: nobody has an item that the catalogue knows")
            rng = random.Random(f"{options.seed} {epoch}")
            n_shared = pack([row for _, row in rows[:200]]).lengths[0]
            steps = plan([len(row.token_ids) for _, row in rows], options.step_tokens, rng, n_shared=n_shared)
            self.steps += [[len(self.rows) + i for i in step] for step in _part(steps, options.epochs - epoch)]
            self.rows += rows
            if not epoch:
                self.n_targets = sum(len(row.target) for _, row in rows)
                self.n_tokens = sum(len(row.token_ids) - n_shared for _, row in rows) + n_shared * len(steps)

    @property
    def run(self) -> dict[str, Any]:
        """What decides the course of a run, to tell it from others."""
        ids = hashlib.blake2b(digest_size=8)
        for text in self.texts:
            ids.update(text.tobytes())
        for person, row in self.rows:
            ids.update(person.user_id.encode() + row.token_ids.tobytes())
        chosen = {key: value for key, value in asdict(self.options).items() if key not in ("save_every", "report_to")}
        return chosen | {"data": ids.hexdigest(), "genrec": version("genrec")}

    def __len__(self) -> int:
        return len(self.text_steps) + len(self.steps)

    def __getitem__(self, step: int) -> Batch:
        if step < len(self.text_steps):
            return text_batch([self.texts[i] for i in self.text_steps[step]])
        chosen = [self.rows[i] for i in self.steps[step - len(self.text_steps)]]
        return batch(chosen, self.chooser, self.options, weight_of=self.weight_of, mass_of=self.mass_of)


def batch(
    rows: Sequence[tuple[History, Row]],
    chooser: Chooser,
    options: Options,
    *,
    weight_of: Callable[[History, int], float] | None = None,
    mass_of: MassOf | None = None,
) -> Batch:
    """Make a step of some rows."""
    packed = pack([row for _, row in rows])
    whose = [(person, int(moment)) for person, row in rows for moment in row.moment]
    weight = [weight_of(*one) if weight_of else 1.0 for one in whose]
    if options.loss != "full-vocabulary":
        choices = chooser.to(packed.target)
        if options.needs_prior and mass_of is None:
            raise TrainingError("a loss with a prior in it needs the prior")
        masses = None if mass_of is None else [mass_of(*one) for one in whose]
        among = alternatives(chooser.trie, choices, masses)
        token = among.tokens[among.column[among.chosen]]
        index, target = packed.at(choices), choices.target
    else:
        among = None
        lengths = [len(chooser.trie.path(int(row))) for row in packed.target]
        target = np.repeat(np.arange(len(lengths)), lengths)
        depth = np.arange(len(target)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        after = packed.depth_step[target] + depth
        token = torch.from_numpy(packed.token_ids[after])
        index = np.where(depth == 0, packed.position[target], after - 1)
    return Batch(
        packed=packed,
        index=torch.from_numpy(index),
        among=among,
        token=token,
        target=torch.from_numpy(target),
        weight=torch.tensor(weight, dtype=torch.float32),
    )


def text_batch(texts: Sequence[np.ndarray]) -> Batch:
    """Make a step of some texts' ids, each of which is to be told from those before it."""
    lengths = np.array([len(ids) for ids in texts])
    flat = np.concatenate(texts).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(flat)) - np.repeat(starts, lengths)
    after = np.flatnonzero(place > 0)
    nothing = np.empty(0, np.int64)
    packed = Packed(
        token_ids=flat,
        position_ids=place,
        lengths=(0, *lengths.tolist()),
        position=nothing,
        depth_step=nothing,
        target=nothing,
        of=nothing,
    )
    return Batch(
        packed=packed,
        index=torch.from_numpy(after - 1),
        among=None,
        token=torch.from_numpy(flat[after]),
        target=torch.from_numpy(np.repeat(np.arange(len(texts)), lengths)[after]),
        weight=torch.ones(len(texts)),
    )


def _part(steps: list[list[int]], share: float) -> list[list[int]]:
    """The first of some steps."""
    return steps[: max(1, round(min(1.0, share) * len(steps)))]


def target_losses(model: Any, step: Batch, options: Options, frozen: Frozen | None = None) -> torch.Tensor:
    """What each target costs, nats; by the loss over the trie its negative log-probability. Shape ``(n_targets,)``."""
    below = None if frozen is None else frozen.below(step.packed, partial(hidden_below, model))
    hidden = hidden_before(model, step.packed, step.index, below=below)
    output = output_embeddings(model).weight
    if step.among is None:
        losses = full_vocabulary(hidden, output, step.token.to(hidden.device))
    else:
        losses = trie_loss(
            hidden,
            output,
            step.among.to(hidden.device),
            temperature=options.temperature,
            gamma=options.gamma,
            beta=options.beta,
            taught=options.taught,
            losses=binary_losses if options.loss == "binary" else choice_losses,
        )
    found = torch.zeros(len(step.weight), device=losses.device)
    return found.index_add(0, step.target.to(losses.device), losses)


def held_out_losses(model: Any, steps: Sequence[Batch], options: Options) -> np.ndarray:
    """Negative log-probability of each target of some steps, nats. Shape ``(n_targets,)``."""
    options = replace(options, taught=0.0)  # what was chosen is asked for, whoever teaches
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return np.concatenate([target_losses(model, step, options).cpu().numpy() for step in steps])
    finally:
        model.train(was_training)
