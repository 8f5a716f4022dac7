"""What can go wrong in the shop, in the shop's own terms; ``shop.app`` gives each its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "Conflict",
    "InsufficientStock",
    "Invalid",
    "Malformed",
    "NotFound",
    "PaymentDeclined",
    "PaymentFailed",
    "PaymentUnavailable",
    "ShopError",
    "Unavailable",
]


class ShopError(Exception):
    """Base of the shop's errors: a stable code for programs, a message for people, problems by field."""

    code = "shop_error"

    def __init__(self, message: str, *, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fields = dict(fields or {})

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "fields": self.fields}

    @property
    def extensions(self) -> dict[str, Any]:
        """What GraphQL shows beside the message."""
        return {"code": self.code, "fields": self.fields}


class Malformed(ShopError):
    """The request's body, or the message, is no JSON object."""

    code = "malformed"


class Invalid(ShopError):
    """The request is well-formed, but its values are not acceptable."""

    code = "invalid"


class NotFound(ShopError):
    """Nothing has this id."""

    code = "not_found"

    def __init__(self, what: str, identity: object) -> None:
        super().__init__(f"there is no {what} {identity}")


class Conflict(ShopError):
    """The request contradicts what is stored."""

    code = "conflict"


class InsufficientStock(Conflict):
    """An order asks for more than there is."""

    code = "insufficient_stock"


class PaymentDeclined(ShopError):
    """The provider refused the charge; nothing was charged."""

    code = "payment_declined"


class PaymentFailed(ShopError):
    """The provider gave an answer that makes no sense; whether it charged is unknown."""

    code = "payment_failed"


class PaymentUnavailable(ShopError):
    """The provider could not be reached in time; whether it charged is unknown."""

    code = "payment_unavailable"


class Unavailable(ShopError):
    """What is asked for can't be had at the moment; nothing was changed."""

    code = "unavailable"
