"""Configuration: flags, then environment, then file, then defaults, as one frozen object.

This is the only place that reads configuration and the only one that judges it. What cannot be used
is refused with file, line and what was expected; nothing is silently dropped.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from llmr import config_file
from llmr.errors import ConfigError
from llmr.loops import own_address

Positive = Annotated[float, Meta(gt=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Price = Annotated[float, Meta(ge=0, le=1e9)]
Priority = Literal["speed", "cost", "quality", "balanced"]
Region = Literal["eu", "us", "uk", "ch", "ca", "br", "in", "jp", "kr", "sg", "au"]
Ability = Literal[
    "tools",
    "vision",
    "json_schema",
    "json_object",
    "reasoning",
    "prefill",
    "audio",
    "file",
    "video",
]

OPENROUTER_URL = "https://openrouter.ai/api/v1"
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
PREFIX = "LLMR_"
RESERVED = frozenset(("LLMR_CONFIG",))
CHOICES = {
    "region": ", ".join(get_args(Region)),
    "priority": "speed, cost, quality or balanced",
    "quality": "prompt or static",
    "hedge": "never or auto",
    "continue": "restart, prefill or never",
    "default": "auto, always, deterministic or never",
}


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the router listens, and whom it answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    api_keys: tuple[str, ...] = ()


class ModelRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A model of an upstream's own, as its owner describes it. An absent price is unknown."""

    id: Annotated[str, Meta(min_length=1)]
    context_length: Annotated[int, Meta(gt=0)] | None = None
    max_output_tokens: Annotated[int, Meta(gt=0)] | None = None
    prompt_cost_per_1k: Price | None = None
    completion_cost_per_1k: Price | None = None
    avg_latency_ms: Positive | None = None
    tokens_per_s: Positive | None = None
    quality_score: Share | None = None
    supports: tuple[Ability, ...] = ()


class UpstreamConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a provider. No `api_key` at all: it takes none. An empty one: it is missing.

    `no_training`, `no_retention` and `region` are what its owner vouches for: requests that ask for
    it go nowhere else. Unset, nothing is vouched for; OpenRouter holds its providers to the first
    two by itself.
    """

    base_url: str | None = None
    api_key: str | UnsetType | None = UNSET
    models: tuple[ModelRow, ...] | None = None
    no_training: bool | None = None
    no_retention: bool | None = None
    region: Region | None = None


class Redis(Struct, frozen=True, forbid_unknown_fields=True):
    """A Redis or Valkey server for what several routers share."""

    url: str | None = None
    host: str | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] = 6379
    db: Annotated[int, Meta(ge=0)] = 0
    password: str | None = None
    ttl_seconds: Annotated[int, Meta(gt=0)] = 3600

    @property
    def address(self) -> str | None:
        """The URL to connect to, or None where none is configured."""
        if self.url or not self.host:
            return self.url or None
        from urllib.parse import quote

        secret = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{secret}{self.host}:{self.port}/{self.db}"


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of latency, cost and quality in a score; only their proportion counts."""

    latency: Price = 0.4
    cost: Price = 0.3
    quality: Price = 0.3


