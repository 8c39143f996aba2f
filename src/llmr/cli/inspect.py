"""Verbs that look: models, the cache, a decision, the configuration."""

import asyncio
import http.client
import json
from typing import Any

from llmr import config as configuration
from llmr.cli.output import FAILED, fail, ms, print_json, say, table, usd
from llmr.config import Config
from llmr.gateway import Gateway


def models(config: str | None, as_json: bool) -> None:
    """List every routable model."""
    gateway = Gateway(configuration.load(config), assume_keys=True)
    rows = gateway.model_rows()
    if as_json:
        print_json({"models": rows})
        return
    rows.sort(key=lambda row: -row["quality_score"])
    table(
        [
            ("model", "left"),
            ("quality", "right"),
            ("first token", "right"),
            ("total", "right"),
            ("$/1M in", "right"),
            ("$/1M out", "right"),
            ("context", "right"),
            ("supports", "left"),
        ],
        [_model(row) for row in rows],
    )
    for name, source in gateway.sources.items():
        when = source.snapshot.captured.get(name, "never")
        say(f"[dim]{name}: {len(source.snapshot.routable)} models, {source.origin}, {when}[/dim]")


def _model(row: dict[str, Any]) -> list[str]:
    guess = "~" if row["sources"]["quality"] == "estimated" else ""
    context = row["context_length"]
    return [
        row["id"],
        f"{guess}{row['quality_score']:.2f}",
        ms(row["avg_latency_ms"]),
        ms(row["avg_total_ms"]),
        _per_million(row["prompt_cost_per_1k"]),
        _per_million(row["completion_cost_per_1k"]),
        "?" if context is None else f"{context:,}",
        " ".join(row["supports"]),
    ]


def _per_million(per_1k: float | None) -> str:
    return usd(None if per_1k is None else per_1k * 1000)


def ask_server(config: Config, method: str, path: str) -> Any:
    """What the running server answers; ends with exit code 1 where none does."""
    server = config.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host
    headers = {"authorization": f"Bearer {server.api_keys[0]}"} if server.api_keys else {}
    connection = http.client.HTTPConnection(host, server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        fail(
            f"no llmr server answers on {host}:{server.port} ({type(error).__name__})",
            FAILED,
            "start one with llmr serve, or say where it is with --config",
        )
    finally:
        connection.close()
    if response.status >= 400:
        fail(str((answer.get("error") or {}).get("message") or answer), FAILED)
    return answer


def cache_stats(config: str | None, redis: bool, as_json: bool) -> None:
    """Show what the cache holds."""
    loaded = configuration.load(config)
    stats = (
        asyncio.run(_redis_stats(loaded)) if redis else ask_server(loaded, "GET", "/cache/stats")
    )
    if as_json:
        print_json(stats)
        return
    table([("", "left"), ("", "right")], [[key, str(value)] for key, value in stats.items()])


def clear_cache(config: str | None, redis: bool, as_json: bool) -> None:
    """Forget every cached answer."""
    loaded = configuration.load(config)
    result = asyncio.run(_redis_clear(loaded)) if redis else ask_server(loaded, "DELETE", "/cache")
    print_json(result) if as_json else print(result["message"])


def _shared(config: Config) -> Any:
    if config.redis.address is None:
        fail("no redis is configured", FAILED, "set redis.url, or leave out --redis")
    from llmr.cache.shared import Shared

    return Shared(config.redis.address, config.redis.ttl_seconds)


async def _redis_stats(config: Config) -> dict[str, Any]:
    store = _shared(config)
    try:
        entries, size = await store.count()
    except store.errors as error:
        fail(f"redis {store.place} does not answer ({type(error).__name__})", FAILED)
    finally:
        await store.close()
    return {"entries": entries, "bytes": size, "backend": "redis"}


async def _redis_clear(config: Config) -> dict[str, Any]:
    store = _shared(config)
    try:
        cleared = await store.clear()
    except store.errors as error:
        fail(f"redis {store.place} does not answer ({type(error).__name__})", FAILED)
    finally:
        await store.close()
    return {"message": f"Cleared {cleared} cached answers.", "cleared": cleared}


def explain(config: str | None, decision_id: str, as_json: bool) -> None:
    """Explain a past decision of the running server."""
    from urllib.parse import quote

    account = ask_server(
        configuration.load(config), "GET", f"/v1/decisions/{quote(decision_id, safe='')}"
    )
    if as_json:
        print_json(account)
        return
    from llmr.cli.route import show

    show(account)
    outcome = account.get("outcome")
    if outcome:
        print("\nWhat came of it:")
        rows = [[f"  {k}", str(v)] for k, v in outcome.items() if k != "attempts"]
        for n, attempt in enumerate(outcome["attempts"], 1):
            told = f"{attempt['model']}: {attempt['outcome']} in {ms(attempt['duration_ms'])}"
            rows.append([f"  attempt {n}", told])
        table([("", "left"), ("", "left")], rows)


def config_check(file: str | None, as_json: bool) -> None:
    """Check the configuration."""
    loaded = configuration.load(file, serving=True)
    keyless = [name for name, u in loaded.upstreams.items() if u is not None and u.api_key == ""]
    if as_json:
        print_json({"ok": True, "upstreams": list(loaded.upstreams), "without_key": keyless})
        return
    print("The configuration is good.")
    for name in keyless:
        say(f"[dim]note:[/dim] upstream {name} has no key and will not be routed to")


def config_show(file: str | None, as_json: bool) -> None:
    """Show the configuration in force."""
    tree = configuration.shown(configuration.load(file))
    if as_json:
        print_json(tree)
        return
    import yaml

    print(yaml.safe_dump(tree, sort_keys=False).rstrip())
