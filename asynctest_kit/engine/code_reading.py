"""What process-global state a function's code touches, read from its byte code without running it.

A reading can't be complete: what a function does through values that it is given stays hidden. It sees mock's
patchers under any name, attributes and items set on modules and other globals (also on what is imported inside of the
function, by ``setattr`` and by ``global``), changes of ``os.environ``, and the names of what is known to be global
(warnings filters, the working directory, ...). It follows decorators, nested functions and the helpers that lie beside
the test. When in doubt it says that state is touched: the test then runs alone, which is
slower and never wrong.
"""

from __future__ import annotations

import dis
import inspect
import time
from functools import cache
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reading", "put_back_by"]

#: Names that, used in a test's code, change process-global state.
_GLOBAL_NAMES = frozenset(
    {
        "MonkeyPatch",
        "ThreadSensitiveContext",
        "chdir",
        "dependency_overrides",
        "freeze_time",
        "freezegun",
        "putenv",
        "redirect_stderr",
        "redirect_stdout",
        "set_event_loop_policy",
        "set_exception_handler",
        "set_task_factory",
        "setLevel",
        "setlocale",
        "setprofile",
        "setrecursionlimit",
        "settrace",
        "thread_sensitive_context",
        "time_machine",
        "tzset",
        "umask",
        "unsetenv",
    }
)

#: With ``os.environ`` or ``sys.modules`` in the same code, what may change it; reading it harms nobody.
_ITEM_CHANGES = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR"})
_CHANGING_LISTS = frozenset({"append", "extend", "insert", "pop", "remove"})
_CHANGING_METHODS = frozenset({"clear", "pop", "popitem", "setdefault", "update"})
_ATTRIBUTE_CHANGES = frozenset({"STORE_ATTR", "DELETE_ATTR"})

#: The same as they stand in byte code.
_STORES = frozenset(dis.opmap[name] for name in _ATTRIBUTE_CHANGES)

_OTHER_STORES = frozenset(
    dis.opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_SUBSCR", "DELETE_SUBSCR")
)
_IMPORTS = frozenset({dis.opmap["IMPORT_NAME"]})

_SETTERS = frozenset({"setattr", "delattr"})
_LOADS_LOCAL = frozenset({"LOAD_FAST", "LOAD_DEREF", "LOAD_FAST_CHECK"})

#: Sleeps that end at once, or nearly; the guard looks at the others when they happen.
_MOMENTS = (0, 0.0, 0.001)

#: The function itself, which is wrapped while tests run.
_sleep = time.sleep

_CALLS = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW"})

#: Helpers of helpers are followed this far.
_DEPTH = 3


class Reading:
    """Reads functions; what several of them call is read once. It is good while nobody changes what is global."""

    def __init__(self) -> None:
        self._helpers: dict[tuple[int, str, int], tuple[object, str | None]] = {}

    def touched_by(self, function: Any, *, beside: str) -> str | None:
        """Name the process-global state that ``function`` changes, or None.

        Helpers in a folder ``beside`` are followed.
        """
        return self._first(function, beside, _DEPTH)

    def _first(self, function: Any, folder: str, depth: int) -> str | None:
        for layer in _layers(function):
            if hasattr(layer, "patchings"):
                return "mock.patch"
            code, namespace = layer.__code__, layer.__globals__
            if (known := _known_decorator(code)) is not None:
                return known
            found = next(_of_code(code, namespace), None)
            helpers = _helpers(code, namespace, folder) if depth and found is None else ()
            for helper in helpers:
                found = found or self._of_helper(helper, folder, depth - 1)
            if found is not None:
                return found
        return None

    def _of_helper(self, helper: Any, folder: str, depth: int) -> str | None:
        key = (id(helper), folder, depth)
        if key not in self._helpers:
            self._helpers[key] = helper, self._first(helper, folder, depth)  # kept, so that nothing else has its id
        return self._helpers[key][1]


