"""genrec: a recommender that is a language model.

    import genrec

    with genrec.open("genrec-demo", engine="none") as workspace:
        answer = workspace.recommender().recommend("1985", at="2017-11-22T18:00", k=5)
        for item in answer.items:
            print(item.rank, item.title, round(item.logprob, 2))

`import genrec` is instant: what a name stands for is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from genrec.hookspecs import hookimpl

if TYPE_CHECKING:
    from genrec.catalog import Catalog
    from genrec.errors import GenrecError
    from genrec.events import Context, Event, Item, User
    from genrec.recommendation import Query, Recommendation
    from genrec.recommender import Recommender
    from genrec.store import Store
    from genrec.workspace import Workspace
    from genrec.workspace import open_workspace as open

__version__ = "0.1.0"
__all__ = [
    "Catalog",
    "Context",
    "Event",
    "GenrecError",
    "Item",
    "Query",
    "Recommendation",
    "Recommender",
    "Store",
    "User",
    "Workspace",
    "__version__",
    "hookimpl",
    "open",
]

_HOMES = {
    "genrec.catalog": ("Catalog",),
    "genrec.errors": ("GenrecError",),
    "genrec.events": ("Context", "Event", "Item", "User"),
    "genrec.recommendation": ("Query", "Recommendation"),
    "genrec.recommender": ("Recommender",),
    "genrec.store": ("Store",),
    "genrec.workspace": ("Workspace", "open"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(home), "open_workspace" if name == "open" else name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'genrec' has no attribute {name!r}")
