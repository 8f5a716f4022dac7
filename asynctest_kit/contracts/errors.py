"""What can be wrong about a contract."""

from __future__ import annotations

from asynctest_kit.errors import AtkError

__all__ = ["DocumentError", "PactConflictError", "PactError", "PactMismatchError", "PactVerificationError"]


class DocumentError(AtkError):
    """There is no OpenAPI document where one was looked for, or it is none."""


class PactError(AtkError):
    """A pact was asked for wrongly, can't be read or written, or what is needed for it isn't installed."""


class PactConflictError(PactError):
    """Two tests say different things of one interaction."""


class PactMismatchError(AssertionError):
    """A consumer did something else than its pact says."""


class PactVerificationError(AssertionError):
    """A provider does not do what its consumers expect."""