class Explore(Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be risked to learn of models that little is known of. `share` 0: nothing."""

    share: Annotated[float, Meta(ge=0, le=0.5)] = 0.03
    usd_per_day: Price = 1.0


class Routing(Struct, frozen=True, forbid_unknown_fields=True):
    """How `auto` chooses. `default_weights` are those of `balanced`. `feedback`: learn from it."""

    priority: Priority = "balanced"
    default_weights: Weights = Weights()
    quality: Literal["prompt", "static"] = "prompt"
    feedback: bool = True
    explore: Explore = Explore()
    hedge: Literal["never", "auto"] = "never"
    hedge_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.03
    fallback_models: tuple[str, ...] = ()


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one request. `first_event_s` null: worked out per model.

    `first_event_by_model` goes before it, for models that think long. `strict_events`: a stream
    with an event that cannot be read ends with an error; else the event is left out and counted.
    """

    attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    connect_s: Positive = 3.0
    first_event_s: Positive | None = None
    first_event_by_model: dict[str, Positive] = field(default_factory=dict)
    idle_s: Positive = 45.0
    total_s: Positive = 600.0
    retry_after_wait_s: Price = 3.0
    continuation: Literal["restart", "prefill", "never"] = field(default="restart", name="continue")
    body_mb: Positive = 32.0
    event_mb: Positive = 8.0
    strict_events: bool = False


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """Where what must survive is kept; null: the user's state folder."""

    path: str | None = None


class CacheConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The response cache. `auto`: all identical requests on /route, deterministic ones on /v1."""

    enabled: bool = True
    max_mb: Positive = 256.0
    default: Literal["auto", "always", "deterministic", "never"] = "auto"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: Server = Server()
    upstreams: dict[str, UpstreamConfig | None] = field(default_factory=dict)
    redis: Redis = Redis()
    routing: Routing = Routing()
    limits: LimitsConfig = LimitsConfig()
    state: State = State()
    cache: CacheConfig = CacheConfig()


def load(
    path: str | os.PathLike[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    *,
    serving: bool = False,
) -> Config:
    """The configuration in force.

    `flags` maps dotted names (`server.port`) to values. `environ` defaults to the process's
    environment with `.env` of `directory` (default: the working directory) laid under it.
    `serving`: a server is to listen where it says.
    """
    directory = directory or Path.cwd()
    environ = _environment(environ, directory)
    chosen = path or environ.get("LLMR_CONFIG")
    file = Path(chosen) if chosen else directory / "config.yaml"
    tree: dict[str, Any] = {}
    lines: dict[str, int] = {}
    name = "the configuration"
    if chosen or file.is_file():
        name = str(file)
        tree = config_file.read(file, environ, lines)
    _lay_environment(tree, environ, lines)
    for dotted, value in (flags or {}).items():
        if value is not None:
            _put(tree, dotted.split("."), value)
    return build(tree, environ, name, lines, serving=serving)


def build(
    tree: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    name: str = "the configuration",
    lines: Mapping[str, int] | None = None,
    *,
    serving: bool = False,
) -> Config:
    """A checked configuration from a plain mapping; `serving`: with a server that listens."""
    environ = os.environ if environ is None else environ
    upstreams = tree.get("upstreams")
    for key, value in upstreams.items() if isinstance(upstreams, dict) else ():
        try:  # one by one, so that a mistake is told with the place it is at
            msgspec.convert(value, UpstreamConfig | None, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(_told(str(error), name, lines or {}, f".upstreams.{key}")) from None
    try:
        config = msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(_told(str(error), name, lines or {})) from None
    _check(config, name, lines or {})
    if serving:
        _check_own_address(config, name, lines or {})
    return msgspec.structs.replace(config, upstreams=_upstreams(config, environ))


def schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file."""
    found = msgspec.json.schema(Config)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmr configuration",
        **found,
    }


def shown(config: Config) -> dict[str, Any]:
    """The configuration as plain data without secrets."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    tree["server"]["api_keys"] = ["***" for _ in config.server.api_keys]
    for upstream in tree["upstreams"].values():
        if upstream.get("api_key"):
            upstream["api_key"] = "***"
    for key in ("password", "url"):
        if value := tree["redis"].get(key):
            tree["redis"][key] = place_of(value) if key == "url" else "***"
    return tree


def place_of(url: str) -> str:
    """A store's URL without credentials and query, wherever somebody put a secret into it."""
    scheme, _, rest = url.partition("://")
    rest = rest.partition("?")[0]
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else f"{scheme}://{rest}"


# --- reading ---


def _environment(environ: Mapping[str, str] | None, directory: Path) -> Mapping[str, str]:
    if environ is not None:
        return environ
    file = directory / ".env"
    if not file.is_file():
        return os.environ
    from dotenv import dotenv_values

    extra = {key: value for key, value in dotenv_values(file).items() if value is not None}
    return {**extra, **os.environ}


def _lay_environment(
    tree: dict[str, Any], environ: Mapping[str, str], lines: dict[str, int]
) -> None:
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in RESERVED:
            continue
        path = name[len(PREFIX) :].lower().split("__")
        if path[0] not in Config.__struct_fields__:
            hint = _nearest(path[0], Config.__struct_fields__)
            raise ConfigError(
                f"environment: {name} names no setting{hint}; write {PREFIX}SECTION__KEY."
            )
        text = environ[name]
        value: Any = text
        if text[:1] in ("[", "{"):
            import yaml

            try:
                value = yaml.safe_load(text)
            except (yaml.YAMLError, RecursionError):
                raise ConfigError(f"environment: {name} is not a list or mapping.") from None
        elif path[-1] in ("api_keys", "fallback_models", "supports"):
            value = [part.strip() for part in text.split(",") if part.strip()]
        _put(tree, path, value)
        for place in [p for p in lines if p.startswith("$." + ".".join(path))]:
            del lines[place]  # no line of the file is to blame for what stands here now


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        inner = tree.get(step)
        if not isinstance(inner, dict):
            inner = tree[step] = {}
        tree = inner
    tree[path[-1]] = value


# --- judging ---


def _told(text: str, name: str, lines: Mapping[str, int], below: str = "") -> str:
    """msgspec's finding as a line a person can act on; `below`: the part that was looked at."""
    message, _, where = text.partition(" - at `")
    path = "$" + below + (where.rstrip("`") or "$").removeprefix("$").replace("[...]", "")
    unknown = re.search(r"unknown field `([^`]*)`", message)
    if unknown:
        key = unknown[1]
        line = _line_of(f"{path}.{key}", lines)
        hint = _nearest(key, _known_keys(path))
        place = path.removeprefix("$").lstrip(".")
        inside = f" in {place}" if place else ""
        return f"{name}{line}: unknown key {key!r}{inside}{hint}."
    message = message.replace("`", "").replace("Object missing required field", "missing key")
    place = path.removeprefix("$").lstrip(".")
    if message.startswith("Invalid enum value"):
        expected = CHOICES.get(place.rsplit(".", 1)[-1]) or ", ".join(get_args(Ability))
        message = f"expected {expected}, got{message.removeprefix('Invalid enum value')}"
    return f"{name}{_line_of(path, lines)}: {place}: {message[:1].lower()}{message[1:]}."


