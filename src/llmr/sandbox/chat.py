"""Decides what a chat request is answered with."""

import time
from typing import Any

from llmr.sandbox import answer, pace, replies, scenarios
from llmr.sandbox.attempts import Attempt
from llmr.sandbox.catalogue import Row
from llmr.sandbox.faults import Fault, shown_kind
from llmr.sandbox.request import (
    ChatRequest,
    InvalidRequestError,
    asked_model,
    parse_chat,
    parse_json,
)
from llmr.sandbox.rules import ANY_MODEL
from llmr.sandbox.script import Headers, Script, error_reply
from llmr.sandbox.state import State


def reply(state: State, attempt: Attempt) -> Script:
    """The script that answers the attempt; fills in its model, stream flag and fault."""
    answer_id = answer.generation_id()
    headers: Headers = {"x-generation-id": answer_id}
    if refusal := key_refusal(state, attempt, headers):
        return refusal
    try:
        return _answer(state, attempt, answer_id, headers)
    except InvalidRequestError as error:
        return error_reply(400, str(error), headers, code=error.code)


def key_refusal(state: State, attempt: Attempt, headers: Headers) -> Script | None:
    """A 401 for a caller who does not show the key that is required, if one is."""
    wanted = state.settings.require_key
    shown = attempt.headers.get("authorization")
    if wanted is None or shown == f"Bearer {wanted}":
        return None
    return error_reply(
        401, "User not found." if shown else "Missing Authentication header", headers
    )


def _answer(state: State, attempt: Attempt, answer_id: str, headers: Headers) -> Script:
    body = parse_json(attempt.body)
    model = attempt.model = asked_model(body)
    attempt.stream = body.get("stream") is True
    if model is None:
        raise InvalidRequestError("No models provided")
    visits = state.attempts.visit(model)
    attempt.model_n = visits.count
    scenario = scenarios.scenario_of(model)
    fault = state.rules.take(model, ANY_MODEL)
    if fault is None and scenario:
        elapsed_s = time.monotonic() - visits.first_t
        visit = scenarios.Visit(visits.count, elapsed_s, state.settings)
        fault = scenarios.scenario_fault(scenario, visit)
    attempt.fault = shown_kind(fault)
    if fault and (script := replies.instead(fault, stream=attempt.stream, headers=headers)):
        attempt.generation = answer_id
        state.books.open_nothing(answer_id, model)
        return replies.delayed(script, fault)
    row = _row(state, model, fault)
    request = _checked(body, scenario, row)
    cached = state.books.cached_tokens(model, request)
    composed, bill = answer.compose(request, model, row, answer_id, cached)
    attempt.generation = answer_id
    bill.user = request.user or ""
    state.books.open(answer_id, bill)
    if not state.settings.report_cost:
        del composed.usage["cost"], composed.usage["cost_details"]
    material = replies.Material(
        answer=composed,
        pace=_pace(state, model, visits.count, scenario),
        stream=attempt.stream,
        headers=headers,
        comment_every_s=state.settings.comment_every_s,
    )
    if fault is None:
        return replies.healthy(material)
    return replies.delayed(replies.changed(fault, material), fault)


def _row(state: State, model: str, fault: Fault | None) -> Row:
    """The catalogue row; for a model known only to a rule, a row without prices."""
    row = state.catalogue.find(model)
    if row is None and (fault or scenarios.scenario_of(model)):
        row = state.catalogue.rows[scenarios.OK]
    if row is None:
        raise InvalidRequestError(f"{model} is not a valid model ID")
    return row


def _checked(body: dict[str, Any], scenario: str | None, row: Row) -> ChatRequest:
    request = parse_chat(body)
    if scenario == scenarios.OK_NO_PREFILL and request.prefill is not None:
        message = "This model does not support assistant message prefill."
        raise InvalidRequestError(message, "invalid_prefill")
    window = row["context_length"]
    if window and request.prompt_tokens > window:
        raise InvalidRequestError(
            f"This endpoint's maximum context length is {window} tokens. However, you requested "
            f"about {request.prompt_tokens} tokens. Please reduce the length of either one."
        )
    return request


def _pace(state: State, model: str, attempt: int, scenario: str | None) -> pace.Pace:
    if scenario:
        return pace.scenario_pace(state.settings)
    return pace.draw(state.catalogue.latency(model), model, attempt, state.settings)
