"""What a target costs: cross-entropy over what the trie allows, from the rows of the output matrix that this needs.

A target's loss is the sum over the choices on the way to it, each normalised over the children of its node, so it is
the negative log-probability of the item under `masked` scoring; with a prior, under `fused`. The whole vocabulary is
never looked at, except by `full_vocabulary`, which is kept to compare with. Knows tensors and tries, no prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genrec.finetune.packing import Choices
from genrec.trie import AnyTrie

_ROWS = 256  # positions whose whole vocabulary is held at once


@dataclass(frozen=True, kw_only=True)
class Alternatives:
    """The children among which choices are made, of all choices in one flat array."""

    tokens: torch.Tensor
    """The different tokens that stand anywhere. Shape ``(n_tokens,)``, int64."""
    column: torch.Tensor
    """Which of them each alternative is. Shape ``(n_alternatives,)``, int64."""
    choice: torch.Tensor
    """Which choice each alternative belongs to, ascending. Shape ``(n_alternatives,)``, int64."""
    chosen: torch.Tensor
    """Which alternative is the right one of each choice. Shape ``(n_choices,)``, int64."""
    log_mass: torch.Tensor | None
    """Log prior probability below each alternative, nats. Shape ``(n_alternatives,)``, float32."""

    def to(self, device: torch.device) -> Alternatives:
        """The same on a device."""
        return Alternatives(
            tokens=self.tokens.to(device),
            column=self.column.to(device),
            choice=self.choice.to(device),
            chosen=self.chosen.to(device),
            log_mass=None if self.log_mass is None else self.log_mass.to(device),
        )


def alternatives(trie: AnyTrie, choices: Choices, masses: Sequence[np.ndarray] | None = None) -> Alternatives:
    """Look up what can be chosen.

    Args:
        trie: The catalogue's.
        choices: What is to be chosen.
        masses: For each target, the prior probability of each catalogue row, shape ``(n_items,)``; None for no prior.
    """
    children = {int(node): trie.children(int(node)) for node in np.unique(choices.node)}
    nodes = [children[int(node)] for node in choices.node]
    lengths = np.array([len(below) for below in nodes], np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *nodes])
    tokens, column = np.unique(trie.tokens(flat), return_inverse=True)
    log_mass = None
    if masses is not None:
        below = [trie.below(mass) for mass in masses]
        found = [below[int(t)](n) for t, n in zip(choices.target, nodes, strict=True)]
        log_mass = torch.from_numpy(np.log(np.maximum(np.concatenate(found), 1e-30)).astype(np.float32))
    return Alternatives(
        tokens=torch.from_numpy(tokens.astype(np.int64)),
        column=torch.from_numpy(column.astype(np.int64)),
        choice=torch.from_numpy(np.repeat(np.arange(len(choices)), lengths)),
        chosen=torch.from_numpy(np.cumsum(lengths) - lengths + choices.chosen),
        log_mass=log_mass,
    )


def logits_of(hidden: torch.Tensor, output: torch.Tensor, among: Alternatives) -> torch.Tensor:
    """The model's logit of each alternative.

    Args:
        hidden: Hidden state before each choice. Shape ``(n_choices, n_hidden)``.
        output: The output matrix. Shape ``(n_vocab, n_hidden)``.
        among: What can be chosen.

    Returns:
        Shape ``(n_alternatives,)``, float32.
    """
    all_of_them = hidden @ output[among.tokens].to(hidden.dtype).T  # (n_choices, n_tokens)
    return all_of_them[among.choice, among.column].float()


def choice_losses(logits: torch.Tensor, among: Alternatives) -> torch.Tensor:
    """Cross-entropy of each choice, normalised over its alternatives, nats. Shape ``(n_choices,)``."""
    n = len(among.chosen)
    top = torch.full((n,), -torch.inf, device=logits.device).scatter_reduce(
        0, among.choice, logits.detach(), "amax", include_self=False
    )
    total = torch.zeros(n, device=logits.device).index_add(0, among.choice, (logits - top[among.choice]).exp())
    return total.log() + top - logits[among.chosen]


def binary_losses(logits: torch.Tensor, among: Alternatives) -> torch.Tensor:
    """Will they, yes or no, asked of every alternative: binary cross-entropies summed over each choice, nats.

    The probability of a yes is that of the alternative among the others, so that scoring needs nothing new; what is
    not chosen is pushed down by itself, the harder the surer the model was. Shape ``(n_choices,)``.
    """
    log_p = _log_probabilities(logits, among)
    no = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    all_noes = torch.zeros(len(among.chosen), device=logits.device).index_add(0, among.choice, no)
    return no[among.chosen] - log_p[among.chosen] - all_noes


def taught_losses(logits: torch.Tensor, among: Alternatives) -> torch.Tensor:
    """What it costs to say anything but what the prior says at each choice, nats: cross-entropy with its distribution.

    Knowledge distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531), the prior being the teacher. Shape
    ``(n_choices,)``.
    """
    assert among.log_mass is not None
    costs = _log_probabilities(among.log_mass, among).exp() * _log_probabilities(logits, among)
    return -torch.zeros(len(among.chosen), device=logits.device).index_add(0, among.choice, costs)


def _log_probabilities(logits: torch.Tensor, among: Alternatives) -> torch.Tensor:
    """Of each alternative among those of its choice, nats. Shape ``(n_alternatives,)``."""
    return logits - (choice_losses(logits, among) + logits[among.chosen])[among.choice]


def trie_loss(
    hidden: torch.Tensor,
    output: torch.Tensor,
    among: Alternatives,
    *,
    temperature: float = 1.0,
    gamma: torch.Tensor | float = 1.0,
    beta: torch.Tensor | float = 0.0,
    taught: float = 0.0,
    losses: Callable[[torch.Tensor, Alternatives], torch.Tensor] = choice_losses,
) -> torch.Tensor:
    """What each choice costs over what the trie allows, nats.

    Args:
        hidden: As for `logits_of`.
        output: As for `logits_of`.
        among: What can be chosen.
        temperature: Divides the model's logits.
        gamma: Weight of the model's logits.
        beta: Weight of the prior's log mass; 0 for the model alone.
        taught: Share of the loss that is `taught_losses`.
        losses: What logits cost: `choice_losses` or `binary_losses`.

    Returns:
        Shape ``(n_choices,)``, float32.
    """
    logits = gamma * logits_of(hidden, output, among) / temperature
    if among.log_mass is not None:
        logits = logits + beta * among.log_mass
    found = losses(logits, among)
    return (1 - taught) * found + taught * taught_losses(logits, among) if taught else found


def full_vocabulary(hidden: torch.Tensor, output: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token over the whole vocabulary, nats: how language models are usually trained.

    Args:
        hidden: Hidden state before each token. Shape ``(n, n_hidden)``.
        output: The output matrix. Shape ``(n_vocab, n_hidden)``.
        tokens: What follows. Shape ``(n,)``, int64.
    """
    parts = zip(hidden.split(_ROWS), tokens.split(_ROWS), strict=True)
    found = [torch.nn.functional.cross_entropy((h @ output.T).float(), t, reduction="none") for h, t in parts]
    return torch.cat(found)
