"""What plugins are tested with: contracts to subclass, one for each kind of part; `tiny` makes a model in a second."""

from __future__ import annotations

from genrec.testing.rerankers import RerankerContract
from genrec.testing.sources import SourceContract

__all__ = ["RerankerContract", "SourceContract"]
