"""Writes down what was collected, and adds to it as conftest files do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(params=["asyncio"], scope="session")
def anyio_backend(request):
    return request.param


@pytest.fixture(autouse=True)
def around_all():
    yield


@pytest.fixture
def place():
    return "root"


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.kind("second"), id="two")], scope="module")
def number(request):
    return request.param


@pytest.fixture(params=["a", "b"], ids=lambda value: f"is-{value}")
def named_by_function(request):
    return request.param


@pytest.fixture(params=[])
def without_parameters(request):
    return request.param


def _scope(fixture_name, config):
    return "module"


@pytest.fixture(scope=_scope)
def dynamically_scoped():
    return "module"


class Text(pytest.File):
    def collect(self):
        for line in self.path.read_text().splitlines():
            yield Line.from_parent(self, name=line)


class Line(pytest.Item):
    def runtest(self):
        pass


def pytest_collect_file(parent, file_path):
    return Text.from_parent(parent, path=file_path) if file_path.suffix == ".lines" else None


def pytest_itemcollected(item):
    item.user_properties.append(("collected", item.name))


def pytest_collection_modifyitems(items):
    for item in items:
        if "Late" in item.nodeid:
            item.add_marker(pytest.mark.kind("late"))


def pytest_collection_finish(session):
    Path(os.environ["COLLECTED"]).write_text(json.dumps([_told(item) for item in session.items]))


def _told(item):
    told = {
        "type": f"{type(item).__module__}.{type(item).__qualname__}",
        "name": item.name,
        "nodeid": item.nodeid,
        "original": getattr(item, "originalname", None),
        "chain": [type(node).__name__ + " " + node.name for node in item.listchain()],
        "marks": [_mark(mark) for mark in item.iter_markers()],
        "own marks": [_mark(mark) for mark in item.own_markers],
        "keywords": sorted(item.keywords),
        "location": [str(part) for part in item.location],
        "path": str(item.path),
        "properties": item.user_properties,
        "function": getattr(getattr(item, "function", None), "__qualname__", None),
    }
    info = getattr(item, "_fixtureinfo", None)
    if info is not None:
        told["fixturenames"] = list(item.fixturenames)
        told["is the closure"] = item.fixturenames is info.names_closure
        told["arguments"] = list(info.argnames)
        told["initial"] = list(info.initialnames)
        told["definitions"] = {
            name: [_definition(one) for one in found] for name, found in info.name2fixturedefs.items()
        }
        told["as its function's"] = [other.name for other in item.session.items if _info(other) is info]
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        told["parameters"] = {name: repr(value) for name, value in callspec.params.items()}
        told["indices"] = dict(callspec.indices)
        told["scopes"] = {name: scope.value for name, scope in callspec._arg2scope.items()}
        told["id"] = callspec.id
        told["parameters' marks"] = [_mark(mark) for mark in callspec.marks]
    return told


def _info(item):
    return getattr(item, "_fixtureinfo", None)


def _mark(mark):
    return f"{mark.name} {mark.args!r} {mark.kwargs!r}"


def _definition(definition):
    code = definition.func.__code__
    place = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
    return f"{definition.argname} {definition.scope} {definition.baseid} {place}"
