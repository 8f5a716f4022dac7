"""An OpenAPI document that is spread over several files, made one.

Each file that a reference leads to is put into the document once, under the key ``x-files``, and all references are
made to lead there. So they may go round in circles, and whoever reads the document needs to know of one only. What has
a scheme (``https:``) is refused: nothing is fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from asynctest_kit.contracts.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["bundled", "found_at"]

_FILES: Final = "x-files"

#: Under these keys are values of the app's, in which ``$ref`` would be data; or they are an author's names, after all.
_DATA: Final = frozenset({"const", "default", "enum", "example", "value"})

#: Under these are names of the author's for certain.
_NAMES: Final = frozenset(
    {
        "$defs", "callbacks", "content", "definitions", "dependentSchemas", "examples", "headers", "links",
        "parameters", "pathItems", "paths", "patternProperties", "properties", "requestBodies", "responses",
        "schemas", "webhooks",
    }
)  # fmt: skip

#: What would change what references in a file are relative to.
_BASES: Final = ("$id", "$schema")


def bundled(content: dict[str, Any], name: str, file: Path | None, load: Callable[[Path], object]) -> dict[str, Any]:
    """``content`` with all that its references lead to.

    Args:
        content: The document.
        name: What it is called in messages.
        file: Where it is; None if it isn't in a file, so that none can be beside it.
        load: Reads another one.

    Raises:
        DocumentError: A reference leads to a file that isn't there, to nothing in it, or out of the machine.
    """
    return _Bundle(name, file, load).of(content)


class _Bundle:
    def __init__(self, name: str, file: Path | None, load: Callable[[Path], object]) -> None:
        self._name = name
        self._root = None if file is None else file.resolve()
        self._load = load
        self._keys: dict[Path, str] = {}
        self._files: dict[str, Any] = {}
        self._led: list[tuple[str, Path | None, str]] = []

    def of(self, content: dict[str, Any]) -> dict[str, Any]:
        made = self._walked(content, self._root)
        for reference, file, pointer in self._led:
            try:
                found_at({**made, _FILES: self._files}, unquote(pointer))
            except KeyError:
                raise self._error(reference, file, "there is nothing at that place of the file") from None
        return {**made, _FILES: self._files} if self._files else dict(made)

    def _walked(self, value: Any, file: Path | None, *, is_named: bool = False, is_data: bool = False) -> Any:
        """``value`` of ``file`` with references as they are in the one document.

        Its keys are the author's names if it ``is_named``; if it ``is_data``, a reference that leads nowhere is none.
        """
        if isinstance(value, list):
            return [self._walked(one, file, is_data=is_data) for one in value]
        if not isinstance(value, dict):
            return value
        made = {}
        for key, one in value.items():
            if key == "$ref" and isinstance(one, str) and not is_named:
                made[key] = self._perhaps(one, file) if is_data else self._reference(one, file)
            else:
                may_be_data = key in _DATA or (key == "examples" and isinstance(one, list))
                made[key] = self._walked(
                    one,
                    file,
                    is_named=not is_named and key in _NAMES and not isinstance(one, list),
                    is_data=is_data or (may_be_data and not is_named),
                )
        return made

    def _perhaps(self, text: str, file: Path | None) -> str:
        before = len(self._led)
        try:
            reference = self._reference(text, file)
        except DocumentError:
            del self._led[before:]
            return text
        self._led = [one for number, one in enumerate(self._led) if number < before or one[0] != text]
        return reference

    def _reference(self, reference: str, file: Path | None) -> str:
        """Where a reference in ``file`` leads to in the one document."""
        place, _, pointer = reference.partition("#")
        if file == self._root and not place:
            return reference
        if pointer and not pointer.startswith("/"):
            raise self._error(reference, file, f'"#{pointer}" is no JSON pointer, such as "#/components/schemas/User"')
        target = self._target(reference, place, file)
        if target == self._root:
            return f"#{pointer}"
        led = f"/{_FILES}/{self._key(reference, target, file)}{pointer}"
        self._led.append((reference, file, led))
        return f"#{led}"

    def _target(self, reference: str, place: str, file: Path | None) -> Path:
        if urlsplit(place).scheme or place.startswith("//"):
            raise self._error(
                reference, file, "nothing is fetched. Put what it leads to into a file beside the document"
            )
        if file is None:
            raise self._error(reference, file, "it leads to a file, and the document is in none. Bundle it into one")
        return (file.parent / unquote(place)).resolve() if place else file

    def _key(self, reference: str, target: Path, file: Path | None) -> str:
        """As what a file stands in the document, ready for a pointer."""
        if target not in self._keys:
            if not target.is_file():
                raise self._error(reference, file, f"there is no file {target}")
            assert self._root is not None  # noqa: S101  # else there would be no target
            folder = self._root.parent
            name = str(target.relative_to(folder) if target.is_relative_to(folder) else target)
            self._keys[target] = quote(name.replace("~", "~0").replace("/", "~1"), safe="~")
            try:
                self._files[name] = self._walked(_without_base(self._load(target)), target)
            except DocumentError:
                del self._keys[target]
                raise
        return self._keys[target]

    def _error(self, reference: str, file: Path | None, problem: str) -> DocumentError:
        where = self._name if file == self._root else str(file)
        return DocumentError(f'The reference "{reference}" in {where} can\'t be followed: {problem}.')


def _without_base(content: object) -> object:
    return {key: one for key, one in content.items() if key not in _BASES} if isinstance(content, dict) else content


def found_at(content: Any, pointer: str) -> Any:
    """What is in ``content`` at a JSON pointer.

    Raises:
        KeyError: There is nothing.
    """
    for part in pointer[1:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(content, list) and key.isdecimal() and int(key) < len(content):
            content = content[int(key)]
        elif isinstance(content, dict):
            content = content[key]
        else:
            raise KeyError(key)
    return content
