"""Runs the suite in this process, and tells how the collector is left: ``python in_process.py ARGUMENT...``."""

import gc
import sys

import pytest

from asynctest_kit.engine.runtestloop import Engine
from asynctest_kit.engine.treatment import Options

before = gc.get_threshold(), gc.isenabled()
frozen = gc.get_freeze_count()  # Python 3.12 starts with some
pytest.main(sys.argv[1:], plugins=[Engine(Options(), lambda event: None)])
print("as before:", (gc.get_threshold(), gc.isenabled()) == before and gc.get_freeze_count() <= frozen)
