"""The plugin door: every hook a distribution can implement, and nothing else.

A hook returns a mapping from the name a user types to the class behind it. Classes are dataclasses; their fields are
the options in ``genrec.toml``. Import heavy packages inside methods: listing plugins must stay instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from genrec.engines.base import Engine
    from genrec.engines.chat import Chat
    from genrec.media.base import MediaReader
    from genrec.priors.base import Prior
    from genrec.rerank import Reranker
    from genrec.sources.base import Source

hookspec = pluggy.HookspecMarker("genrec")
hookimpl = pluggy.HookimplMarker("genrec")
"""Marks a function of a plugin module as the implementation of a hook below."""


@hookspec
def genrec_sources() -> Mapping[str, type[Source]]:  # type: ignore[empty-body]
    """Connectors, by the name typed after ``genrec import``."""


@hookspec
def genrec_rerankers() -> Mapping[str, type[Reranker]]:  # type: ignore[empty-body]
    """Rerankers, by the name used in ``rerank = [...]``."""


@hookspec
def genrec_priors() -> Mapping[str, type[Prior]]:  # type: ignore[empty-body]
    """Untrained voices, by the name used in ``prior = "..."``."""


@hookspec
def genrec_engines() -> Mapping[str, type[Engine | Chat]]:  # type: ignore[empty-body]
    """What runs the language model, by the name typed after ``--engine``."""


@hookspec
def genrec_prompts() -> Mapping[str, Traversable]:  # type: ignore[empty-body]
    """Folders of prompt templates; the name says whose they are. A workspace's own templates come first."""


@hookspec
def genrec_media() -> Mapping[str, type[MediaReader]]:  # type: ignore[empty-body]
    """Readers of pictures, sounds and texts, by the name of their table ``[media.NAME]``."""
