"""What the tests are about."""

import time
from typing import ClassVar


class Settings:
    DEBUG = False
    LIMIT = 10
    REGIONS = ("eu",)
    extra: ClassVar = {"mode": "real"}


class Registry:
    tasks: ClassVar = {}
    names: ClassVar = []
    current = None


def now():
    return time.time()
