"""The configuration file: plain values from YAML, with `${VARIABLE}`s filled in.

What a careless or hostile file could hold (bombs of aliases, tags, keys given twice) is refused
with its line.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmr.errors import ConfigError

SIZE_LIMIT = 1024 * 1024
NODE_LIMIT, DEPTH_LIMIT = 50_000, 20
PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "binary")
)


def read(file: Path, environ: Mapping[str, str], lines: dict[str, int]) -> dict[str, Any]:
    """The sections of a file. `lines` learns on which line each value stands, by path."""
    import yaml

    try:
        if file.stat().st_size > SIZE_LIMIT:
            raise ConfigError(
                f"{file}: larger than {SIZE_LIMIT // 1024} KiB; this is no config file."
            )
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text.") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{file}:{line}: not valid YAML: {error.problem}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid YAML: {error}.") from None
    tree = {} if node is None else _Reader(file, environ, lines).value(node, "$", 0)
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}:1: expected sections such as `server:` and `upstreams:`.")
    return tree


class _Reader:
    """Plain values from YAML nodes: scalars, lists and mappings, no tags, each key once."""

    def __init__(self, file: Path, environ: Mapping[str, str], lines: dict[str, int]) -> None:
        import yaml

        self.yaml = yaml
        self.file = file
        self.environ = environ
        self.lines = lines
        self.nodes = 0
        self.constructor = yaml.SafeLoader("")

    def value(self, node: Any, path: str, depth: int) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        self.lines[path] = line
        if self.nodes > NODE_LIMIT or depth > DEPTH_LIMIT:
            raise ConfigError(f"{self.file}:{line}: too many or too deeply nested values.")
        if isinstance(node, self.yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, self.yaml.SequenceNode):
            items = enumerate(node.value)
            return [self.value(item, f"{path}[{i}]", depth + 1) for i, item in items]
        if node.tag not in PLAIN_TAGS:
            raise ConfigError(f"{self.file}:{line}: the tag {node.tag} is not allowed.")
        if isinstance(node.value, str) and "${" in node.value:
            return _substituted(node.value, self.environ, f"{self.file}:{line}")
        if node.tag.endswith((":timestamp", ":binary")):
            return node.value
        return self.constructor.construct_object(node)

    def _mapping(self, node: Any, path: str, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in out:
                raise ConfigError(f"{self.file}:{line}: the key {key!r} is given twice.")
            out[key] = self.value(value_node, f"{path}.{key}", depth + 1)
            self.lines[f"{path}.{key}"] = line
        return out


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")


def _substituted(text: str, environ: Mapping[str, str], where: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[3]
        value = environ.get(name)
        if value is None and match[2] is None:
            raise ConfigError(
                f"{where}: the environment variable {name} is not set. "
                f"Set it, or write ${{{name}:-default}}."
            )
        return value or default or ""

    return _VARIABLE.sub(replace, text)
