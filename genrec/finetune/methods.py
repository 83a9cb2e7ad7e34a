"""Ways to adapt a language model, by name: which weights learn, and what PEFT makes of them.

Knows models of transformers and PEFT; knows nothing of data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel

from genrec.engines.bottleneck import BottleneckConfig
from genrec.engines.transformers import best_device, cast_parameters, causal_model
from genrec.errors import ConfigError, ModelError
from genrec.finetune.attention import NAME, packed_attention, rows_of
from genrec.finetune.packing import Packed

AttentionInterface.register(NAME, packed_attention)

_UNLIKE = ("logits_scaling", "logit_scale", "final_logit_softcapping", "attn_logit_softcapping")
"""Settings of models whose logits or attention are changed in ways that training here does not know."""
_MULTIPLE = 128
"""Steps are filled up to a multiple of so many places: for every new shape, a CPU's kernels are made anew and kept."""
METHODS = ("lora", "adalora", "bottleneck", "prefix", "full")
"""What `adapt` knows: LoRA (Hu et al. 2021), AdaLoRA (Zhang et al. 2023), bottleneck adapters (Houlsby et al. 2019),
prefix-tuning (Li and Liang 2021), all weights."""


def load_model(folder: Path, *, dtype: str = "auto", device: str = "auto") -> PreTrainedModel:
    """Load a causal language model for training on rows laid end to end.

    Raises:
        ModelError: If the folder holds none, or one whose logits are more than products with the output matrix.
    """
    model: PreTrainedModel = causal_model(folder, dtype=dtype, attn_implementation=NAME)
    config = model.config.get_text_config()
    unlike = [name for name in _UNLIKE if getattr(config, name, None) not in (None, 1.0)]
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        unlike.append("a bias")
    if unlike:
        raise ModelError(
            f"the logits of {folder.name} are more than products with its output matrix: {', '.join(unlike)}",
            hint="Training would not learn what is served. Choose another model.",
        )
    if model.dtype == torch.float16:
        cast_parameters(model, torch.bfloat16)  # whose gradients need no scaling
    return model.to(best_device() if device == "auto" else device)


def load_adapted(base: Path, adapter: Path, method: str) -> Any:
    """Load a model with an adapter that is to learn on.

    Args:
        base: The base model's folder.
        adapter: The adapter's.
        method: How it was trained.

    Raises:
        ConfigError: If what was trained that way cannot learn on.
        ModelError: If there is no such model or adapter.
    """
    import peft

    if method == "full":
        return load_model(adapter)
    if method == "adalora":
        raise ConfigError(
            f"an adapter made by {method!r} cannot learn on", hint="The others can: its ranks are settled."
        )
    try:
        adapted = peft.PeftModel.from_pretrained(load_model(base), str(adapter), is_trainable=True)
    except Exception as error:  # damaged files raise errors of the libraries that read them
        raise ModelError(f"{adapter} holds no adapter that PEFT can load: {error}") from error
    return _computed_in_half(adapted)


