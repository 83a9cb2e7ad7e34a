"""One tree of errors. Each says what happened and why, carries a hint with the next step, and has an exit code.

- GenrecError                1
    - ConfigError            3   genrec.toml, an option, a workspace
    - DataError              4   what a source brought in
    - StoreError             5   the database, the disk below it
        - TextTakenError         a text for an item belongs to another
    - PluginError            6   a plugin is unknown, broken or registered twice
    - PromptError            7   a template or what it was given
    - ModelError             8   a model name, folder or download; a missing extra
    - EngineError            9   the engine failed or cannot do what was asked
    - EmptyCatalogError     10   no item is left to recommend
    - TrainingError         11   there is nothing to learn, a loss is no number, a checkpoint is of another run

Exit code 2 is click's own, for a command line that does not parse.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection


class GenrecError(Exception):
    """Base of every error that genrec raises on purpose.

    Args:
        message: What happened and why, one or two sentences.
        hint: What to do next, if there is one thing to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(GenrecError):
    """The configuration, an option or the workspace is wrong."""

    exit_code = 3


class DataError(GenrecError):
    """A source brought in something that cannot be stored as it is."""

    exit_code = 4


class StoreError(GenrecError):
    """The database, or the disk below it, failed."""

    exit_code = 5


class TextTakenError(StoreError):
    """A text that was to be assigned belongs to another item, or the item has another text."""


class PluginError(GenrecError):
    """A plugin is unknown, broken or registered twice."""

    exit_code = 6


class PromptError(GenrecError):
    """A prompt template is wrong, or was given something it cannot render."""

    exit_code = 7


class ModelError(GenrecError):
    """A model cannot be found, fetched or loaded."""

    exit_code = 8


class EngineError(GenrecError):
    """The engine failed or cannot do what was asked of it.

    Args:
        message: As for `GenrecError`.
        hint: As for `GenrecError`.
        retryable: Whether the same request may well succeed a little later.
    """

    exit_code = 9

    def __init__(self, message: str, *, hint: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class EmptyCatalogError(GenrecError):
    """No item is left to recommend: the catalogue is empty or every item is filtered out."""

    exit_code = 10


class TrainingError(GenrecError):
    """Training cannot begin or go on."""

    exit_code = 11


def meant(name: str, known: Collection[str]) -> str:
    """``Did you mean 'x'?``, x being the known name most like one that is not known; empty if none is like it."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def meant_or_known(name: str, known: Collection[str]) -> str:
    """The same, or else the first eight of those that are known."""
    some = ", ".join(sorted(known)[:8]) + (" …" if len(known) > 8 else "")
    return meant(name, known) or f"There are: {some or 'none'}."
