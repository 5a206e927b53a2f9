"""YAML as recipes are written in it: the safe subset, with three traps of YAML 1.1 removed.

`1e-3` is a number (PyYAML reads a string), `no` and `off` are strings (PyYAML reads booleans; `no`
is a language), and a key that stands twice in a mapping is an error (PyYAML keeps the last one).
"""

import copy
import re
from collections.abc import Hashable
from typing import Any

import yaml

from zoo.errors import ConfigError

_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$|^[-+]\.(?:inf|Inf|INF)$"
)
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")


def _with_resolvers(cls: Any) -> Any:
    resolvers = {
        first: [(tag, pattern) for tag, pattern in table if tag[-4:] not in ("bool", "loat")]
        for first, table in copy.copy(cls.yaml_implicit_resolvers).items()
    }
    cls.yaml_implicit_resolvers = resolvers
    cls.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    cls.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    return cls


@_with_resolvers
class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice in one mapping", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


@_with_resolvers
class _Dumper(yaml.SafeDumper):
    pass


def parse(text: str, where: str = "YAML") -> Any:
    """Reads one YAML document.

    Raises:
        ConfigError: The text is not YAML, or a mapping holds a key twice; says where.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}{place}: {problem}.") from None


def dump(value: Any) -> str:
    """Writes plain values as YAML, keys in their order; `parse` gives the same values back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