def put_back_by(function: Any) -> tuple[tuple[str, ...], ...]:
    """Paths such as ``("Registry", "tasks")`` that a generator function sets after its ``yield``.

    Nothing, if it sets anything before, calls anything, or does anything else to global state.
    """
    code = getattr(function, "__code__", None)
    if code is None or not inspect.isgeneratorfunction(function) or function.__closure__:
        return ()
    instructions = list(_instructions(code))
    first_yield = next((place for place, one in enumerate(instructions) if one.opname == "YIELD_VALUE"), None)
    if first_yield is None or any(one.opname in _CALLS for one in instructions):
        return ()
    found: dict[tuple[str, ...], int] = {}
    for place, path in _attribute_paths(code, function.__globals__):
        found.setdefault(path, place)
    if set(_of_code(code, function.__globals__)) != {".".join(path) for path in found}:
        return ()
    return tuple(found) if all(place > first_yield for place in found.values()) else ()


def _known_decorator(code: CodeType) -> str | None:
    """The name of what a decorator's code changes with each call."""
    return _known_file(code.co_filename)


@cache
def _known_file(name: str) -> str | None:
    file = name.replace("\\", "/")
    if file.endswith(("unittest/mock.py", "mock/mock.py")):
        return "mock.patch"
    return next((name for name in ("freezegun", "time_machine") if f"/{name}/" in file), None)


def _layers(function: Any) -> Iterator[FunctionType]:
    """A function and what it wraps: a decorator's code runs with each call too."""
    layer = function.__func__ if isinstance(function, MethodType) else function
    while layer is not None:
        if isinstance(layer, FunctionType):
            yield layer
        layer = _own_attribute(layer, "__wrapped__")


def _own_attribute(value: object, name: str) -> Any:
    """An attribute that is there, and not made up: a mock has every attribute."""
    try:
        return object.__getattribute__(value, "__dict__").get(name)
    except AttributeError:
        return None


def _helpers(code: CodeType, namespace: dict[str, Any], folder: str) -> Iterator[Any]:
    for name in _names(code):
        value = namespace.get(name)
        target = next(reversed([*_layers(value)]), None)
        if target is not None and target.__code__.co_filename.startswith(folder):
            yield value


def _of_code(code: CodeType, namespace: dict[str, Any]) -> Iterator[str]:
    names = set(_names(code))
    if not names:
        return
    if any(_is_patcher(namespace.get(name)) for name in names):
        yield "mock.patch"
    if "patch" in names and (names & {"mock", "unittest.mock"} or any(_is_mock(namespace.get(name)) for name in names)):
        yield "mock.patch"
    if names & {"environ", "modules"} and (names & _CHANGING_METHODS or _changes_items(code)):
        yield "os.environ" if "environ" in names else "sys.modules"
    if "sleep" in names and any(_sleeps(nested, namespace) for nested in _codes(code)):
        yield "time.sleep, which stops the event loop"
    if {"sys", "path"} <= names and names & _CHANGING_LISTS:
        yield "sys.path"
    known = sorted(names & _GLOBAL_NAMES)
    yield from known
    yield from _attributes_set(code, namespace)
    yield from _set_otherwise(code, namespace)


