"""The language model in this process, on Hugging Face transformers: one forward pass a round, under tree attention.

The first pass reads the prompt and the branches that the search guesses it will need, side by side: a node of the tree
sees the prompt and its own ancestors, and leaves need no position of their own, for their log-probability is read at
the parent. A later round reads its new branches alone. The prompt's keys and values stay for the next time, so a
history that has grown by an event is read on from where it ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genrec.engines.base import Engine, Job, Search, T, TokenTree, Usage, too_long
from genrec.errors import EngineError, ModelError
from genrec.tokenizer import HfTokenizer

if TYPE_CHECKING:
    import torch

_TAIL = 128  # at most so many positions of a prompt are its line for "now" and what fills it up
_ROWS = 128  # positions whose whole vocabulary is held in float32 at once


@dataclass
class _Read:
    """A prompt that has been read, all of it or its beginning."""

    ids: np.ndarray
    """The prompt. Shape ``(n,)``, int64."""
    n_read: int
    """How much of it `cache` holds."""
    cache: Any
    """Keys and values, a transformers ``DynamicCache``."""
    last: Any = None
    """Logits of the token after the prompt, once all of it is read. Shape ``(n_vocab,)``."""


class TransformersEngine(Engine):
    """Runs a causal language model with transformers.

    Args:
        folder: A local model folder.
        model: What to call it.
        dtype: ``auto`` (as saved), ``float32`` or ``bfloat16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` …
        max_tokens: Longest prompt plus continuation; the model's own limit where that is less.
        adapter: Folder of an adapter, which becomes part of the weights where it can.
        cache_gib: Memory for the keys and values of prompts read before, GiB; what was used longest ago goes first.

    Raises:
        ModelError: If the folder or the adapter cannot be loaded.
    """

    name: ClassVar[str] = "transformers"

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        dtype: str = "auto",
        device: str = "auto",
        max_tokens: int = 4096,
        adapter: Path | None = None,
        cache_gib: float = 1.0,
    ) -> None:
        try:
            import torch
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
        self.lm: Any = causal_model(folder, dtype=dtype)
        prefix = None
        if adapter is not None:
            try:
                from peft import PeftModel

                from genrec.engines.bottleneck import BOTTLENECK

                adapted = PeftModel.from_pretrained(self.lm, str(adapter))
                if adapted.active_peft_config.is_prompt_learning:
                    prefix, self.lm = adapted.get_prompt(1), adapted.get_base_model()
                elif adapted.active_peft_config.peft_type == BOTTLENECK:
                    self.lm = adapted.get_base_model()
                    cast_parameters(self.lm, self.lm.dtype)
                else:
                    self.lm = adapted.merge_and_unload()
            except Exception as error:  # as above
                raise ModelError(
                    f"{adapter} holds no adapter that PEFT can put into {model}: {error}",
                    hint="pip install 'genrec[train]'; see: genrec adapters list",
                ) from error
        device = best_device() if device == "auto" else device
        from genrec.engines.attention import NAME, behind_prompt

        self._behind_prompt = behind_prompt
        if self.lm.config._attn_implementation == "sdpa":
            self.lm.set_attn_implementation(NAME)  # which a model that cannot leaves undone
        self.lm.to(device).eval()
        config = self.lm.config.get_text_config()
        self.max_tokens = min(max_tokens, getattr(config, "max_position_embeddings", max_tokens))
        window = getattr(config, "sliding_window", None)
        if window and "sliding_attention" in (getattr(config, "layer_types", None) or []):
            self.max_tokens = min(self.max_tokens, window)  # within its window, sliding attention is full attention

        with torch.no_grad():
            self._held = _Held(int(cache_gib * 2**30), prefix, device)
        self.max_tokens -= self._held.n_prefix
        self._lock = threading.Lock()  # the model answers one search at a time
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="genrec-transformers")

    def run(self, searches: Iterable[Job[T]]) -> list[T]:
        """Drive searches to their end, one after the other."""
        return [self._run_one(*job) for job in searches]

    async def drive(self, prompt: Sequence[int], search: Search[T], usage: Usage | None = None) -> T:
        """Drive one search to its end in a thread, after those that came before."""
        if self.lm is None:
            raise EngineError("the engine is closed", hint="Build another one.")
        cancelled = threading.Event()
        work = self._thread.submit(self._run_one, prompt, _until(cancelled, search), usage)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def prefill(self, prompts: Iterable[Sequence[int]]) -> None:
        """Read prompts and nothing more."""
        nothing = TokenTree(parent=np.empty(0, np.int32), token=np.empty(0, np.int32), wanted=np.empty(0, bool))
        for prompt in prompts:
            with self._lock:
                read = self._begin(prompt)
                _, used = self._evaluate(read, nothing)
                self.usage += used
                self._held.keep(read)

    def forget(self) -> None:
        """Empty the cache of keys and values."""
        with self._lock:
            self._held.clear()

    def close(self) -> None:
        """Drop the model."""
        self._thread.shutdown(cancel_futures=True)
        self.forget()
        self.lm = None

    def _run_one(self, prompt: Sequence[int], search: Search[T], usage: Usage | None = None) -> T:
        try:
            tree = next(search)
            with self._lock:
                read = self._begin(prompt)
                try:
                    while True:
                        logprob, used = self._evaluate(read, tree)
                        self.usage += used
                        if usage is not None:
                            usage += used
                        tree = search.send(logprob)
                finally:
                    self._held.keep(read)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            search.close()

    def _begin(self, prompt: Sequence[int]) -> _Read:
        """Take up a prompt, with as much of it as an earlier one had in common."""
        if self.lm is None:
            raise EngineError("the engine is closed", hint="Build another one.")
        if not prompt or len(prompt) >= self.max_tokens:
            raise too_long(len(prompt), self)
        return self._held.take(np.array(prompt, np.int64))

    def _evaluate(self, read: _Read, tree: TokenTree) -> tuple[np.ndarray, Usage]:
        """Log-probabilities of a tree's nodes, and what they took.

        One forward pass over what is unread of the prompt and the inner nodes of the tree.

        Positions of the pass stand in the order prompt, inner nodes; each sees what was read before, the unread
        prompt up to itself, and of the tree its own ancestors.
        """
        assert self.lm is not None
        torch, n_prompt, n_read, n_prefix = self.torch, len(read.ids), read.n_read, self._held.n_prefix
        n_new = n_prompt - n_read  # m below is n_new + n_inner, the positions of this pass
        parent = tree.parent
        is_inner = np.zeros(len(tree), bool)
        is_inner[parent[parent >= 0]] = True
        inner = np.flatnonzero(is_inner)
        source = np.zeros(len(tree) + 1, np.int64)  # row of `after` that predicts below a node; index -1 is the prompt
        source[inner] = 1 + np.arange(len(inner))
        with torch.inference_mode():
            if n_new + len(inner):
                sees, depth = _ancestry(parent, inner)
                if len(inner) and n_prompt + int(depth.max()) > self.max_tokens:
                    raise EngineError(
                        f"prompt and item are longer than the {self.max_tokens} tokens that {self.model} takes",
                        hint="Lower history.max_tokens in genrec.toml.",
                    )
                device = self.lm.device
                read.n_read = 0  # should the pass fail, nothing of it can be relied on
                n_before = n_prefix + n_read
                mask = self._mask(n_before, n_new, sees) if len(inner) or n_before else None
                with self._behind_prompt(mask, 0 if n_before else n_new):
                    out = self.lm(
                        input_ids=torch.from_numpy(
                            np.concatenate([read.ids[n_read:], tree.token[inner]])[None],
                        ).to(device),
                        position_ids=torch.from_numpy(
                            n_prefix + np.concatenate([np.arange(n_read, n_prompt), n_prompt - 1 + depth])[None]
                        ).to(device),
                        attention_mask=mask,
                        past_key_values=read.cache,
                        use_cache=True,
                        logits_to_keep=len(inner) + bool(n_new),
                    )
                read.cache.crop(n_prefix + n_prompt)
                read.n_read = n_prompt
                after = out.logits[0]  # (1 + n_inner, n_vocab), or (n_inner, n_vocab) where the prompt was read before
                if n_new:
                    read.last = after[0].clone()
                else:
                    after = torch.cat([read.last[None], after])
                used = Usage(
                    n_prompt_tokens=n_prompt + len(inner),
                    n_cached_tokens=n_read,
                    n_computed_tokens=n_new + len(inner),
                    n_requests=1,
                )
            else:
                after, used = read.last[None], Usage()
            total = torch.cat([rows.float().logsumexp(-1) for rows in after.split(_ROWS)])  # (1 + n_inner,)
            rows = torch.from_numpy(source[parent]).to(after.device)
            tokens = torch.from_numpy(tree.token.astype(np.int64)).to(after.device)
            logprob: np.ndarray = (after[rows, tokens].float() - total[rows]).double().cpu().numpy()
        return logprob, used

    def _mask(self, n_read: int, n_new: int, sees: np.ndarray) -> torch.Tensor:
        """What each position of a pass may look at. Shape ``(1, 1, m, n_read + m)``, 0 or the lowest number."""
        torch, n_inner = self.torch, len(sees)
        allowed = np.zeros((n_new + n_inner, n_read + n_new + n_inner), bool)
        allowed[:, :n_read] = True
        allowed[:n_new, n_read : n_read + n_new] = np.tri(n_new, dtype=bool)
        allowed[n_new:, n_read : n_read + n_new] = True
        allowed[n_new:, n_read + n_new :] = sees
        mask = torch.zeros(1, 1, *allowed.shape, dtype=self.lm.dtype)
        mask[0, 0].masked_fill_(~torch.from_numpy(allowed), torch.finfo(self.lm.dtype).min)
        return mask.to(self.lm.device)


class _Held:
    """Keys and values of prompts read before, the most recently used ones, within a bound on memory.

    Args:
        n_bytes: The bound.
        prefix: Keys and values that stand before every prompt, a ``DynamicCache``; None for nothing.
        device: Where to keep them.
    """

    def __init__(self, n_bytes: int, prefix: Any, device: str) -> None:
        self.n_bytes = n_bytes
        layers = prefix.layers if prefix is not None else []
        self.prefix = [(layer.keys.to(device), layer.values.to(device)) for layer in layers]
        self.n_prefix = self.prefix[0][0].shape[2] if layers else 0
        self.reads: list[tuple[_Read, int]] = []  # with what each takes, longest unused first

    def take(self, ids: np.ndarray) -> _Read:
        """A prompt with what is held of its beginning; at least its last token is left to read.

        What is held for the same history is taken over. What merely begins alike, as all people's instructions do, is
        copied: another one has as much in common with the prompt, or much of what is held is somebody's own.
        """
        common = [_n_common(read.ids[: read.n_read], ids[:-1]) for read, _ in self.reads]
        best = int(np.argmax(common)) if common else -1
        if best < 0 or not common[best]:
            return _Read(ids, 0, _cache_of(self.prefix))
        n, read = common[best], self.reads[best][0]
        if read.n_read - n <= _TAIL and common.count(n) == 1:
            del self.reads[best]
            read.cache.crop(self.n_prefix + n)
            return _Read(ids, n, read.cache)
        kept = slice(0, self.n_prefix + n)
        copied = [(layer.keys[:, :, kept].clone(), layer.values[:, :, kept].clone()) for layer in read.cache.layers]
        return _Read(ids, n, _cache_of(copied))

    def keep(self, read: _Read) -> None:
        """Hold what was read, at the cost of what was used longest ago."""
        tensors = [held for layer in read.cache.layers if layer.is_initialized for held in (layer.keys, layer.values)]
        size = sum(held.untyped_storage().nbytes() for held in tensors)
        if read.n_read and size <= self.n_bytes:
            self.reads.append((read, size))
        while sum(size for _, size in self.reads) > self.n_bytes:
            del self.reads[0]

    def clear(self) -> None:
        """Hold nothing."""
        self.reads.clear()


def _cache_of(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """A cache of keys and values, shape ``(1, n_heads, n, n_per_head)`` each."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for i, (keys, values) in enumerate(layers):
        cache.update(keys, values, i)
    return cache


def _n_common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the longest common beginning."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    return int(differs.argmax()) if differs.any() else n


def _until(cancelled: threading.Event, search: Search[T]) -> Search[T]:
    """A search that ends before its next round once nobody waits for it."""
    try:
        tree = next(search)
        while not cancelled.is_set():
            tree = search.send((yield tree))
        raise EngineError("the search was cancelled")
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        search.close()


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


def causal_model(folder: Path, *, dtype: str = "auto", **options: Any) -> Any:
    """Load a causal language model.

    Args:
        folder: A local model folder.
        dtype: ``auto`` (as saved), ``float32`` or ``bfloat16``.
        options: What else transformers is to be told.

    Raises:
        ModelError: If the folder holds none.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype if dtype == "auto" else getattr(torch, dtype), local_files_only=True, **options
        )
    except Exception as error:  # damaged weights raise errors of the libraries that read them
        raise ModelError(
            f"{folder} holds no causal language model that transformers can load: {error}",
            hint="Get a whole model with: genrec models get NAME; or write it again with save_pretrained().",
        ) from error


def cast_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Change the type of all weights, and of no buffers: positions are told apart in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def best_device() -> str:
    """A GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
