"""Bottleneck adapters as a method of PEFT: a small network behind each layer's MLP, which saves and loads like a LoRA.

Houlsby et al. 2019 (https://arxiv.org/abs/1902.00751), behind the MLP alone as Pfeiffer et al. 2021
(https://arxiv.org/abs/2005.00247) place them. What they do is not linear, so they are never part of the weights. PEFT
has no such method; importing this module enters one into its tables. Knows PEFT and modules of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

BOTTLENECK: Any = "BOTTLENECK"
"""The method's name in PEFT's tables and files."""
_PREFIX = "bottleneck_"


@dataclass
class BottleneckConfig(peft.PeftConfig):  # type: ignore[misc]
    """A method of PEFT as it is saved."""

    r: int = 32
    """Width of the network's middle."""
    dropout: float = 0.0
    """Share of the network's inputs that are dropped in training."""
    target_modules: list[str] = field(default_factory=lambda: ["mlp"])
    """What the modules that it stands behind are called."""
    layers_to_transform: list[int] | None = None
    """Layers that have one; all when None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BOTTLENECK


class _Bottleneck(torch.nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A module and, behind it, ``h + up(relu(down(norm(h))))``; `up` is nothing at first."""

    adapter_layer_names = (f"{_PREFIX}down", f"{_PREFIX}up")

    def __init__(self, base_layer: torch.nn.Module, name: str, n_hidden: int, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer, self.dropout = base_layer, config.dropout
        self.bottleneck_down = torch.nn.ModuleDict({name: torch.nn.Linear(n_hidden, config.r)})
        self.bottleneck_up = torch.nn.ModuleDict({name: torch.nn.Linear(config.r, n_hidden)})
        torch.nn.init.zeros_(self.bottleneck_up[name].weight)
        torch.nn.init.zeros_(self.bottleneck_up[name].bias)
        self.set_adapter(name)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Hidden states of the module, changed."""
        hidden: torch.Tensor = self.base_layer(*args, **kwargs)
        [name] = self.active_adapters
        inner = torch.nn.functional.rms_norm(hidden, hidden.shape[-1:])
        inner = torch.nn.functional.dropout(inner, self.dropout, self.training)
        return hidden + self.bottleneck_up[name](self.bottleneck_down[name](inner).relu())


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """A model with them."""

    prefix = _PREFIX
    tuner_layer_cls = _Bottleneck
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self, config: BottleneckConfig, name: str, target: Any, target_name: str, parent: Any, *_: Any, **__: Any
    ) -> None:
        n_hidden = self.model.config.get_text_config().hidden_size
        self._replace_module(parent, target_name, _Bottleneck(target, name, n_hidden, config), target)


peft.PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig
peft.PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel
PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = _PREFIX
