"""What clients may send, and what it is made into: queries, events, items, or an error that names every wrong field.

The fields are those of `Query`, `Event`, `Context` and `Item`: a new one there is a new one here, unless no store
keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import from_json

from genrec.errors import GenrecError
from genrec.events import Context, Event, Item
from genrec.recommendation import Query
from genrec.serve.errors import ServeError, as_serve_error, invalid
from genrec.sources.times import is_zone

MAX_ROWS = 10_000
"""Most events or items in one request."""

M = TypeVar("M", bound=BaseModel)

_FORBID = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which databases do not take")
    return text


_Id = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_storable)]


def _instant(text: str) -> str:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("cannot be read; write it like 2026-11-24T18:00+01:00") from None
    if at.utcoffset() is None:
        raise ValueError("names no time zone; write it like 2026-11-24T18:00+01:00")
    return text.strip()


def _zone(name: str | None) -> str | None:
    if name is not None and not is_zone(name):
        raise ValueError("there is no such time zone; write it like Europe/Berlin")
    return name


_CLOSER: Mapping[str, Any] = {
    "user_id": _Id,
    "item_id": _Id,
    "event_id": _Id | None,
    "at": Annotated[str, AfterValidator(_instant)],
    "title": Annotated[str, Field(min_length=1, max_length=1000)],
    "value": Annotated[float, Field(allow_inf_nan=False)] | None,
    "time_zone": Annotated[str | None, AfterValidator(_zone)],
    "latitude": Annotated[float, Field(ge=-90, le=90)] | None,
    "longitude": Annotated[float, Field(ge=-180, le=180)] | None,
    "attributes": Annotated[Mapping[str, str], Field(max_length=200)],  # each name costs a column over all items
    "candidates": Annotated[tuple[str, ...], Field(max_length=10_000)],
    "k": Annotated[int, Field(ge=1, le=10_000, description="How many items; the server's default when omitted.")]
    | None,
}
"""Fields that are asked for more closely here than in Python."""


def _fields_of(value: type, **overrides: Any) -> dict[str, Any]:
    """A dataclass's fields as pydantic wants them: name → (type, default)."""
    hints = get_type_hints(value)
    found: dict[str, Any] = {}
    for field in fields(value):
        default = field.default
        if default is MISSING:
            default = ... if field.default_factory is MISSING else field.default_factory()
        found[field.name] = (_CLOSER.get(field.name, hints[field.name]), default)
    return found | overrides


QueryBody: type[BaseModel] = create_model(
    "Query", __config__=_FORBID, **_fields_of(Query, at=(str | None, None), k=(_CLOSER["k"], None))
)
"""One query: the fields of `Query`."""


class _Timed(BaseModel):
    model_config = _FORBID

    timeout_s: float | None = Field(default=None, gt=0)
    """Longest wait in seconds; the server has a limit of its own."""


OneBody: type[BaseModel] = create_model("OneQuery", __base__=(_Timed, QueryBody))
"""A request for one person."""


class ManyBody(_Timed):
    """A request for several people."""

    queries: list[dict[str, Any]] = Field(min_length=1)
    """The queries; each is answered or refused on its own."""


EventBody: type[BaseModel] = create_model(
    "Event",
    __config__=_FORBID,
    **{name: field for name, field in _fields_of(Event).items() if name not in ("context", "weight")},
    **_fields_of(Context),
)
"""One event: the fields of `Event` and `Context` side by side; what it counts is not the client's to say."""


class _FromClient(BaseModel):
    model_config = _FORBID

    source: str = Field(default="api", min_length=1, max_length=200)
    """Within what event ids are unique."""


OneEventBody: type[BaseModel] = create_model("OneEvent", __base__=(_FromClient, EventBody))
"""A request that adds one event."""


class ManyEventsBody(_FromClient):
    """A request that adds several events, all or none."""

    events: list[EventBody] = Field(min_length=1, max_length=MAX_ROWS)  # type: ignore[valid-type]
    """The events, in the order in which they happened."""


ItemBody: type[BaseModel] = create_model("Item", __config__=_FORBID, **_fields_of(Item))
"""One item: the fields of `Item`."""


