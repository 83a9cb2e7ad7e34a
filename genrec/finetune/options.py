"""How to train: every option with its meaning, and what does not go together. Loads no model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genrec.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train."""

    method: Literal["lora", "adalora", "bottleneck", "prefix", "full"] = "lora"
    """What learns."""
    rank: int = 32
    """Rank of a LoRA's updates; width of a bottleneck; length of a prefix."""
    alpha: float | None = None
    """Scale of the updates is this over rank; the rank when omitted."""
    dropout: float = 0.0
    """Share of an update's or a bottleneck's inputs that are dropped."""
    last_layers: int | None = None
    """Adapt the last so many layers alone; all when omitted."""
    loss: Literal["trie", "binary", "full-vocabulary"] = "trie"
    """Choose from what the trie allows, say yes or no to each of it, or choose from the whole vocabulary."""
    temperature: float = 1.0
    """Divides the model's logits in the loss."""
    gamma: float = 1.0
    """Weight of the model's logits in the loss."""
    beta: float = 0.0
    """Weight of the prior's log mass in the loss: above 0, the model learns what the prior does not know."""
    taught: float = 0.0
    """Share of the loss that is for saying what the prior says, not what was chosen (knowledge distillation)."""
    domain_epochs: float = 0.0
    """How often the texts of all items are read before the first person, token by token, over the whole vocabulary."""
    epochs: float = 2.0
    """How often each person is seen; a part of an epoch sees a part of them."""
    max_steps: int = 0
    """Optimizer steps at most; 0 for as many as the epochs take."""
    step_tokens: int = 2048
    """Token positions of one forward and backward pass: memory grows with it."""
    accumulate: int = 1
    """Passes of one optimizer step, in each process."""
    optimizer: str = "adamw_torch"
    """A name that transformers knows: adamw_torch, sgd, adafactor, rmsprop …"""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    schedule: str = "cosine"
    """How it falls, a name that transformers knows: cosine, linear, constant_with_warmup …"""
    warmup: float = 0.05
    """Share of the steps in which it rises."""
    weight_decay: float = 0.01
    """Pull of the weights towards zero."""
    clip: float = 1.0
    """Longest gradient."""
    seed: int = 0
    """Decides order, shuffles and first weights."""
    eval_every: int = 0
    """Optimizer steps between looks at the held-out people; 0 for none but at the end."""
    patience: int = 0
    """Looks without improvement after which to stop; 0 for never."""
    save_every: int = 50
    """Optimizer steps between checkpoints."""
    report_to: str = "none"
    """tensorboard, wandb or none."""

    def __post_init__(self) -> None:
        positive = ("rank", "epochs", "step_tokens", "accumulate", "learning_rate", "temperature", "save_every", "clip")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, and must be above 0")
        if self.loss not in ("trie", "binary", "full-vocabulary"):
            raise ConfigError(f"no loss {self.loss!r}", hint="Choose trie, binary or full-vocabulary.")
        if self.method == "adalora" and (self.rank < 2 or self.patience):
            raise ConfigError("AdaLoRA needs a rank from 2, and cannot go back to a better checkpoint: no patience")
        if self.beta < 0 or self.gamma <= 0 or (self.beta and self.loss == "full-vocabulary"):
            raise ConfigError(
                f"gamma {self.gamma} and beta {self.beta} cannot weigh model and prior in the loss {self.loss!r}",
                hint="gamma above 0; beta from 0, and 0 where the loss is not over the trie.",
            )
        if not 0 <= self.taught < 1 or (self.taught and self.loss == "full-vocabulary"):
            raise ConfigError(
                f"the prior cannot teach a share of {self.taught} of the loss {self.loss!r}",
                hint="From 0 up to, but not, 1; and 0 where the loss is not over the trie.",
            )
        if self.domain_epochs < 0:
            raise ConfigError(f"domain_epochs is {self.domain_epochs}, and must not be below 0")
        if self.patience and not self.eval_every:
            raise ConfigError("patience needs looks to count", hint="Set eval_every too.")

    @property
    def needs_prior(self) -> bool:
        """Whether the prior is part of the loss."""
        return bool(self.beta or self.taught)
