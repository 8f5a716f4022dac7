"""A container engine as the docker provider needs it: the one place that knows aiodocker and its faults."""

from __future__ import annotations

from asynctest_kit.provision.providers.engine.location import Location, locate
from asynctest_kit.provision.providers.engine.opening import open_engine
from asynctest_kit.provision.providers.engine.requests import Ended, Engine, EngineError, NotFoundError

__all__ = ["Ended", "Engine", "EngineError", "Location", "NotFoundError", "locate", "open_engine"]
