"""Counts for how many tests pytest does all the work."""

import os
from pathlib import Path

from _pytest.python import FunctionDefinition

_make = FunctionDefinition.from_parent
_names = []


def _counted(parent, **values):
    _names.append(values["name"])
    return _make(parent, **values)


FunctionDefinition.from_parent = _counted


def pytest_collection_finish():
    Path(os.environ["DEFINED"]).write_text("\n".join(_names))
