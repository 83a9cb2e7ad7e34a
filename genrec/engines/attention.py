"""Attention over a prompt with a tree of continuations behind it, each part in the way that is fastest for it.

Registered with transformers as the attention implementation `NAME`. One mask over both would keep the prompt from the
kernels that know causal attention and shared key heads. A model that cannot change its attention, or makes a mask of
its own from the one it is given, loses nothing but time. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "genrec_tree"
_behind: ContextVar[tuple[torch.Tensor | None, int]] = ContextVar("behind", default=(None, 0))


@contextmanager
def behind_prompt(mask: torch.Tensor | None, n_prompt: int) -> Iterator[None]:
    """Say that under a mask the first positions, which are the first keys too, see what is not after them.

    Args:
        mask: What a model is given meanwhile, whole. Shape ``(1, 1, n, n)``.
        n_prompt: How many positions that is true of.
    """
    token = _behind.set((mask, n_prompt))
    try:
        yield
    finally:
        _behind.reset(token)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of transformers' interface: what its fused attention gives, of `behind_prompt` in two parts.

    Args:
        module: The attention layer.
        query: Shape ``(1, n_heads, m, n_per_head)``.
        key: Shape ``(1, n_key_heads, n, n_per_head)``.
        value: As `key`.
        attention_mask: What is added to the products, shape ``(1, 1, m, n)``; None where all is causal.
        options: What else transformers says.

    Returns:
        Shape ``(1, m, n_heads, n_per_head)``, and no weights.
    """
    mask, n = _behind.get()
    if attention_mask is None or attention_mask is not mask or not n or options.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0], None
    prompt, tree = query[:, :, :n], query[:, :, n:]
    of_prompt, _ = sdpa_attention_forward(module, prompt, key[:, :, :n], value[:, :, :n], None, **options)
    of_tree, _ = sdpa_attention_forward(module, tree, key, value, mask[:, :, n:], **options)
    return torch.cat([of_prompt, of_tree], dim=1), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for whoever uses the model in other ways
