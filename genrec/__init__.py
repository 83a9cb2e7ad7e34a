"""genrec: a recommender that is a language model.

`import genrec` is instant: what needs a model is imported when it is first used.
"""

from __future__ import annotations

from genrec.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl"]
