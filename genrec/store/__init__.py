"""The durable log: everything a source brought in, in a SQLite file or a PostgreSQL database.

`log` holds the one object, `Store`; `append` writes events, `rows` says what may enter and names what has no name,
`connection` opens databases, `summary` counts, `tables` and `migrations` are the schema.
"""

from __future__ import annotations

from genrec.store.append import Appended
from genrec.store.log import TIME_ZONE, Forgotten, Mark, Store, Taken
from genrec.store.summary import Summary

__all__ = ["TIME_ZONE", "Appended", "Forgotten", "Mark", "Store", "Summary", "Taken"]
