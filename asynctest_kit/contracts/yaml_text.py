"""YAML, read as JSON has it: keys are text as they are written (``200``, ``on``), and so are dates."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["loaded_yaml"]

_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
            node.value = [(_as_text(key), value) for key, value in node.value]
        return super().construct_mapping(node, deep=deep)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


def loaded_yaml(text: str | bytes) -> object:
    """What ``text`` holds.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506  # a safe one


def _as_text(key: Any) -> Any:
    if isinstance(key, yaml.ScalarNode):
        return yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark, key.style)
    return key
