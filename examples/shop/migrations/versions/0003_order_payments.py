"""Orders remember their payment and the attempts at it; an order in doubt is ``paying``."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("payment_attempt", sa.Integer, nullable=False, server_default="0"))
    op.add_column("orders", sa.Column("payment_id", sa.Text))
    op.drop_constraint("orders_status_known", "orders")
    op.create_check_constraint("orders_status_known", "orders", "status IN ('pending', 'paying', 'paid', 'cancelled')")
    op.execute("UPDATE orders SET payment_id = 'unknown' WHERE status = 'paid'")
    op.create_check_constraint("orders_paid_has_payment", "orders", "(status = 'paid') = (payment_id IS NOT NULL)")


def downgrade() -> None:
    op.drop_constraint("orders_paid_has_payment", "orders")
    op.drop_constraint("orders_status_known", "orders")
    op.execute("UPDATE orders SET status = 'pending' WHERE status = 'paying'")
    op.create_check_constraint("orders_status_known", "orders", "status IN ('pending', 'paid', 'cancelled')")
    op.drop_column("orders", "payment_id")
    op.drop_column("orders", "payment_attempt")