def _line_of(path: str, lines: Mapping[str, int]) -> str:
    if path in lines:
        return f":{lines[path]}"
    # msgspec writes [...] for keys of a mapping: look for the one path that ends the same way.
    tail = path.rsplit(".", 1)[-1]
    found = [line for known, line in lines.items() if known.rsplit(".", 1)[-1] == tail]
    return f":{found[0]}" if found else ""


def _known_keys(path: str) -> tuple[str, ...]:
    tail = path.removeprefix("$").lstrip(".").split(".")[-1].split("[")[0]
    by_name: dict[str, type[Struct]] = {
        "": Config,
        "server": Server,
        "redis": Redis,
        "routing": Routing,
        "default_weights": Weights,
        "limits": LimitsConfig,
        "state": State,
        "cache": CacheConfig,
        "models": ModelRow,
        "upstreams": UpstreamConfig,
    }
    return by_name.get(tail, UpstreamConfig).__struct_fields__


def _nearest(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, 1, 0.5)
    return f"; did you mean {close[0]!r}" if close else f"; known are {', '.join(known)}"


def _check(config: Config, name: str, lines: Mapping[str, int]) -> None:
    server = config.server
    if server.host not in LOOPBACK and not server.api_keys:
        raise ConfigError(
            f"{name}{_line_of('$.server.host', lines)}: server.host {server.host} can be reached "
            "from other machines, which needs at least one key in server.api_keys."
        )
    if any(not key.strip() for key in server.api_keys):
        raise ConfigError(
            f"{name}{_line_of('$.server.api_keys', lines)}: server.api_keys has an empty key."
        )
    weights = config.routing.default_weights
    if not weights.latency + weights.cost + weights.quality > 0:
        raise ConfigError(
            f"{name}{_line_of('$.routing.default_weights', lines)}: at least one of "
            "routing.default_weights must be above 0."
        )
    address = config.redis.address
    if address is not None and not re.match(r"(?:rediss?|unix)://", address):
        raise ConfigError(
            f"{name}{_line_of('$.redis.url', lines)}: redis.url must begin with redis:// or rediss://."
        )
    for key, upstream in config.upstreams.items():
        where = f"{name}{_line_of(f'$.upstreams.{key}', lines)}"
        if upstream is None:
            continue
        url = upstream.base_url or (OPENROUTER_URL if key == "openrouter" else None)
        if url is None:
            raise ConfigError(f"{where}: upstreams.{key} needs a base_url.")
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            good = good and url.isascii() and not re.search(r"[\s\x00-\x1f]", url)
        except ValueError:
            good = False
        if not good:
            raise ConfigError(
                f"{where}: upstreams.{key}.base_url must be like https://host/v1, not {url!r}."
            )
        if parts.username or parts.query or parts.fragment:
            raise ConfigError(
                f"{where}: upstreams.{key}.base_url must hold no credentials, query or fragment; "
                "the key belongs in api_key."
            )
        if "/" in key or not key:
            raise ConfigError(f"{where}: the upstream name {key!r} must not contain a slash.")
        ids = [row.id for row in upstream.models or ()]
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise ConfigError(f"{where}: upstreams.{key}.models has {twice!r} twice.")


def _check_own_address(config: Config, name: str, lines: Mapping[str, int]) -> None:
    """Where nothing listens, an upstream may have the address: another router, or a model."""
    host, port = config.server.host, config.server.port
    for key, upstream in config.upstreams.items():
        url = upstream.base_url if upstream is not None else None
        if url is not None and own_address(host, port, url):
            raise ConfigError(
                f"{name}{_line_of(f'$.upstreams.{key}', lines)}: upstreams.{key}.base_url {url} is "
                f"where this router itself listens ({host}:{port}): its requests would go round. "
                "Point base_url to the provider, or let the router listen elsewhere (server.port)."
            )


def _upstreams(config: Config, environ: Mapping[str, str]) -> dict[str, UpstreamConfig | None]:
    """All upstreams with their defaults: `openrouter` exists unless it is set to null."""
    out: dict[str, UpstreamConfig | None] = {}
    if "openrouter" not in config.upstreams:
        out["openrouter"] = UpstreamConfig(OPENROUTER_URL, environ.get("OPENROUTER_API_KEY", ""))
    for key, upstream in config.upstreams.items():
        if upstream is None:
            continue
        url, secret = upstream.base_url, upstream.api_key
        if key == "openrouter":
            url = url or OPENROUTER_URL
            secret = environ.get("OPENROUTER_API_KEY", "") if secret is UNSET else secret
        secret = None if secret is UNSET else secret
        out[key] = msgspec.structs.replace(upstream, base_url=url, api_key=secret)
    return out
