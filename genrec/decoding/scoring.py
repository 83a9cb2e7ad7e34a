"""What a step down the trie is worth: pure functions from a node's children to weights.

| scoring | a child's weight | sums to one over the trie's items |
|---|---|---|
| `joint` | raw log-probability | no: the model also gives mass to what is not in the catalogue |
| `masked` | renormalised over the trie's children | yes |
| `fused` | ``gamma * max(LLM, FLOOR) + beta * log prior mass below``, renormalised | yes |

All weights are nats and at most 0, so the weight of an open branch bounds that of every item below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from genrec.errors import ConfigError

FLOOR = -20.0
"""`fused` hears a log-probability below this as this, nats: no token of the model's can veto an item, and how far a
branch may fall is known before the model is asked."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the language model's log-probabilities become the weights of branches."""

    name: Literal["joint", "masked", "fused"] = "joint"
    gamma: float = 0.05
    """`fused`: weight of the language model. An untuned one is best kept low: see docs/decoding.md."""
    beta: float = 1.0
    """`fused`: weight of the prior."""

    def __post_init__(self) -> None:
        if self.name not in ("joint", "masked", "fused"):
            raise ConfigError(f"no scoring {self.name!r}", hint="Choose joint, masked or fused.")

    @property
    def normalised(self) -> bool:
        """Whether the items' weights are a distribution; then a lone child is certain and need not be asked about."""
        return self.name != "joint"

    def weights(self, logprob: np.ndarray, mass: np.ndarray | None = None) -> np.ndarray:
        """Weight of each child of one node.

        Args:
            logprob: The language model's log-probability of each child, nats, shape ``(n_children,)``.
            mass: `fused` only: prior probability below each child, same shape; a child without mass gets ``-inf``.

        Returns:
            Nats, same shape.
        """
        if self.name == "joint":
            return logprob
        if self.name == "masked":
            return _normalise(logprob)
        assert mass is not None, "fused scoring needs the prior's mass"
        alive = mass > 0
        prior = np.log(mass, out=np.zeros(len(mass)), where=alive)
        model = np.maximum(logprob, FLOOR)
        return _normalise(np.where(alive, self.gamma * model + self.beta * prior, -np.inf))


def _normalise(logits: np.ndarray) -> np.ndarray:
    top = logits.max()
    if top == -np.inf:
        return logits
    normalised: np.ndarray = logits - (top + np.log(np.exp(logits - top).sum()))
    return normalised
