"""Items can be retired: no longer recommended, their texts still reserved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add when each item was retired; null for those on offer."""
    op.add_column("items", sa.Column("retired_at", sa.BigInteger))
    retired = sa.text("retired_at IS NOT NULL")
    op.create_index("items_retired", "items", ["retired_at"], sqlite_where=retired, postgresql_where=retired)
