"""The service's settings, all from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the service's dependencies are, and how patient it is with them (times in seconds)."""

    database_url: str
    redis_url: str
    payments_url: str
    channel_prefix: str = ""
    payments_timeout: float = 2.0
    cache_ttl: float = 60.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read DATABASE_URL, REDIS_URL and PAYMENTS_URL, optionally CHANNEL_PREFIX, PAYMENTS_TIMEOUT and CACHE_TTL.

        Raises:
            ValueError: A required variable is missing, or a number is none.
        """
        required = ("DATABASE_URL", "REDIS_URL", "PAYMENTS_URL")
        missing = [name for name in required if not environ.get(name)]

        if missing:
            raise ValueError(f"set {', '.join(missing)} in the environment")

        return cls(
            database_url=environ["DATABASE_URL"],
            redis_url=environ["REDIS_URL"],
            payments_url=environ["PAYMENTS_URL"],
            channel_prefix=environ.get("CHANNEL_PREFIX", ""),
            payments_timeout=float(environ.get("PAYMENTS_TIMEOUT", "2")),
            cache_ttl=float(environ.get("CACHE_TTL", "60")),
        )