class ManyItemsBody(BaseModel):
    """A request that adds several items, all or none."""

    model_config = _FORBID

    items: list[ItemBody] = Field(min_length=1, max_length=MAX_ROWS)  # type: ignore[valid-type]
    """The items; of several with one id the last counts."""


class AdapterBody(BaseModel):
    """A request for another adapter."""

    model_config = _FORBID

    name: str = Field(min_length=1, max_length=200)
    """An adapter of the workspace; none for the model as it is."""


def read_queries(body: bytes, *, k: int) -> tuple[list[Query | ServeError], float | None, bool]:
    """Read the body of a request for recommendations.

    Args:
        body: JSON.
        k: How many items where a query names no number.

    Returns:
        The queries, each in its place a `Query` or what is wrong with it; the time-out that the client wants, in
        seconds; and whether it asked for a batch.

    Raises:
        ServeError: If it is no such body; in a batch, if it is no batch.
    """
    parsed = _parse(body)
    if "queries" not in parsed:
        one = _valid(OneBody, parsed)
        return [_query(one, k)], getattr(one, "timeout_s", None), False
    many = _valid(ManyBody, parsed)
    queries: list[Query | ServeError] = []
    for fields_ in many.queries:
        try:
            queries.append(_query(_valid(QueryBody, fields_), k))
        except GenrecError as error:
            queries.append(as_serve_error(error))
    return queries, many.timeout_s, True


def read_events(body: bytes) -> tuple[list[Event], str]:
    """Read the body of a request that adds events.

    Returns:
        The events, and the source within which their ids are unique.

    Raises:
        ServeError: If one of them is wrong.
    """
    parsed = _parse(body)
    if "events" in parsed:
        many = _valid(ManyEventsBody, parsed)
        return [_event(one) for one in many.events], many.source
    one = _valid(OneEventBody, parsed)
    return [_event(one)], str(getattr(one, "source"))  # noqa: B009  (a field of a model made at run time)


def read_items(body: bytes) -> list[Item]:
    """Read the body of a request that adds items.

    Raises:
        ServeError: If one of them is wrong.
    """
    parsed = _parse(body)
    bodies = _valid(ManyItemsBody, parsed).items if "items" in parsed else [_valid(ItemBody, parsed)]
    return [Item(**dict(one)) for one in bodies]


def read_adapter(body: bytes) -> str:
    """Read the body of a request for another adapter.

    Raises:
        ServeError: If it is no such body.
    """
    return _valid(AdapterBody, _parse(body)).name


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON schemas of the bodies, by route, for ``/openapi.json``."""
    return {
        "recommendations": {"anyOf": [_schema(OneBody), _schema(ManyBody, queries=_schema(QueryBody))]},
        "events": {"anyOf": [_schema(OneEventBody), _schema(ManyEventsBody, events=_schema(EventBody))]},
        "items": {"anyOf": [_schema(ItemBody), _schema(ManyItemsBody, items=_schema(ItemBody))]},
        "adapter": _schema(AdapterBody),
    }


def _schema(model: type[BaseModel], **items: Any) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("$defs", None)
    for name, item in items.items():
        schema["properties"][name]["items"] = item
    return schema


def _query(body: BaseModel, k: int) -> Query:
    values = {name: value for name, value in body if name != "timeout_s"}
    return Query(**values | {"k": values["k"] or k})


def _event(body: BaseModel) -> Event:
    values = {name: value for name, value in body if name != "source"}
    context = Context(**{field.name: values.pop(field.name) for field in fields(Context)})
    return Event(**values | {"at": datetime.fromisoformat(values["at"]), "context": context})


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = from_json(body, allow_inf_nan=False)  # refuses lone surrogates and deep nesting, too
    except ValueError as error:
        raise ServeError(
            f"the body is not JSON: {error}", status=400, type="malformed", hint="Send one JSON object in UTF-8."
        ) from None
    if not isinstance(parsed, dict):
        raise ServeError("the body must be one JSON object", status=422, type="bad_request")
    return parsed


def _valid(model: type[M], values: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None
