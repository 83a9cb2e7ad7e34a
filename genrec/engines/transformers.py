"""The language model in this process, on Hugging Face transformers: one prefill, then tree attention.

A prompt is read once. Each round of a search is one more forward pass over the new tree's inner nodes, under an
attention mask in which a node sees the prompt and its own ancestors; leaves need no position of their own, for their
log-probability is read at the parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genrec.engines.base import Engine, Search, T, TokenTree, Usage
from genrec.errors import EngineError, ModelError
from genrec.tokenizer import HfTokenizer

if TYPE_CHECKING:
    import torch


@dataclass
class _Read:
    """A prompt that has been read."""

    n_tokens: int
    cache: Any
    """Keys and values of the prompt, a transformers ``Cache``."""
    last: torch.Tensor
    """Log-probabilities of the token after the prompt. Shape ``(n_vocab,)``, float32."""


class TransformersEngine(Engine):
    """Runs a causal language model with transformers.

    Args:
        folder: A local model folder.
        model: What to call it.
        dtype: ``auto`` (as saved), ``float32`` or ``bfloat16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` …
        max_tokens: Longest prompt plus continuation; the model's own limit where that is less.

    Raises:
        ModelError: If the folder cannot be loaded.
    """

    name: ClassVar[str] = "transformers"

    def __init__(
        self, folder: Path, *, model: str, dtype: str = "auto", device: str = "auto", max_tokens: int = 4096
    ) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging
        except ImportError as error:
            raise ModelError(
                f"the engine 'transformers' needs a package that is missing: {error.name}",
                hint="pip install 'genrec[local]', then: genrec doctor",
            ) from error
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.model, self.usage = model, Usage()
        self.tokenizer = HfTokenizer(folder)
        self.torch: Any = torch
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.lm = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype if dtype == "auto" else getattr(torch, dtype), local_files_only=True
            )
        except Exception as error:  # damaged weights raise errors of the libraries that read them
            raise ModelError(
                f"{folder} holds no causal language model that transformers can load: {error}",
                hint="Get a whole model with: genrec models get NAME; or write it again with save_pretrained().",
            ) from error
        self.lm.to(device).eval()
        config = self.lm.config.get_text_config()
        self.max_tokens = min(max_tokens, getattr(config, "max_position_embeddings", max_tokens))
        window = getattr(config, "sliding_window", None)
        if window and "sliding_attention" in (getattr(config, "layer_types", None) or []):
            self.max_tokens = min(self.max_tokens, window)  # within its window, sliding attention is full attention

    def run(self, searches: Iterable[tuple[Sequence[int], Search[T]]]) -> list[T]:
        """Drive searches to their end, one after the other."""
        return [self._run_one(list(prompt), search) for prompt, search in searches]

    def prefill(self, prompts: Iterable[Sequence[int]]) -> None:
        """Read prompts and nothing more."""
        for prompt in prompts:
            self._read(list(prompt))

    def forget(self) -> None:
        """Keys and values live as long as their search: there is nothing to empty."""

    def close(self) -> None:
        """Drop the model."""
        self.lm = None

    def _run_one(self, prompt: list[int], search: Search[T]) -> T:
        read: _Read | None = None
        try:
            tree = next(search)
            while True:
                read = read or self._read(prompt)
                tree = search.send(self._evaluate(read, tree))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _read(self, prompt: list[int]) -> _Read:
        if self.lm is None:
            raise EngineError("the engine is closed", hint="Build another one.")
        if not prompt or len(prompt) >= self.max_tokens:
            raise EngineError(
                f"a prompt of {len(prompt)} tokens does not fit: {self.model} takes 1 to {self.max_tokens - 1}",
                hint="Lower history.max_tokens in genrec.toml.",
            )
        torch = self.torch
        with torch.inference_mode():
            ids = torch.tensor([prompt], device=self.lm.device)
            out = self.lm(input_ids=ids, use_cache=True, logits_to_keep=1)
            last = out.logits[0, -1].float().log_softmax(-1)
        self.usage.n_prompt_tokens += len(prompt)
        self.usage.n_computed_tokens += len(prompt)
        self.usage.n_requests += 1
        return _Read(n_tokens=len(prompt), cache=out.past_key_values, last=last)

    def _evaluate(self, read: _Read, tree: TokenTree) -> np.ndarray:
        """Log-probabilities of a tree's nodes: one forward pass over its inner nodes."""
        torch, n_prompt = self.torch, read.n_tokens
        parent = tree.parent
        is_inner = np.zeros(len(tree), bool)
        is_inner[parent[parent >= 0]] = True
        inner = np.flatnonzero(is_inner)
        source = np.zeros(len(tree) + 1, np.int64)  # row of `after` that predicts below a node; index -1 is the prompt
        source[inner] = 1 + np.arange(len(inner))
        with torch.inference_mode():
            after = read.last[None]  # (1 + n_inner, n_vocab)
            if len(inner):
                sees, depth = _ancestry(parent, inner)
                if n_prompt + int(depth.max()) > self.max_tokens:
                    raise EngineError(
                        f"prompt and item are longer than the {self.max_tokens} tokens that {self.model} takes",
                        hint="Lower history.max_tokens in genrec.toml.",
                    )
                device, dtype = self.lm.device, self.lm.dtype
                mask = torch.zeros(1, 1, len(inner), n_prompt + len(inner), dtype=dtype, device=device)
                mask[0, 0, :, n_prompt:].masked_fill_(~torch.from_numpy(sees).to(device), torch.finfo(dtype).min)
                out = self.lm(
                    input_ids=torch.from_numpy(tree.token[inner].astype(np.int64))[None].to(device),
                    position_ids=torch.from_numpy(n_prompt - 1 + depth)[None].to(device),
                    attention_mask=mask,
                    past_key_values=read.cache,
                    use_cache=True,
                )
                read.cache.crop(n_prompt)
                after = torch.cat([after, out.logits[0].float().log_softmax(-1)])
                self.usage.n_prompt_tokens += n_prompt + len(inner)
                self.usage.n_cached_tokens += n_prompt
                self.usage.n_computed_tokens += len(inner)
                self.usage.n_requests += 1
            rows = torch.from_numpy(source[parent]).to(after.device)
            tokens = torch.from_numpy(tree.token.astype(np.int64)).to(after.device)
            logprob: np.ndarray = after[rows, tokens].double().cpu().numpy()
        return logprob


def _ancestry(parent: np.ndarray, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which inner nodes are on the path to which, and how deep each lies.

    Args:
        parent: Parents of all nodes, parents first.
        inner: The inner nodes, ascending.

    Returns:
        Bool ``(n, n)``, row i true at i and its ancestors; depths ``(n,)``, int64, 1 below the prompt.
    """
    index = {int(node): i for i, node in enumerate(inner)}
    sees = np.eye(len(inner), dtype=bool)
    for i, node in enumerate(inner):
        above = int(parent[node])
        if above >= 0:
            sees[i] |= sees[index[above]]
    depth: np.ndarray = sees.sum(axis=1)
    return sees, depth