def _is_mock(value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__ in {"mock", "mock.mock", "unittest.mock"}


def _is_patcher(value: object) -> bool:
    return getattr(value, "__module__", "") in {"mock.mock", "unittest.mock"} and "patch" in getattr(
        value, "__name__", ""
    )


def _sleeps(code: CodeType, namespace: dict[str, Any]) -> bool:
    """Whether a coroutine calls ``time.sleep`` itself, instead of handing it to a thread."""
    if not code.co_flags & inspect.CO_COROUTINE or not any(
        (value := namespace.get(name)) is time or value is _sleep for name in code.co_names
    ):
        return False
    code_of = list(_instructions(code))
    for place, one in enumerate(code_of):
        value = namespace.get(one.argval) if one.opname == "LOAD_GLOBAL" else None
        is_called = bool((one.arg or 0) & 1)  # a null for the call is pushed with it
        constants = (next_one.argval for next_one in code_of[place + 1 : place + 4] if "CONST" in next_one.opname)
        if next(constants, 1) in _MOMENTS:
            continue
        if value is _sleep and is_called:
            return True
        attribute, following = [*code_of[place + 1 : place + 3], None, None][:2]
        if value is time and attribute is not None and attribute.argval == "sleep":
            pushed_after = following is not None and following.opname == "PUSH_NULL"  # from Python 3.13 on
            if is_called or pushed_after or attribute.opname == "LOAD_METHOD":
                return True
    return False


def _changes_items(code: CodeType) -> bool:
    return any(instruction.opname in _ITEM_CHANGES for nested in _codes(code) for instruction in _instructions(nested))


def _attributes_set(code: CodeType, namespace: dict[str, Any]) -> Iterator[str]:
    """Attributes set on a global: ``settings.DEBUG = True``, ``sys.argv = [...]``."""
    for nested in _codes(code):
        for _, path in _attribute_paths(nested, namespace):
            yield ".".join(path)


def _attribute_paths(code: CodeType, namespace: dict[str, Any]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The same, with the place of the instruction."""
    if not _STORES.intersection(code.co_code[::2]):
        return
    path: list[str] = []
    imported = _imported_in(code)
    for place, instruction in enumerate(_instructions(code)):
        if instruction.opname in _ATTRIBUTE_CHANGES and path and (path[0] in namespace or path[0] in imported):
            yield place, (*path, instruction.argval)
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"} or (
            instruction.opname in _LOADS_LOCAL and instruction.argval in imported
        ):
            path = [instruction.argval]
        elif instruction.opname == "LOAD_ATTR" and path:
            path.append(instruction.argval)
        else:
            path = []


def _set_otherwise(code: CodeType, namespace: dict[str, Any]) -> Iterator[str]:
    """Globals set by ``global``, items set in a global (``FLAGS["new"] = True``), and ``setattr`` on a global."""
    for nested in _codes(code):
        if not _OTHER_STORES.intersection(nested.co_code[::2]) and not _SETTERS.intersection(nested.co_names):
            continue
        imported = _imported_in(nested)
        before: list[dis.Instruction] = []
        for one in _instructions(nested):
            if one.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}:
                yield f"global {one.argval}"
            elif one.opname in _ITEM_CHANGES and (root := _root_of_item(before, namespace, imported)) is not None:
                yield f"{root}[...]"
            elif _is_global(one, namespace, imported) and _loads_setter(before):
                yield f"{_setter_in(before)} on {one.argval}"
            before.append(one)


def _root_of_item(before: list[dis.Instruction], namespace: dict[str, Any], imported: set[str]) -> str | None:
    """The global whose item is set: what was loaded last but the key, if attributes alone were taken of it."""
    rest = before[:-1]  # the key, where it is a constant or a name
    names: list[str] = []
    while rest and rest[-1].opname == "LOAD_ATTR":
        names.insert(0, str(rest.pop().argval))
    if not rest or not _is_global(rest[-1], namespace, imported):
        return None
    return ".".join((str(rest[-1].argval), *names))


def _is_global(one: dis.Instruction, namespace: dict[str, Any], imported: set[str]) -> bool:
    if one.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
        return one.argval in namespace
    return one.opname in _LOADS_LOCAL and one.argval in imported


def _loads_setter(before: list[dis.Instruction]) -> bool:
    return _setter_in(before) is not None


def _setter_in(before: list[dis.Instruction]) -> str | None:
    last = next((one for one in reversed(before[-2:]) if one.opname != "PUSH_NULL"), None)
    return str(last.argval) if last is not None and last.opname == "LOAD_GLOBAL" and last.argval in _SETTERS else None


def _imported_in(code: CodeType) -> set[str]:
    """Names of a function that hold what it has imported itself."""
    if not _IMPORTS.intersection(code.co_code[::2]):
        return set()
    found: set[str] = set()
    is_import = False
    for one in _instructions(code):
        if one.opname in {"STORE_FAST", "STORE_DEREF"} and is_import:
            found.add(one.argval)
        is_import = one.opname in {"IMPORT_NAME", "IMPORT_FROM"}
    return found


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    return (instruction for instruction in dis.get_instructions(code) if instruction.opname not in {"CACHE", "NOP"})


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _names(code: CodeType) -> Iterator[str]:
    for nested in _codes(code):
        yield from nested.co_names
