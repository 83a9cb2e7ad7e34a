"""What a person did is found without reading their events: which actions, and how often."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the action, and the order in which events came, to the index of people."""
    current = sa.text("is_current")
    op.drop_index("events_user", "events")
    columns = ["user_id", "at", "seq", "action"]
    op.create_index("events_user", "events", columns, sqlite_where=current, postgresql_where=current)
