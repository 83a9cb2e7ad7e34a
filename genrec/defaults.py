"""Core's own parts, registered through the door that plugins use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from genrec.hookspecs import hookimpl

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from genrec.engines.base import Engine
    from genrec.engines.chat import Chat
    from genrec.media.base import MediaReader
    from genrec.priors.base import Prior
    from genrec.rerank import Reranker
    from genrec.sources.base import Source


@hookimpl
def genrec_priors() -> Mapping[str, type[Prior]]:
    """Untrained voices."""
    from genrec.priors.basket import Basket
    from genrec.priors.blend import Blend
    from genrec.priors.ease import Ease
    from genrec.priors.friends import Friends
    from genrec.priors.nearby import Nearby
    from genrec.priors.neighbours import Neighbours
    from genrec.priors.popularity import Popularity
    from genrec.priors.repeat import Repeat
    from genrec.priors.sequence import Sequence
    from genrec.priors.text import Text

    return {
        "basket": Basket,
        "blend": Blend,
        "ease": Ease,
        "friends": Friends,
        "nearby": Nearby,
        "neighbours": Neighbours,
        "popularity": Popularity,
        "repeat": Repeat,
        "sequence": Sequence,
        "text": Text,
    }


@hookimpl
def genrec_rerankers() -> Mapping[str, type[Reranker]]:
    """Rerankers that need no dependency of their own."""
    from genrec.rerank import Diversity

    return {"diversity": Diversity}


@hookimpl
def genrec_engines() -> Mapping[str, type[Engine | Chat]]:
    """Engines; their packages are imported when one is started."""
    from genrec.engines.chat import Chat
    from genrec.engines.transformers import TransformersEngine
    from genrec.engines.vllm import VllmEngine
    from genrec.engines.vllm_server import VllmServerEngine

    return {
        "chat": Chat,
        "transformers": TransformersEngine,
        "vllm": VllmEngine,
        "vllm-server": VllmServerEngine,
    }


@hookimpl
def genrec_sources() -> Mapping[str, type[Source]]:
    """Sources that need no dependency of their own."""
    from genrec.sources.file import FileSource

    return {"file": FileSource}


@hookimpl
def genrec_prompts() -> Mapping[str, Traversable]:
    """The templates that come with genrec."""
    from genrec.prompt import bundled_prompts

    return {"genrec": bundled_prompts()}


@hookimpl
def genrec_media() -> Mapping[str, type[MediaReader]]:
    """Readers; their packages are imported when a file is read."""
    from genrec.media.models import Caption, Sounds, Tags
    from genrec.media.ocr import Ocr
    from genrec.media.text import Text

    return {"caption": Caption, "ocr": Ocr, "sounds": Sounds, "tags": Tags, "text": Text}
