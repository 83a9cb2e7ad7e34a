"""A language model behind an OpenAI-compatible chat endpoint: conversations in, free text out.

No `Engine`: such an endpoint gives no log-probabilities of named tokens, so nothing can be searched. What it
writes is made into items by `genrec.ground`. One request an answer, for not every endpoint takes a number of answers;
all requests of all people share a few connections. Knows nothing of items or history.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar

from genrec.errors import ConfigError, EngineError, ModelError
from genrec.vectors import ALIKE

if TYPE_CHECKING:
    import httpx2

CHARS_PER_TOKEN = 4
"""How many characters of a prompt are counted as one token; the endpoint's own tokenizer is not known."""
TOKENS_PER_TITLE = 16
"""Room for one title in an answer."""
MAX_WAIT_S = 30.0
"""Longest wait before a request is sent again."""
RETRIED = {408, 429, 500, 502, 503, 504}
"""HTTP statuses that may pass."""

Turns = Sequence[tuple[str, str]]
"""A conversation: ``(role, text)`` of each turn."""


@dataclass(kw_only=True)
class Chat:
    """Asks a chat endpoint for free text; the fields are the options below ``[engines.chat]``."""

    name: ClassVar[str] = "chat"
    """What a user types after ``--engine``."""

    model: str
    """What the endpoint calls the model."""
    base_url: str
    """Where the endpoint is, ``/chat/completions`` left out, e.g. ``http://localhost:8000/v1``."""
    api_key: str = field(default="", repr=False)
    """Sent as a bearer token; write ``env:NAME`` to keep it out of the file."""
    n_answers: int = 4
    """How many answers are asked for one person; their titles vote."""
    temperature: float = 0.7
    """How freely the model draws its words; at 0 all answers are the same."""
    timeout_s: float = 60.0
    """How long to wait for an answer."""
    n_retries: int = 3
    """How often a request is sent again when the endpoint is busy, fails or cannot be reached."""
    n_parallel: int = 8
    """Requests under way at once."""
    threshold: float = ALIKE
    """Least cosine between a written title and the item that it is taken for."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of a request, e.g. ``{ top_p = 0.9 }``; an empty text leaves a field out."""

    def __post_init__(self) -> None:
        self.api_key = self.api_key.strip()
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError("the api_key of the engine 'chat' has characters that no key has")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"the engine 'chat' needs a base_url that starts with http:// or https://, not {self.base_url!r}",
                hint='Set it below [engines.chat] in genrec.toml, e.g. base_url = "http://localhost:8000/v1".',
            )
        for option in ("n_answers", "n_parallel", "timeout_s"):
            if not getattr(self, option) > 0:
                raise ConfigError(f"the engine 'chat' needs {option} above 0, not {getattr(self, option)}")
        for option in ("n_retries", "temperature"):
            if not getattr(self, option) >= 0:
                raise ConfigError(f"the engine 'chat' needs {option} of at least 0, not {getattr(self, option)}")

    def answers(self, conversations: Iterable[Turns], n_titles: int) -> list[list[str]]:
        """Ask for `n_answers` answers to each conversation.

        Args:
            conversations: What the model reads.
            n_titles: How many titles an answer has room for.

        Returns:
            The answers' texts, a list for each conversation, in the order given. An answer cut off for its length ends
            with its last whole title.

        Raises:
            ModelError: If the client's package is missing, or the endpoint does not know the model.
            EngineError: If the endpoint cannot be reached, refuses, fails or answers with something else.
        """
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise ModelError(
                f"the engine 'chat' needs the package {error.name}", hint="pip install 'genrec[chat]'"
            ) from error
        bodies = [self._body(turns, n_titles) for turns in conversations]
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        try:
            client = httpx2.Client(headers=headers, timeout=self.timeout_s)
            address = httpx2.URL(self._url)
        except (httpx2.InvalidURL, ValueError) as error:
            raise ConfigError(f"the engine 'chat' cannot use its base_url or api_key: {error}") from None
        over = Event()
        with client, ThreadPoolExecutor(self.n_parallel) as pool:
            try:
                waiting = [
                    [pool.submit(self._ask, client, address, body, over) for _ in range(self.n_answers)]
                    for body in bodies
                ]
                return [[answer.result() for answer in answers] for answers in waiting]
            finally:  # after an error nobody goes on asking
                over.set()
                pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _url(self) -> str:
        return self.base_url.rstrip("/") + "/chat/completions"

    def _body(self, turns: Turns, n_titles: int) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in turns],
            "temperature": self.temperature,
            "max_tokens": TOKENS_PER_TITLE * (n_titles + 2),
        }
        return {key: value for key, value in (body | dict(self.options)).items() if value != ""}

    def _ask(self, client: httpx2.Client, address: httpx2.URL, body: Mapping[str, Any], over: Event) -> str:
        """One answer; what may pass is tried again after a wait that doubles, or as long as the endpoint asks for."""
        import httpx2

        for n_tried in range(self.n_retries + 1):
            is_last = n_tried == self.n_retries or over.is_set()
            asked_s = 0.0
            try:
                response = client.post(address, json=body)
            except (httpx2.ReadTimeout, httpx2.WriteTimeout):
                raise EngineError(
                    f"{self._shown} gave no answer within {self.timeout_s:g} s",
                    hint="Raise timeout_s below [engines.chat] in genrec.toml.",
                ) from None
            except httpx2.RequestError as error:
                if is_last:
                    raise EngineError(
                        f"{self._shown} cannot be reached: {error or type(error).__name__}",
                        hint="Check base_url below [engines.chat] in genrec.toml, and that the server runs.",
                    ) from None
            else:
                if is_last or response.status_code not in RETRIED:
                    return self._text(response)
                asked_s = _seconds(response.headers.get("Retry-After", ""))
            over.wait(min(max(asked_s, 2**n_tried * random.uniform(0.25, 0.5)), MAX_WAIT_S))
        raise AssertionError("unreachable")

    @property
    def _shown(self) -> str:
        """The address as a message may show it: without a password."""
        import httpx2

        return str(httpx2.URL(self._url).copy_with(username=None, password=None))

    def _text(self, response: httpx2.Response) -> str:
        status = response.status_code
        try:
            content = response.json()
        except ValueError:
            content = None
        if status == 200:
            return self._content(content)
        said = _said(content)
        what = f"{self._shown} answered {status}{f': {said}' if said else ''}"
        if status in (401, 403):
            raise EngineError(
                f"{what}; it refuses the API key" if self.api_key else f"{what}; it asks for an API key",
                hint='Set api_key = "env:NAME" below [engines.chat] in genrec.toml, and the variable NAME.',
            )
        if status == 404 and said and self.model in said:
            raise ModelError(
                what,
                hint=f"Choose one of the endpoint's models with --model; they are listed at "
                f"{self._shown.removesuffix('/chat/completions')}/models.",
            )
        if status == 404:
            raise EngineError(what, hint="Check base_url below [engines.chat] in genrec.toml; most end in /v1.")
        if status == 429 or status >= 500:
            raise EngineError(
                f"{what}, {self.n_retries + 1} times", hint="Try again later, or lower n_parallel below [engines.chat]."
            )
        raise EngineError(
            what,
            hint="Fields of the request can be set or left out by options below [engines.chat]; see docs/ground.md.",
        )

    def _content(self, content: Any) -> str:
        try:
            choice = content["choices"][0]
            text = choice["message"]["content"]
            if text is None:  # the model refused, or thought until its room was used up
                return ""
            if not isinstance(text, str):
                raise TypeError
        except (LookupError, TypeError):
            raise EngineError(
                f"{self._shown} answered with something that is no chat completion",
                hint="Check base_url below [engines.chat] in genrec.toml: it must be an OpenAI-compatible endpoint.",
            ) from None
        if choice.get("finish_reason") == "length":
            text = text[: max(text.rfind("\n"), text.rfind(";")) + 1] or text
        return text


def _said(content: Any) -> str:
    """The message in an error's body, in its usual places, on one line."""
    for place in (content.get("error"), content) if isinstance(content, dict) else ():
        message = place.get("message") if isinstance(place, dict) else place
        if isinstance(message, str):
            return " ".join(message.split())[:300]
    return ""


def _seconds(header: str) -> float:
    """What ``Retry-After`` asks for; a date in it counts for nothing."""
    return float(header) if header.isdecimal() else 0.0
