"""OpenAPI descriptions of the bodies that are read as bytes, for the documentation."""

from typing import Any

from llmr.core.request import PRIORITIES

_NUMBER = {"type": "number", "exclusiveMinimum": 0}

WISHES: dict[str, Any] = {
    "priority": {"type": "string", "enum": list(PRIORITIES)},
    "weights": {
        "type": "object",
        "description": "Overrides `priority`; only the proportion counts.",
        "properties": {k: {"type": "number", "minimum": 0} for k in ("latency", "cost", "quality")},
    },
    "preferred_models": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Those that pass the filters come first, by score.",
    },
    "max_latency_ms": {**_NUMBER, "description": "Expected time to the first content token."},
    "max_cost_per_1k": {**_NUMBER, "description": "Prompt plus completion price per 1,000 tokens."},
    "max_cost_usd": {**_NUMBER, "description": "Bound on the cost of this request."},
    "deadline_ms": {**_NUMBER, "description": "For the whole request, every attempt included."},
    "models": {
        "type": "array",
        "items": {"type": "string"},
        "description": "An ordered list to try.",
    },
}

MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "examples": ["user"]},
            "content": {"examples": ["Hello!"]},
        },
        "additionalProperties": True,
    },
}


def _body(required: list[str], example: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": required,
                        "properties": {
                            "model": {
                                "type": "string",
                                "description": "`auto`, `auto:PRIORITY`, or a model id.",
                            },
                            "messages": MESSAGES,
                            "stream": {"type": "boolean"},
                            **WISHES,
                        },
                        "additionalProperties": True,
                    },
                    "example": example,
                }
            },
        }
    }


_ASK = {"messages": [{"role": "user", "content": "Hello!"}]}
CHAT = _body(["model", "messages"], {"model": "auto", **_ASK})
ROUTE = _body(["messages"], {**_ASK, "priority": "cost"})
FEEDBACK = _body(["decision_id"], {"decision_id": "dec-1f2e3d4c-1", "score": 0.9})
DECISION = _body(["messages"], {"model": "auto:quality", **_ASK})