def adapt(
    model: PreTrainedModel,
    method: str,
    *,
    rank: int = 32,
    alpha: float | None = None,
    dropout: float = 0.0,
    last_layers: int | None = None,
    n_steps: int = 1000,
) -> Any:
    """Prepare a model so that training changes what a method says, in float32, and nothing else.

    Args:
        model: The model; it is changed in place.
        method: One of `METHODS`.
        rank: Rank of LoRA's updates, with which AdaLoRA begins, to end with half of it on average; width of a
            bottleneck; length of a prefix.
        alpha: Scale of the updates is this over rank; the rank when omitted.
        dropout: Share of an update's or a bottleneck's inputs that are dropped in training.
        last_layers: Adapt the last so many layers alone.
        n_steps: Optimizer steps to come, which AdaLoRA's schedule needs.

    Raises:
        ConfigError: If there is no such method, or it cannot have that rank or those layers.
    """
    import peft

    n_layers = model.config.get_text_config().num_hidden_layers
    if rank < 1 or not 0 <= dropout < 1 or not (last_layers is None or 1 <= last_layers <= n_layers):
        raise ConfigError(
            f"rank {rank}, dropout {dropout} or last_layers {last_layers} cannot be right",
            hint=f"rank from 1, dropout from 0 to below 1, last_layers from 1 to {n_layers}.",
        )
    first = n_layers - (last_layers or n_layers)
    where: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "layers_to_transform": list(range(first, n_layers)) if first else None,
    }
    low_rank: dict[str, Any] = {
        "lora_alpha": alpha or rank,
        "lora_dropout": dropout,
        "target_modules": "all-linear",
        **where,
    }
    if first:  # layers are told apart by name, which "all-linear" does not go with
        inner = model.base_model.layers[-1].named_modules()
        low_rank["target_modules"] = sorted(
            {name.rsplit(".")[-1] for name, module in inner if isinstance(module, torch.nn.Linear)}
        )
    if method == "lora":
        return _computed_in_half(peft.get_peft_model(model, peft.LoraConfig(r=rank, **low_rank)))
    if method == "adalora":
        schedule = {"tinit": n_steps // 10, "tfinal": n_steps // 2, "total_step": n_steps}
        config = peft.AdaLoraConfig(init_r=rank, target_r=max(1, rank // 2), **schedule, **low_rank)
        return _computed_in_half(peft.get_peft_model(model, config))
    if method == "bottleneck":
        if not hasattr(model.base_model.layers[0], "mlp"):
            raise ConfigError("this model's layers have no MLP to put a bottleneck behind", hint="Train a LoRA.")
        return peft.get_peft_model(model, BottleneckConfig(r=rank, dropout=dropout, **where))
    if method == "prefix":
        if first or dropout:
            raise ConfigError("a prefix is seen by all layers, and whole", hint="Leave last_layers and dropout out.")
        nothing = {"num_virtual_tokens": rank, "init_weights": "zero"}
        return peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", **nothing))
    if method == "full":
        layers = model.base_model.layers
        for parameter in model.parameters():
            parameter.requires_grad_(first == 0)
        for layer in layers[first:]:
            layer.requires_grad_(True)
        return model.float()
    raise ConfigError(f"no training method {method!r}", hint=f"Choose {', '.join(METHODS)}.")


def _computed_in_half(model: Any) -> Any:
    """Leave it to autocast to choose a type: PEFT would compute its updates, and keep their inputs, in float32."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False
    return model


def hidden_before(
    model: Any, packed: Packed, index: torch.Tensor, *, below: torch.Tensor | None = None
) -> torch.Tensor:
    """The last layer's output at some places of a step, from which the output matrix would predict what follows.

    Args:
        model: What `adapt` or `load_model` gave.
        packed: The step.
        index: The places. Shape ``(n,)``, int64.
        below: What `hidden_below` gives for the step, where it is known.

    Returns:
        Shape ``(n, n_hidden)``.
    """
    caught: list[torch.Tensor] = []

    def catch(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        caught.append(inputs[0])
        return (inputs[0][:, :0],)  # nothing of the vocabulary is computed

    hook = output_embeddings(model).register_forward_pre_hook(catch)
    try:
        if below is None:
            _read(model, packed, index)
        else:
            frozen, _ = frozen_and_learning(model)
            idle = below.new_zeros(_n_idle(packed), below.shape[1])
            known = torch.cat([below, idle])[None]
            with _instead_of(frozen, lambda _: known):
                _read(model, packed, index)
    finally:
        hook.remove()
    return caught[0][0]


def hidden_below(model: Any, packed: Packed) -> torch.Tensor:
    """What the first layer that learns is given at each place of a step: no training changes it.

    Returns:
        Shape ``(n, n_hidden)``.
    """
    caught: list[torch.Tensor] = []

    def catch(hidden: torch.Tensor) -> torch.Tensor:
        caught.append(hidden)
        return hidden

    _, learning = frozen_and_learning(model)
    with torch.no_grad(), _instead_of(learning, catch):
        _read(_unwrapped(model), packed, torch.zeros(1, dtype=torch.int64))
    return caught[0][0, : len(packed.token_ids)]


def frozen_and_learning(model: Any) -> tuple[list[torch.nn.Module], list[torch.nn.Module]]:
    """A model's layers, from the bottom: those below all that learns, and the rest."""
    layers = list(_causal(model).base_model.layers)
    learns = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    first = learns.index(True) if True in learns else len(layers)
    return layers[:first], layers[first:]


@contextmanager
def _instead_of(layers: Sequence[torch.nn.Module], give: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let layers compute something else of the hidden states that they are given."""
    for layer in layers:
        layer.forward = lambda hidden, *_, **__: give(hidden)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _read(model: Any, packed: Packed, index: torch.Tensor) -> None:
    """Let a model read a step."""
    past, n_past, inner = None, 0, _unwrapped(model)
    if hasattr(inner, "peft_config") and inner.active_peft_config.is_prompt_learning:
        past = inner.get_prompt(1)  # PEFT's own call would drop the positions
        model, n_past = inner.get_base_model(), past.get_seq_length()
    n_idle = _n_idle(packed)
    token_ids = np.concatenate([packed.token_ids, np.zeros(n_idle, np.int64)])
    position_ids = n_past + np.concatenate([packed.position_ids, np.arange(n_idle)])
    device, dtype = next(model.parameters()).device, output_embeddings(model).weight.dtype
    in_half = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with rows_of((*packed.lengths, n_idle)), in_half:
        model(
            input_ids=torch.from_numpy(token_ids)[None].to(device),
            position_ids=torch.from_numpy(position_ids)[None].to(device),
            past_key_values=past,
            logits_to_keep=index,
            use_cache=False,
        )


def _n_idle(packed: Packed) -> int:
    n = len(packed.token_ids)
    return -n % _MULTIPLE if n > _MULTIPLE else 0


def _unwrapped(model: Any) -> Any:
    """The model itself, where several processes train it together."""
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


def _causal(model: Any) -> Any:
    """The model itself, within what adapts it."""
    model = _unwrapped(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def output_embeddings(model: Any) -> torch.nn.Module:
    """The layer that predicts tokens."""
    layer: torch.nn.Module = _causal(model).get_output_embeddings()
    return layer
