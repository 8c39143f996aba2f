"""A sample value for a JSON schema: small, fixed, and valid for what the schema says."""

import math
from typing import Any

_MAX_DEPTH = 6
_MAX_SIZE = 10_000

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample(schema: Any) -> Any:
    """A value valid for `schema`: types, enum, const, $ref, combinations, required, bounds.

    Patterns and conditional keywords are not solved.
    """
    return _value(schema, schema, 0)


def _value(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH * 4:
        return None
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("allOf"):
        return _value(_merged(schema, root), root, depth + 1)
    for branches in (schema.get("anyOf"), schema.get("oneOf")):
        if branches:
            rest = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
            branch = _branch(branches, depth)
            return _value({**rest, **branch}, root, depth + 1)
    return _of_type(_type_of(schema, depth), schema, root, depth)


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name and isinstance(found, dict):
            found = found.get(name.replace("~1", "/").replace("~0", "~"))
    return found


def _merged(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        if "$ref" in part:
            part = {**_resolve(part["$ref"], root), **part}
            del part["$ref"]
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged = {**merged, **part, "properties": properties, "required": required}
    return merged


def _branch(branches: list[Any], depth: int) -> dict[str, Any]:
    dicts = [branch for branch in branches if isinstance(branch, dict)]
    if depth > _MAX_DEPTH:
        dicts.sort(key=lambda branch: branch.get("type") != "null")
    return dicts[0] if dicts else {}


def _type_of(schema: dict[str, Any], depth: int) -> str:
    declared = schema.get("type")
    if isinstance(declared, list) and declared:
        return "null" if depth > _MAX_DEPTH and "null" in declared else str(declared[0])
    if isinstance(declared, str):
        return declared
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "object" if "properties" in schema or depth == 0 else "string"


def _of_type(kind: str, schema: dict[str, Any], root: Any, depth: int) -> Any:
    match kind:
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, depth)
        case "string":
            return _string(schema)
        case "integer":
            return _number(schema, whole=True)
        case "number":
            return _number(schema, whole=False)
        case "boolean":
            return True
        case _:
            return None


def _object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = schema.get("required") or []
    names = required if required or depth > _MAX_DEPTH else list(properties)
    return {name: _value(properties.get(name, {}), root, depth + 1) for name in names}


def _array(schema: dict[str, Any], root: Any, depth: int) -> list[Any]:
    fixed = [_value(item, root, depth + 1) for item in schema.get("prefixItems") or ()]
    least = min(schema.get("minItems", 0), _MAX_SIZE)
    wanted = least if depth > _MAX_DEPTH else max(least, 1)
    size = min(wanted, schema.get("maxItems", wanted))
    items = schema.get("items", {"type": "string"})
    return fixed + [_value(items, root, depth + 1) for _ in range(size - len(fixed))]


def _string(schema: dict[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""), "simulated")
    text = text.ljust(min(schema.get("minLength", 0), _MAX_SIZE), ".")
    return text[: schema.get("maxLength", len(text))]


def _number(schema: dict[str, Any], *, whole: bool) -> int | float:
    """The first of some likely numbers that keeps the bounds; 1 where none does."""
    step = schema.get("multipleOf", 1)
    bounds = [bound for name in _BOUNDS if (bound := _bound(schema, name)) is not None]
    near = [math.floor(bound / step) + more for bound in bounds for more in (0, 1, -1)]
    likely = [step, *(count * step for count in near)]
    if not whole:
        likely += [sum(bounds) / len(bounds)] if bounds else []
    found = next((value for value in likely if _within(value, schema)), 1)
    return int(found) if whole else found


_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def _bound(schema: dict[str, Any], name: str) -> float | None:
    bound = schema.get(name)
    return bound if isinstance(bound, int | float) and not isinstance(bound, bool) else None


def _within(value: float, schema: dict[str, Any]) -> bool:
    low, above, high, below = (_bound(schema, name) for name in _BOUNDS)
    return (
        (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
        and (below is None or value < below)
    )
