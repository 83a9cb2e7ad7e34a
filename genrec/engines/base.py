"""What the search asks of a language model: log-probabilities over token trees.

The protocol is in token ids and knows nothing of catalogues. A `TokenTree` hangs from the end of a prompt; the engine
returns the raw log-probability of every node given the prompt and the path above it. How it gets there (tree
attention, cached prefixes, chunks of one-token requests) is its own business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias, TypeVar

import numpy as np

from genrec.errors import EngineError
from genrec.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenTree:
    """Continuations of a prompt that share their beginnings; a parent stands before its children."""

    parent: np.ndarray
    """Index of each node's parent, -1 below the end of the prompt. Shape ``(n,)``, int32."""
    token: np.ndarray
    """Each node's token id; siblings differ. Shape ``(n,)``, int32."""
    wanted: np.ndarray
    """Whose log-probability is asked for; the other nodes only lead there. Shape ``(n,)``, bool."""

    def __len__(self) -> int:
        return len(self.parent)


T = TypeVar("T")
Search = Generator[TokenTree, np.ndarray, T]
"""Yields a token tree, is sent its nodes' log-probabilities (nats, shape ``(n,)``, float64; those not wanted may be
anything), returns a result."""


@dataclass(kw_only=True)
class Usage:
    """What an engine has done since it started; a difference of two is what a call cost."""

    n_prompt_tokens: int = 0
    """Positions that the answers needed, of prompts and of the paths below them; each request counts its own."""
    n_cached_tokens: int = 0
    """Those of them whose keys and values were there already."""
    n_computed_tokens: int = 0
    """Those of them that were run through the model."""
    n_requests: int = 0
    """Forward passes (transformers) or requests (vLLM), of which many can share a call over HTTP."""

    def __iadd__(self, other: Usage) -> Usage:
        """Count on."""
        for name, n in vars(other).items():
            setattr(self, name, getattr(self, name) + n)
        return self


Job: TypeAlias = tuple[Sequence[int], Search[T]] | tuple[Sequence[int], Search[T], Usage]
"""A prompt's token ids, a search over what may follow it and, if wanted, where to count what this search costs."""


def too_long(n_tokens: int, engine: Engine) -> EngineError:
    """The error for a prompt that does not fit."""
    return EngineError(
        f"a prompt of {n_tokens} tokens does not fit: {engine.model} takes 1 to {engine.max_tokens - 1}",
        hint="Lower history.max_tokens in genrec.toml.",
    )


class Engine(ABC):
    """A language model that scores token trees."""

    name: ClassVar[str]
    """What a user types after ``--engine``."""
    model: str
    """Which model answers, as the user named it."""
    tokenizer: Tokenizer
    max_tokens: int
    """Longest prompt plus continuation that the model takes."""
    usage: Usage
    prompt_tail: int = 0
    """How many tokens of a prompt best lie behind the last whole block of a cache: 1 where one node of a tree can take
    several requests, each of which reads the prompt's last token and what of its block lies before it."""
    margin: ClassVar[float] = 2.0
    """How far to guess ahead, see `genrec.decoding.search`: 1 where each branch costs as much as a round."""

    @abstractmethod
    def run(self, searches: Iterable[Job[T]]) -> list[T]:
        """Drive searches to their end, as many at once as the engine likes.

        Args:
            searches: What to read and what to ask about it; taken as the engine gets to them, maybe in another thread.

        Returns:
            The searches' results, in the order given.

        Raises:
            EngineError: If the model fails or a prompt is too long for it.
        """

    @abstractmethod
    async def drive(self, prompt: Sequence[int], search: Search[T], usage: Usage | None = None) -> T:
        """Drive one search to its end, for a server: on the caller's event loop, beside any number of others.

        Whoever cancels it ends the search there and then; other searches go on. Raises as `run` does.
        """

    @abstractmethod
    def prefill(self, prompts: Iterable[Sequence[int]]) -> None:
        """Read prompts and nothing more: what a recommendation costs at the very least."""

    def use(self, adapter: Path | None) -> None:
        """Answer with an adapter from the next search on; searches under way go on with the one before.

        Args:
            adapter: Its folder; None for the model as it is.

        Raises:
            ModelError: If the adapter cannot be loaded.
            EngineError: If the engine cannot change while it runs.
        """
        raise EngineError(
            f"the engine {self.name!r} cannot change its adapter while it runs",
            hint="Choose it with genrec adapters use, and start again.",
        )

    @abstractmethod
    def forget(self) -> None:
        """Empty what the engine keeps between calls."""

    @abstractmethod
    def close(self) -> None:
        """Give memory and processes back; closing twice does no harm."""
