"""The published schema of the configuration, and the sample that ships with the repository."""

import pathlib
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from llmr import config

ROOT = pathlib.Path(__file__).parent.parent


def valid(value: Any, rule: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether a value obeys a JSON Schema, as far as this one goes."""
    if "$ref" in rule:
        return valid(value, definitions[rule["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in rule:
        return any(valid(value, one, definitions) for one in rule["anyOf"])
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kind = rule.get("type")
    if kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(
            value, int if kind == "integer" else float | int
        ):
            return False
        low, high = rule.get("minimum", value), rule.get("maximum", value)
        return bool(low <= value <= high and value > rule.get("exclusiveMinimum", value - 1))
    if kind is not None and not isinstance(value, kinds[kind]):
        return False
    if "enum" in rule and value not in rule["enum"]:
        return False
    if isinstance(value, str):
        return bool(len(value) >= rule.get("minLength", 0))
    if isinstance(value, list):
        return all(valid(item, rule.get("items", {}), definitions) for item in value)
    if isinstance(value, dict):
        properties, more = rule.get("properties", {}), rule.get("additionalProperties", {})
        return set(rule.get("required", ())) <= value.keys() and all(
            valid(item, properties[key], definitions)
            if key in properties
            else more is not False and valid(item, more, definitions)
            for key, item in value.items()
        )
    return True


def obeys(text: str) -> bool:
    schema = config.schema()
    return valid(yaml.safe_load(text), schema, schema["$defs"])


def test_the_sample_holds_the_defaults_and_obeys_the_schema(tmp_path: pathlib.Path) -> None:
    sample = (ROOT / "config.yaml").read_text()
    assert obeys(sample)
    assert config.load(ROOT / "config.yaml", {}, {}) == config.build({}, {})
    # With what stands there as a comment taken in.
    (tmp_path / "config.yaml").write_text(
        sample.replace("  # lab:", "  lab: ").replace("\n  #  ", "\n   ")
    )
    assert obeys((tmp_path / "config.yaml").read_text())
    found = config.load(None, {}, {}, tmp_path)
    assert found.upstreams.keys() == {"openrouter", "lab"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", True),
        ("upstreams: {openrouter: null}", True),
        ("upstreams: {lab: {models: [{id: a, supports: [tools]}]}}", True),
        ("upstreams: {lab: {models: [{supports: [tools]}]}}", False),
        ("upstreams: {lab: {models: [{id: a, supports: [tool]}]}}", False),
        ("server: {prot: 1}", False),
        ("server: {port: 70000}", False),
        ("server: {port: x}", False),
        ("routing: {priority: fast}", False),
        ("limits: {attempts: 0}", False),
        ("cache: {enabled: 5}", False),
        ("redis: {url: null}", True),
    ],
)
def test_the_schema_tells_right_from_wrong(text: str, expected: bool) -> None:
    assert obeys(text) is expected
