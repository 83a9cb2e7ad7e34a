"""Attention over a prompt and the tree behind it, against one mask over both."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from genrec.engines.attention import behind_prompt, tree_attention


@pytest.mark.parametrize(("n_first", "n_last"), [(7, 5), (1, 1), (0, 4)])
def test_it_equals_one_mask_over_both(n_first: int, n_last: int) -> None:
    torch.manual_seed(0)
    n = n_first + n_last
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 3, True
    query, key, value = (torch.randn(1, heads, n, 8) for heads in (6, 2, 2))
    sees = torch.ones(n, n, dtype=torch.bool).tril()
    sees[n_first:, n_first:] &= torch.rand(n_last, n_last) < 0.5
    sees |= torch.eye(n, dtype=torch.bool)
    mask = torch.zeros(1, 1, n, n).masked_fill_(~sees, torch.finfo(torch.float32).min)
    wanted, _ = sdpa_attention_forward(module, query, key, value, mask)
    with behind_prompt(mask, n_first):
        found, _ = tree_attention(module, query, key, value, mask)
        torch.testing.assert_close(found, wanted)
        another = mask.clone()  # one that a model made of it, say
        another[0, 0, -1, 0] = torch.finfo(torch.float32).min
        found, _ = tree_attention(module, query, key, value, another)
    torch.testing.assert_close(found, sdpa_attention_forward(module, query, key, value, another)[0])
