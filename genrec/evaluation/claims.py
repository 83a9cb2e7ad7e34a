"""What events say of their own time, in further context, that their instant contradicts.

Where the two differ the instant counts: words leave the other out, see `genrec.context.device`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from genrec.context.time import claim, hour_of_week
from genrec.events import from_json
from genrec.sources.times import is_zone
from genrec.sources.zones import clocks

_ALWAYS = frozenset(range(168))


def contradicted(events: pa.RecordBatch, zones: Mapping[str, str] | None = None, time_zone: str | None = None) -> int:
    """How many of ``SCHEMAS["events"]`` name a weekday or a part of day at which they cannot have been.

    Where neither event nor position says by which clock, it is the person's, by user id in `zones`, else `time_zone`,
    else the event is passed over.
    """
    can_be = {text: _can_be(text) for text in pc.unique(events["extra"].drop_null()).to_pylist()}
    claiming = pa.array([text for text, hours in can_be.items() if hours != _ALWAYS], pa.string())
    events = events.filter(pc.and_(pc.is_in(events["extra"], claiming), pc.is_valid(events["at"])))
    seconds = pc.divide(events["at"].cast(pa.int64()), 1_000_000)  # much quicker than Arrow's datetimes
    columns = (clocks(events), events["user_id"], seconds, events["extra"])
    n = 0
    for zone, user_id, at_s, extra in zip(*(column.to_pylist() for column in columns), strict=True):
        if (zone := zone or (zones or {}).get(user_id, time_zone)) and is_zone(zone):
            n += hour_of_week(datetime.fromtimestamp(at_s, ZoneInfo(zone))) not in can_be[extra]
    return n


def _can_be(extra: str) -> frozenset[int]:
    """The hours of the week at which all that is said can be true."""
    try:
        said = from_json(extra)
    except (ValueError, AttributeError):  # no JSON object: the store's to refuse
        return _ALWAYS
    return _ALWAYS.intersection(*(hours for pair in said.items() if (hours := claim(*pair))))
