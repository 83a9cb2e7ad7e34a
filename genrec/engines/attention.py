"""Attention over a prompt with a tree of continuations behind it, each part in the way that is fastest for it.

Registered with transformers as the attention implementation `NAME`. One mask over both would keep the prompt from the
kernels that know causal attention and shared key heads. Knows tensors only.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "genrec_tree"


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of transformers' interface, where a mask may be that of the last positions alone.

    Args:
        module: The attention layer.
        query: Shape ``(1, n_heads, m, n_per_head)``.
        key: Shape ``(1, n_key_heads, n, n_per_head)``.
        value: As `key`.
        attention_mask: What is added to the products of the last positions, shape ``(1, 1, n_last, n)``; of those
            before them, which are the first keys, each sees what is not after it. None where all are such.
        options: What else transformers says.

    Returns:
        Shape ``(1, m, n_heads, n_per_head)``, and no weights.
    """
    n_first = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[2]
    if not n_first:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0], None
    first, last = (query[:, :, :n_first], key[:, :, :n_first], value[:, :, :n_first]), query[:, :, n_first:]
    return torch.cat(
        [
            sdpa_attention_forward(module, *first, None, **options)[0],
            sdpa_attention_forward(module, last, key, value, attention_mask, **options)[0],
        ],
        dim=1,
    ), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for whoever uses the model in other ways
