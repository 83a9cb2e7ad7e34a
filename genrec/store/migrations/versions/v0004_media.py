"""What pictures, sounds and texts of items were read as."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add a row for each item and reader."""
    op.create_table(
        "item_media",
        sa.Column("item_id", TEXT, primary_key=True),
        sa.Column("reader", TEXT, primary_key=True),
        sa.Column("file", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False, index=True),
        sa.Column("words", TEXT, nullable=False),
        sa.Column("vector", sa.LargeBinary),
    )
