"""The language model on a vLLM server, over HTTP: the same exact search against a stock ``vllm serve``.

Questions go to ``/v1/completions``: prompts as token ids, one token to generate, and the tokens whose log-probabilities
are wanted named in `logprob_token_ids`. The server answers from its full softmax, whatever else is named, so questions
of one round share a call as long as the union of what they name stays within the server's limit. Its
``/inference/v1/generate`` would take each question's own tokens, but a stock server keeps that door shut.

All HTTP is done on one event loop in a thread of its own, so any number of other loops can wait for answers. Every
question stands for itself: one that met a server that was busy, gone or being restarted is asked again, and a search
gets all answers or an error. Knows the server's interface, not vLLM: nothing of it needs to be installed here. Sends
token ids only; the one text it ever sends is its own, to compare tokenizers.

Measured against vLLM 0.32.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genrec.engines.base import Usage, too_long
from genrec.engines.requests import MAX_NAMED_TOKENS, Background, Question, RequestEngine, all_of
from genrec.errors import ConfigError, EngineError, ModelError
from genrec.tokenizer import HfTokenizer

if TYPE_CHECKING:
    import httpx2

MAX_PROMPTS = 256
"""Prompts of one call; a stock server takes 1024."""

BUSY = (429, 502, 503, 504)
"""Status codes after which the same question is asked again."""

SAMPLE = "Monday, 31 May 2021 | crème brûlée; 12×0.5 L Wasser; don't; 日本語; привет 🙂\n"
"""What tokenizers are compared by: they agree on plain English sooner than on this."""

ADDRESS = "Write it like http://localhost:8000"

IMPOSSIBLE = -9999.0
"""How the server writes minus infinity."""


class VllmServerEngine(RequestEngine):
    """Asks a language model on a vLLM server.

    `Usage` counts a request for every prompt. How much of a prompt was cached the server tells only when it was started
    with ``--enable-prompt-tokens-details``, and then of the last prompt of a call; what it does not tell counts as
    computed.

    Args:
        folder: A local model folder with the tokenizer of the server's model; nothing else of it is read.
        model: What to call the model.
        dtype: Not used: the server has decided. It is here because every engine is offered one.
        base_url: Where the server is, with or without ``/v1``.
        api_key: What the server was given as ``--api-key``; empty for none.
        served_model: The model's name on the server, an adapter's, say; the only one served when empty.
        max_tokens: Longest prompt plus continuation; the server's own limit where that is less.
        n_parallel: People whose searches are under way at once; twice as many connections are kept open.
        timeout_s: Longest wait for an answer, in seconds, with all that is tried again.
        cache_salt: Whoever sends the same one shares the server's prefix cache with this engine, and could tell by the
            time an answer takes what it has asked; a random one when empty.

    Raises:
        ConfigError: If an option cannot be right.
        ModelError: If httpx2 is missing, or the server's model is not the one in the folder.
        EngineError: If the server does not answer, or cannot do what is asked.
    """

    name: ClassVar[str] = "vllm-server"

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        dtype: str = "auto",
        base_url: str = "http://localhost:8000",
        api_key: str = "",
        served_model: str = "",
        max_tokens: int = 4096,
        n_parallel: int = 64,
        timeout_s: float = 120.0,
        cache_salt: str = "",
    ) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise ModelError(
                f"the engine 'vllm-server' cannot be imported: {error}", hint="pip install 'genrec[vllm-server]'"
            ) from error
        try:
            url = httpx2.URL(base_url.rstrip("/").removesuffix("/v1"))
        except httpx2.InvalidURL as error:
            raise ConfigError(f"base_url is no address: {error}", hint=ADDRESS) from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError("base_url does not begin with http:// or https:// and a name", hint=ADDRESS)
        if timeout_s <= 0 or n_parallel < 1 or max_tokens < 2:
            raise ConfigError("timeout_s, n_parallel and max_tokens must be positive")
        if len(cache_salt) > 100 or any(character in cache_salt for character in "@/\\\0"):
            raise ConfigError("cache_salt is longer than 100 characters or holds one of @ / \\")
        self.model, self.usage, self.tokenizer = model, Usage(), HfTokenizer(folder)
        self._url = url.copy_with(userinfo=b"")  # what errors may show
        self._timeout_s = timeout_s
        self._salt = self._own_salt = cache_salt or secrets.token_hex()
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(None, connect=10.0),  # the time to wait is counted over all attempts
            # The server closes idle connections after 5 s; a question must not set out on one that is being closed.
            limits=httpx2.Limits(max_connections=2 * n_parallel, keepalive_expiry=4.0),
        )
        self._there = Background("genrec-vllm-server")
        super().__init__(self._there, n_parallel=n_parallel)
        try:
            self.max_tokens, self._served, self._fingerprint = max_tokens, "", None
            self._there.wait(self._meet(folder, served_model))
        except BaseException:
            self.close()
            raise

    def forget(self) -> None:
        """Leave what the server has cached behind; it makes room there when it is needed."""
        self._salt = f"{self._own_salt}-{secrets.token_hex(8)}"

    def close(self) -> None:
        """End what is under way and hang up; closing twice does no harm."""
        if self._there.is_stopped:
            return

        async def end() -> None:
            await self._there.end_others()
            await self._http.aclose()

        try:
            self._there.wait(end())
        finally:
            self._there.stop()

    async def _ask(self, prompt: list[int], questions: Sequence[Question]) -> tuple[list[list[float]], Usage]:
        n_longest = len(prompt) + max(len(question.path) for question in questions)
        if not prompt or n_longest >= self.max_tokens:
            raise too_long(n_longest, self)
        calls = share_calls(questions)
        used = Usage()
        work = all_of(self._call(prompt, [questions[i] for i in call], used) for call in calls)
        answers: list[list[float]] = [[] for _ in questions]
        for call, found in zip(calls, await self._there.elsewhere(work), strict=True):
            for i, values in zip(call, found, strict=True):
                answers[i] = values
        return answers, used

    async def _call(self, prompt: list[int], questions: Sequence[Question], used: Usage) -> list[list[float]]:
        """Log-probabilities for questions that name no more than `MAX_NAMED_TOKENS` different tokens together.

        Counts what they took.
        """
        prompts = [prompt + question.path for question in questions]
        named = list(dict.fromkeys(token for question in questions for token in question.tokens))
        answer = await self._complete(prompts, named)
        try:
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if (fingerprint := answer.get("system_fingerprint")) != self._fingerprint:
                raise EngineError(
                    f"another model or server answers at {self._url} than did at the start: {fingerprint}, which was "
                    f"{self._fingerprint}",
                    hint="Build the engine anew.",
                )
            if any(choice.get("finish_reason") == "abort" for choice in choices):
                raise EngineError(f"the server at {self._url} has dropped a request", retryable=True)
            found = [_values(choice, question.tokens) for choice, question in zip(choices, questions, strict=True)]
            n_cached = ((answer.get("usage") or {}).get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._strange(error) from error
        if not all(value <= 1e-3 for values in found for value in values):
            raise EngineError(
                f"the server at {self._url} gives something else for log-probabilities: above zero or not a number",
                hint="Start it without --logprobs-mode.",
            )
        n_prompt = sum(map(len, prompts))
        used += Usage(
            n_prompt_tokens=n_prompt,
            n_cached_tokens=n_cached,
            n_computed_tokens=n_prompt - n_cached,
            n_requests=len(prompts),
        )
        return found

    async def _complete(self, prompt: list[list[int]] | str, named: Sequence[int], *, patient: bool = True) -> Any:
        """What the server says of named tokens after prompts."""
        body = {
            "model": self._served,
            "prompt": prompt,
            "add_special_tokens": False,
            "max_tokens": 1,
            "logprobs": 0,  # or the server would not look at the next line; no limit of the server's counts for it
            "logprob_token_ids": named,
            "return_tokens_as_token_ids": True,  # different tokens can have the same text
            "return_token_ids": isinstance(prompt, str),
            "cache_salt": self._salt,
            # A model's own sampling defaults stay out, also where a server reports what is left after them.
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        return await self._send("POST", "v1/completions", body, patient=patient)

    async def _meet(self, folder: Path, served_model: str) -> None:
        """Find out which model the server has, and whether it is the right one and can be asked."""
        models = await self._send("GET", "v1/models", patient=False)
        try:
            cards = {str(card["id"]): card for card in models["data"]}
            names = ", ".join(cards) or "none"
            if not served_model and len(cards) == 1:
                [served_model] = cards
            card = cards.get(served_model)
            limit = card and (card.get("max_model_len") or cards.get(card.get("parent"), {}).get("max_model_len"))
        except (LookupError, TypeError, AttributeError) as error:
            raise self._strange(error) from error
        if card is None:
            what = f"has no model {served_model!r}" if served_model else "does not have one model"
            raise ModelError(f"the server at {self._url} {what}; it serves: {names}", hint=_set("served_model"))
        self._served, self.max_tokens = served_model, min(self.max_tokens, limit or self.max_tokens)
        [ids] = self.tokenizer.encode([SAMPLE])
        answer = await self._complete(SAMPLE, ids[-1:], patient=False)
        try:
            [choice] = answer["choices"]
            theirs = choice.get("prompt_token_ids")
            self._fingerprint = answer.get("system_fingerprint")
            answered = f"token_id:{ids[-1]}" in choice["logprobs"]["top_logprobs"][0]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._strange(error) from error
        if theirs is None or not answered:
            field = "return_token_ids" if theirs is None else "logprob_token_ids"
            raise EngineError(
                f"the server at {self._url} does not know {field}, without which a search cannot be exact",
                hint="It takes vLLM 0.32, and nothing in between that drops fields it does not know.",
            )
        if theirs != ids:
            raise ModelError(
                f"the model {served_model!r} at {self._url} has another tokenizer than {folder}",
                hint="Set model in genrec.toml to the one that the server runs.",
            )

    async def _send(self, method: str, path: str, body: Any = None, *, patient: bool) -> Any:
        """Ask, and where `patient` ask again while the server is busy or away; the answer's JSON.

        Raises:
            EngineError: If no answer comes in time, or a refusal.
        """
        import httpx2

        pause_s, last = 0.1, "no answer yet"
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    after_s = 0.0
                    try:
                        response = await self._http.request(method, path, json=body)
                    except httpx2.TransportError as error:
                        last = f"{type(error).__name__} {error}".strip()
                    else:
                        if response.status_code not in BUSY:
                            return self._read(response)
                        last = f"status {response.status_code}, {_message(response)}"
                        if (after := response.headers.get("retry-after", "")).isdecimal():
                            after_s = float(after)
                    if not patient:
                        break
                    await asyncio.sleep(max(after_s, random.uniform(0.5, 1.0) * pause_s))
                    pause_s = min(2 * pause_s, 5.0)
        except TimeoutError:
            last = f"nothing within timeout_s = {self._timeout_s:g} ({last})"
        raise EngineError(
            f"the server at {self._url} does not answer: {last}",
            hint=f"Is it running? curl {self._url}/health; {_set('base_url')}",
            retryable=True,
        )

    def _read(self, response: httpx2.Response) -> Any:
        """An answer's JSON, or the error that it stands for."""
        status = response.status_code
        if status == 200:
            try:
                return response.json()
            except ValueError as error:
                raise self._strange(error) from error
        message = _message(response)
        if status in (401, 403):
            hint = f"{_set('api_key')} to what the server was given as --api-key, best as env:NAME"
        elif status == 404:
            hint = f"{_set('base_url')}, or {_set('served_model')}"
        else:
            hint = "genrec asks like a client of vLLM 0.32; see the server's log."
        raise EngineError(
            f"the server at {self._url} refuses: status {status}, {message}", hint=hint, retryable=status >= 500
        )

    def _strange(self, error: Exception) -> EngineError:
        return EngineError(
            f"the server at {self._url} does not answer like vLLM 0.32: {type(error).__name__} {error}",
            hint=f"Is it one? curl {self._url}/version; {_set('base_url')}",
        )


def share_calls(questions: Sequence[Question]) -> list[list[int]]:
    """Questions that can be asked in one call: what they name together stays within `MAX_NAMED_TOKENS`.

    Each goes to the first call that has room for it.

    Returns:
        Indices of the questions of each call.
    """
    calls: list[tuple[list[int], set[int]]] = []
    for i, question in enumerate(questions):
        for call, named in calls:
            if len(call) < MAX_PROMPTS and len(named.union(question.tokens)) <= MAX_NAMED_TOKENS:
                break
        else:
            call, named = [], set()
            calls.append((call, named))
        call.append(i)
        named.update(question.tokens)
    return [call for call, _ in calls]


def _values(choice: Any, tokens: Sequence[int]) -> list[float]:
    top = choice["logprobs"]["top_logprobs"][0]
    values = [float(top[f"token_id:{token}"]) for token in tokens]
    return [-math.inf if value <= IMPOSSIBLE else value for value in values]


def _message(response: httpx2.Response) -> str:
    """What a refusal says."""
    try:
        body = response.json()
        error = body.get("error", body)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(text.split())[:300] or "no message"


def _set(option: str) -> str:
    return f"Set {option} under [engines.vllm-server] in genrec.toml"
