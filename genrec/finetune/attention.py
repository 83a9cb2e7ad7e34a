"""Attention over rows laid end to end: each row sees itself and the beginning that all rows share, nothing else.

Registered with transformers as the attention implementation `NAME`; works with any model of its library whose attention
can be exchanged, on any device. Rows of about one length are computed together, so there is no padding outside of
attention and little within. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

NAME = "genrec_packed"

_SMALL = 2**16
"""Most products of one row and head that are written out on a CPU: there, fused attention is no faster before."""

_MULTIPLE = 16
"""Rows of a bucket count as a multiple of so many places, so that shapes recur."""

_lengths: ContextVar[tuple[int, ...]] = ContextVar("lengths")


@contextmanager
def rows_of(lengths: Sequence[int]) -> Any:
    """Say what is laid end to end in the batches of one sequence that run meanwhile.

    Args:
        lengths: Ids of the shared beginning, then of each row.
    """
    token = _lengths.set(tuple(lengths))
    try:
        yield
    finally:
        _lengths.reset(token)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of transformers' interface; the mask is given by `rows_of`.

    Args:
        module: The attention layer.
        query: Shape ``(1, n_heads, n, n_per_head)``.
        key: Shape ``(1, n_key_heads, n_past + n, n_per_head)``; what is past, all see.
        value: As `key`.
        attention_mask: Not looked at.
        scaling: Factor of the products.
        dropout: Share of the weights that are dropped.

    Returns:
        Shape ``(1, n, n_heads, n_per_head)``, and no weights.
    """
    lengths, n_past = _lengths.get(), key.shape[2] - query.shape[2]
    group = query.shape[1] // key.shape[1]
    key, value = key[0].repeat_interleave(group, 0), value[0].repeat_interleave(group, 0)
    query, n_shared = query[0], lengths[0]  # (n_heads, n, n_per_head)
    out = torch.empty_like(query)
    common = slice(0, n_past + n_shared)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, n_common: int) -> torch.Tensor:
        n = q.shape[-2]
        mask = torch.ones(n, n_common + n, dtype=torch.bool, device=q.device).tril(n_common)
        if q.device.type == "cpu" and mask.numel() <= _SMALL:
            products = (q @ k.transpose(-1, -2)) * (scaling or q.shape[-1] ** -0.5)
            weights = products.masked_fill(~mask, torch.finfo(q.dtype).min).softmax(-1)
            return torch.nn.functional.dropout(weights, dropout) @ v
        is_causal = n_common == 0
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, None if is_causal else mask, dropout, is_causal=is_causal, scale=scaling
        )

    if n_shared:
        out = out.index_copy(
            1,
            torch.arange(n_shared, device=out.device),
            attend(query[None, :, :n_shared], key[None, :, common], value[None, :, common], n_past)[0],
        )
    starts, start = [], n_shared
    for length in lengths[1:]:
        starts.append(start)
        start += length
    for bucket in _buckets(lengths[1:]):
        longest = -(-max(lengths[1 + i] for i in bucket) // _MULTIPLE) * _MULTIPLE
        place = torch.arange(longest, device=out.device)
        begin = torch.tensor([starts[i] for i in bucket], device=out.device)
        n_each = torch.tensor([lengths[1 + i] for i in bucket], device=out.device)
        index = begin[:, None] + torch.minimum(place, n_each[:, None] - 1)  # (rows, longest); the end is repeated
        q, k, v = (  # (rows, n_heads, longest, n_per_head)
            side.index_select(1, where.flatten()).unflatten(1, index.shape).transpose(0, 1)
            for side, where in ((query, index), (key, index + n_past), (value, index + n_past))
        )
        if n_past + n_shared:
            k, v = (
                torch.cat([side[None, :, common].expand(len(bucket), -1, -1, -1), own], 2)
                for side, own in ((key, k), (value, v))
            )
        found = attend(q, k, v, n_past + n_shared).transpose(1, 2)  # (rows, longest, n_heads, n_per_head)
        real = place < n_each[:, None]
        out = out.index_copy(1, index[real], found[real].transpose(0, 1))
    return out.transpose(0, 1)[None], None


def _buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of about one length together: each at least three quarters as long as the longest beside it."""
    buckets: list[list[int]] = []
    longest = 0
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i]):
        if not buckets or lengths[i] < 0.75 * longest:
            buckets.append([])
            longest = lengths[i]
        buckets[-1].append(i)
    return buckets
