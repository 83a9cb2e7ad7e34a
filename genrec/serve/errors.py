"""What goes wrong while serving, as HTTP says it: ``{"error": {"type", "message", "hint", "retryable"}}`` and a status.

Knows no routes. Messages name fields and limits, never values that a client sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from genrec.errors import (
    ConfigError,
    DataError,
    EmptyCatalogError,
    EngineError,
    GenrecError,
    ModelError,
    PromptError,
    StoreError,
)


class ServeError(GenrecError):
    """A request that cannot be answered.

    Args:
        message: What happened and why.
        status: The HTTP status.
        type: A word for programs, e.g. ``bad_request``.
        hint: What to do next.
        retryable: Whether the same request may succeed later.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str,
        hint: str | None = None,
        retryable: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.type, self.retryable, self.headers = status, type, retryable, dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "error": {"type": self.type, "message": str(self), "hint": self.hint, "retryable": self.retryable},
        }


_STATUS: Mapping[type[GenrecError], tuple[int, str, bool]] = {
    ConfigError: (422, "bad_request", False),  # while answering, only a query can be wrong
    ModelError: (409, "refused", False),  # an adapter was asked for
    DataError: (422, "bad_request", False),
    PromptError: (422, "bad_request", False),
    EmptyCatalogError: (503, "empty_catalog", True),
}


def as_serve_error(error: Exception) -> ServeError:
    """How an error is said over HTTP; one that nobody foresaw is not said, but logged by who calls this."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, ValidationError):
        return invalid(error)
    if isinstance(error, EngineError):
        status = 503 if error.retryable else 500
        return ServeError(str(error), status=status, type="engine_failed", hint=error.hint, retryable=error.retryable)
    if isinstance(error, StoreError):  # which names files, servers and statements
        return ServeError("the store failed; the log says why", status=503, type="store_failed", retryable=True)
    for kind, (status, type_, retryable) in _STATUS.items():
        if isinstance(error, kind):
            return ServeError(str(error), status=status, type=type_, hint=error.hint, retryable=retryable)
    return ServeError("the server failed; its log says why", status=500, type="internal")


def invalid(error: ValidationError) -> ServeError:
    """A body that parses but says something wrong: every wrong field in one sentence."""
    wrong = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: "
        + ("there is no such field" if problem["type"] == "extra_forbidden" else problem["msg"])
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    return ServeError(shown, status=422, type="bad_request", hint="The fields are described at /openapi.json.")


def timed_out(timeout_s: float) -> ServeError:
    """The time for a request is over."""
    return ServeError(
        f"no answer within {timeout_s:g} s",
        status=504,
        type="timeout",
        hint="Try again, with a larger timeout_s or fewer items.",
        retryable=True,
    )
