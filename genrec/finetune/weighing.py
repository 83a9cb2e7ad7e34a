"""How much model and prior should count, by the targets of some steps that neither learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from genrec.finetune.loss import choice_losses, logits_of
from genrec.finetune.methods import hidden_before, output_embeddings
from genrec.finetune.steps import Batch


def choice_logits(model: Any, steps: Sequence[Batch]) -> list[torch.Tensor]:
    """The model's logits of all alternatives of some steps, for fitting how much it should count.

    Returns:
        For each step, shape ``(n_alternatives,)``, float32.
    """
    model.eval()
    output = output_embeddings(model).weight
    found = []
    with torch.no_grad():
        for step in steps:
            assert step.among is not None
            found.append(logits_of(hidden_before(model, step.packed, step.index), output, step.among).cpu())
    return found


def fit_weights(logits: Sequence[torch.Tensor], steps: Sequence[Batch]) -> tuple[float, float, float]:
    """Weights of the model and of the prior under which some targets are likeliest.

    Args:
        logits: What `choice_logits` gave.
        steps: The same steps, with a prior.

    Returns:
        gamma, beta, neither below 0, and the mean negative log-probability of a target under them, nats.
    """
    weights = torch.tensor([0.3, 0.7], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def again() -> torch.Tensor:
        optimizer.zero_grad()
        loss = _mean_loss(logits, steps, weights[0], weights[1])
        loss.backward()
        return loss

    optimizer.step(again)
    gamma, beta = weights.tolist()
    gamma, beta = (0.0, 1.0) if gamma < 0 else (gamma, max(beta, 0.0))  # a model that is wrong has no say
    return gamma, beta, mean_loss(logits, steps, gamma, beta)


def mean_loss(logits: Sequence[torch.Tensor], steps: Sequence[Batch], gamma: float, beta: float) -> float:
    """Mean negative log-probability of a target under some weights of the model and the prior, nats.

    Args:
        logits: What `choice_logits` gave.
        steps: The same steps, with a prior.
        gamma: Weight of the model.
        beta: Weight of the prior.
    """
    return float(_mean_loss(logits, steps, torch.tensor(gamma), torch.tensor(beta)))


def _mean_loss(
    logits: Sequence[torch.Tensor], steps: Sequence[Batch], gamma: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    total = torch.zeros(())
    for logit, step in zip(logits, steps, strict=True):
        assert step.among is not None
        assert step.among.log_mass is not None
        total = total + choice_losses(gamma * logit + beta * step.among.log_mass, step.among).sum()
    return total / sum(len(step.weight) for step in steps)
