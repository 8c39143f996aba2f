"""`llmr route`: one question, answered, or only decided."""

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from rich.markup import escape

from llmr import config as configuration
from llmr.cli.output import ms, print_json, say, table, usd
from llmr.core.body import Body
from llmr.core.explain import explain
from llmr.gateway import Gateway
from llmr.router import Router

SHOWN = 10


def dry_run(config: str | None, fields: Mapping[str, Any], as_json: bool) -> None:
    """Show the decision for a request without sending it."""
    gateway = Gateway(configuration.load(config), assume_keys=True)
    body = Body(msgspec.json.encode(fields))
    account = explain(gateway.decide(gateway.request(body, {}, "route")))
    account["telling_words"] = gateway.telling(body)
    if as_json:
        print_json(account)
        return
    keyless = sorted(name for name, s in gateway.sources.items() if s.missing_key)
    if keyless:
        say(f"[dim]No key for {', '.join(keyless)}: this is what would be chosen with one.[/dim]")
    show(account)


def show(account: Mapping[str, Any]) -> None:
    """A decision for a person: the choice and why, the candidates, what was left out."""
    weights = account["weights_used"]
    print(f"{account['selected_model']}\n{account['reason']}\n")
    if told := account.get("telling_words"):
        words = ", ".join(f"{word} {share:+.2f}" for word, share in told.items())
        say(f"[dim]Words that told most (+ easier, - harder): {escape(words)}[/dim]\n")
    heading = ", ".join(f"{name} {share:.2f}" for name, share in weights.items())
    table(
        [
            ("model", "left"),
            ("score", "right"),
            ("latency", "right"),
            ("cost", "right"),
            ("quality", "right"),
            ("first token", "right"),
            ("total", "right"),
            ("estimated cost", "right"),
        ],
        [_candidate(c) for c in account["candidates"][:SHOWN]],
        f"Candidates by score ({account['priority']}: {heading})",
    )
    _left_out(account)


def _candidate(c: Mapping[str, Any]) -> list[str]:
    scores = ("composite_score", "latency_score", "cost_score", "quality_score")
    return [
        c["model"],
        *(f"{c[name]:.3f}" for name in scores),
        ms(c["estimated_latency_ms"]),
        ms(c["estimated_total_ms"]),
        usd(c["estimated_cost_usd"]),
    ]


def _left_out(account: Mapping[str, Any]) -> None:
    more = len(account["candidates"]) - SHOWN
    if more > 0:
        print(f"\n… and {more} more candidates (--json shows all)")
    reasons = Counter(row["reason"] for row in account["excluded"])
    examples = {row["reason"]: row["model"] for row in reversed(account["excluded"])}
    if reasons:
        print("\nLeft out:")
        table(
            [("  reason", "left"), ("models", "right"), ("for example", "left")],
            [[f"  {why}", str(n), examples[why]] for why, n in reasons.most_common()],
        )


def ask(config: str | None, fields: Mapping[str, Any], stream: bool, as_json: bool) -> None:
    """Ask, and print the answer."""
    asyncio.run(_ask(config, dict(fields), stream, as_json))


async def _ask(config: str | None, fields: dict[str, Any], stream: bool, as_json: bool) -> None:
    messages = fields.pop("messages")
    async with Router(configuration.load(config)) as router:
        if stream:
            await _stream(router, messages, fields, as_json)
            return
        answer = await router.chat(messages=messages, **fields)
    if as_json:
        print_json(answer)
        return
    print(answer.text or msgspec.json.encode(answer["choices"]).decode())
    decision = answer["routing_decision"]
    cost = (answer.get("usage") or {}).get("cost")
    say(
        f"[dim]{answer['model']} · {ms(answer['latency_ms'])} · {usd(cost)} · "
        f"{len(decision['attempts'])} attempt(s)[/dim]"
    )


async def _stream(
    router: Router, messages: list[Any], fields: dict[str, Any], as_json: bool
) -> None:
    async for chunk in router.stream(messages=messages, **fields):
        if as_json:
            sys.stdout.write(msgspec.json.encode(chunk).decode() + "\n")
        else:
            sys.stdout.write(chunk.text)
        sys.stdout.flush()
    if not as_json:
        sys.stdout.write("\n")
