"""Configuration: where values come from, and what is refused, with its place."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmr import config
from llmr.config import Config, ModelRow, UpstreamConfig, Weights
from llmr.errors import ConfigError

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: pathlib.Path) -> Load:
    """Load a file of this text (none where it is None), with this environment and these flags."""

    def loaded(
        text: str | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> Config:
        if text is not None:
            (tmp_path / "config.yaml").write_text(text)
        return config.load(None, flags, environ or {}, tmp_path)

    return loaded


def refusal(load: Load, text: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, environ)
    return str(caught.value)


# --- where values come from ---


def test_without_anything_the_defaults_hold(load: Load) -> None:
    found = load()
    assert (found.server.host, found.server.port, found.server.api_keys) == ("127.0.0.1", 8000, ())
    assert found.upstreams == {"openrouter": UpstreamConfig("https://openrouter.ai/api/v1", "")}
    assert found.redis.address is None
    assert found.redis.ttl_seconds == 3600
    assert found.routing.priority == "balanced"
    assert found.routing.default_weights == Weights(0.4, 0.3, 0.3)
    assert found.routing.fallback_models == ()
    assert (found.limits.attempts, found.limits.connect_s, found.limits.idle_s) == (3, 3, 45)
    assert (found.limits.first_event_s, found.limits.total_s) == (None, 600)
    assert (found.limits.retry_after_wait_s, found.limits.body_mb) == (3, 32)
    assert found.state.path is None
    assert (found.cache.enabled, found.cache.max_mb, found.cache.default) == (True, 256, "auto")


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "---\n", "{}"])
def test_an_empty_file_is_fine(load: Load, text: str) -> None:
    assert load(text) == load()


def test_flags_win_over_environment_over_file_over_defaults(load: Load) -> None:
    text = "server: {port: 1, host: localhost}\nlimits: {attempts: 4}\n"
    environ = {"LLMR_SERVER__PORT": "2", "LLMR_LIMITS__ATTEMPTS": "5"}
    assert load(text).server.port == 1
    assert load(text, environ).server.port == 2
    assert load(text, environ, {"server.port": 3}).server.port == 3
    assert load(text, environ, {"server.port": None}).server.port == 2
    found = load(text, environ, {"server.port": 3})
    assert (found.server.host, found.limits.attempts) == ("localhost", 5)
    assert found.limits.idle_s == 45


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("LLMR_SERVER__API_KEYS", "a, b", "server.api_keys", ("a", "b")),
        ("LLMR_SERVER__API_KEYS", '["a", "b"]', "server.api_keys", ("a", "b")),
        (
            "LLMR_ROUTING__FALLBACK_MODELS",
            "x/a,x/b:free",
            "routing.fallback_models",
            ("x/a", "x/b:free"),
        ),
        ("LLMR_ROUTING__DEFAULT_WEIGHTS__COST", "5", "routing.default_weights.cost", 5),
        ("LLMR_ROUTING__DEFAULT_WEIGHTS", "{cost: 5}", "routing.default_weights.cost", 5),
        ("LLMR_CACHE__ENABLED", "false", "cache.enabled", False),
        ("LLMR_LIMITS__FIRST_EVENT_S", "2.5", "limits.first_event_s", 2.5),
        ("LLMR_REDIS__URL", "redis://h/0", "redis.url", "redis://h/0"),
        ("LLMR_STATE__PATH", "/tmp/x.db", "state.path", "/tmp/x.db"),  # noqa: S108
    ],
)
def test_environment_variables_name_settings(
    load: Load, name: str, value: str, path: str, expected: Any
) -> None:
    found: Any = load("routing: {priority: cost}", {name: value})
    assert found.routing.priority == "cost"
    for step in path.split("."):
        found = getattr(found, step)
    assert found == expected


def test_the_file_is_the_named_one_else_that_of_the_environment(tmp_path: pathlib.Path) -> None:
    for name, port in (("config.yaml", 1), ("env.yaml", 2), ("flag.yaml", 3)):
        (tmp_path / name).write_text(f"server: {{port: {port}}}")
    environ = {"LLMR_CONFIG": str(tmp_path / "env.yaml")}
    assert config.load(None, {}, {}, tmp_path).server.port == 1
    assert config.load(None, {}, environ, tmp_path).server.port == 2
    assert config.load(tmp_path / "flag.yaml", {}, environ, tmp_path).server.port == 3


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_named_file_that_cannot_be_read_is_an_error(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / name, {}, {}, tmp_path)


def test_a_file_that_is_no_text_is_an_error(tmp_path: pathlib.Path) -> None:
    for data in (b"\xff\xfe\x00", b"a: \xc3\x28", b"#" * (2 * 1024 * 1024)):
        (tmp_path / "config.yaml").write_bytes(data)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            config.load(None, {}, {}, tmp_path)


def test_a_dot_env_file_lies_under_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "OPENROUTER_API_KEY=of-the-file\nLLMR_SERVER__PORT=7\nLLMR_LIMITS__ATTEMPTS=7\n"
    )
    monkeypatch.setenv("LLMR_SERVER__PORT", "8")
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    found = config.load(directory=tmp_path)
    assert (found.server.port, found.limits.attempts) == (8, 7)
    assert found.upstreams["openrouter"] == UpstreamConfig(config.OPENROUTER_URL, "of-the-file")


# --- ${VAR} ---


@pytest.mark.parametrize(
    ("value", "environ", "expected"),
    [
        ("${P}", {"P": "x"}, "x"),
        ("'${P}'", {"P": "x"}, "x"),
        ("a/${P}/b/${Q}", {"P": "x", "Q": "y"}, "a/x/b/y"),
        ("${P:-d}", {}, "d"),
        ("${P:-d}", {"P": "x"}, "x"),
        ("${P:-d}", {"P": ""}, "d"),
        ("${P:-a b:c}", {}, "a b:c"),
        ("${P}", {"P": ""}, ""),
        ("${P}", {"P": "${Q}"}, "${Q}"),
        ("$P", {"P": "x"}, "$P"),
    ],
)
def test_variables_are_replaced(
    load: Load, value: str, environ: dict[str, str], expected: str
) -> None:
    assert load(f"state:\n  path: {value}\n", environ).state.path == expected


def test_a_variable_may_hold_a_number_or_a_switch(load: Load) -> None:
    text = "server: {port: '${P:-9000}'}\ncache: {enabled: '${E:-false}'}\n"
    assert load(text).server.port == 9000
    assert load(text, {"P": "1", "E": "true"}).server.port == 1
    assert load(text).cache.enabled is False


def test_a_variable_that_is_not_set_is_an_error_with_its_line(load: Load) -> None:
    said = refusal(load, "server:\n  port: 1\nstate:\n  path: ${NOT_THERE}\n")
    assert "config.yaml:4" in said
    assert "NOT_THERE" in said


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("serverr: {}", 1, ("serverr", "'server'")),
        ("server:\n  host: localhost\n  prot: 1\n", 3, ("prot", "server", "'port'")),
        ("routing:\n  default_weights:\n    latncy: 1\n", 3, ("latncy", "'latency'")),
        ("limits:\n  attempt: 1\n", 2, ("attempt", "'attempts'")),
        ("cache: {ttl: 1}", 1, ("ttl",)),
        ("upstreams:\n  lab:\n    base_url: http://x/v1\n    api_keyy: x\n", 4, ("'api_key'",)),
        (
            "upstreams:\n  lab:\n    base_url: http://x\n    models:\n      - contxt_length: 5\n",
            5,
            ("contxt_length", "'context_length'"),
        ),
        # The same word stands, rightly, further up.
        (
            "redis:\n  url: redis://h/0\nupstreams:\n  lab:\n    url: http://x/v1\n",
            5,
            ("'base_url'",),
        ),
        ("server:\n  host: localhost\nlimits:\n  host: x\n", 4, ("host", "limits")),
        ("? [1, 2]\n: 3\n", 1, ("unknown key",)),
    ],
)
def test_an_unknown_key_is_told_with_its_line_and_the_nearest_name(
    load: Load, text: str, line: int, words: tuple[str, ...]
) -> None:
    said = refusal(load, text)
    assert f"config.yaml:{line}:" in said
    assert "unknown key" in said
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("server:\n  port: many\n", 2, ("server.port", "int")),
        ("server:\n  port: 70000\n", 2, ("server.port", "65535")),
        ("server:\n  api_keys: one\n", 2, ("server.api_keys",)),
        ("server:\n  api_keys: [1]\n", 2, ("server.api_keys",)),
        ("server: 5\n", 1, ("server",)),
        ("server: []\n", 1, ("server",)),
        (
            "routing:\n  priority: fast\n",
            2,
            ("routing.priority", "speed, cost, quality or balanced"),
        ),
        ("routing:\n  quality: good\n", 2, ("routing.quality", "prompt or static")),
        ("routing:\n  fallback_models: a/b\n", 2, ("fallback_models",)),
        ("routing:\n  default_weights: {latency: -1}\n", 2, ("latency",)),
        ("routing:\n  default_weights: {latency: 0, cost: 0, quality: 0}\n", 2, ("above 0",)),
        ("routing:\n  default_weights: {latency: .nan}\n", 2, ("latency",)),
        ("routing:\n  default_weights: {latency: .inf}\n", 2, ("weights",)),
        ("limits:\n  attempts: 0\n", 2, ("limits.attempts", "1")),
        ("limits:\n  attempts: true\n", 2, ("limits.attempts",)),
        ("limits:\n  idle_s: 0\n", 2, ("limits.idle_s",)),
        ("limits:\n  idle_s: .nan\n", 2, ("limits.idle_s",)),
        ("cache:\n  enabled: 'maybe'\n", 2, ("cache.enabled",)),
        ("cache:\n  default: sometimes\n", 2, ("auto, always, deterministic or never",)),
        ("redis:\n  ttl_seconds: 0\n", 2, ("redis.ttl_seconds",)),
        ("upstreams:\n  lab: {}\n", 2, ("upstreams.lab", "base_url")),
        ("upstreams:\n  lab: {base_url: 'ftp://x'}\n", 2, ("https://host/v1",)),
        ("upstreams:\n  lab: {base_url: host}\n", 2, ("https://host/v1",)),
        ("upstreams:\n  lab: {base_url: 'http://[::1'}\n", 2, ("base_url",)),
        ("upstreams:\n  lab: {base_url: 'http://host:port/v1'}\n", 2, ("base_url",)),
        ("upstreams:\n  lab: {base_url: 'http://host:99999/v1'}\n", 2, ("base_url",)),
        ("upstreams:\n  lab: {base_url: 'http://me:pw@x/v1'}\n", 2, ("api_key",)),
        ("upstreams:\n  lab: {base_url: 'http://x/v1?key=k'}\n", 2, ("api_key",)),
        ("upstreams:\n  a/b: {base_url: 'http://x/v1'}\n", 2, ("slash",)),
        ("upstreams:\n  a: {base_url: 'http://x/v1'}\n  b:\n    base_url: 5\n", 4, ("base_url",)),
        ("a: 1\na: 2\n", 2, ("twice",)),
        ("server: {port: 1, port: 2}\n", 1, ("port", "twice")),
        ("server:\n\tport: 1\n", 2, ("not valid YAML",)),
        ("server: {port: 1\n", 2, ("not valid YAML",)),
        ("---\nserver: {}\n---\nserver: {}\n", 3, ("not valid YAML",)),
        ("- server\n", 1, ("sections",)),
        ("server\n", 1, ("sections",)),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(
    load: Load, text: str, line: int, words: tuple[str, ...]
) -> None:
    said = refusal(load, text)
    assert f"config.yaml:{line}:" in said
    assert all(word in said for word in words)


ROW = "upstreams: {lab: {base_url: 'http://x/v1', models: [{id: a}, %s]}}"


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("{id: a}", "twice"),
        ("{id: ''}", "id"),
        ("{context_length: 5}", "id"),
        ("{id: b, context_length: 0}", "context_length"),
        ("{id: b, context_length: 5.5}", "context_length"),
        ("{id: b, quality_score: 1.1}", "quality_score"),
        ("{id: b, quality_score: 80}", "quality_score"),
        ("{id: b, prompt_cost_per_1k: -1}", "prompt_cost_per_1k"),
        ("{id: b, avg_latency_ms: 0}", "avg_latency_ms"),
        ("{id: b, supports: [tool]}", "tools, vision"),
        ("{id: b, supports: tools}", "supports"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused(load: Load, row: str, word: str) -> None:
    assert word in refusal(load, ROW % row)


@pytest.mark.parametrize(
    "text",
    [
        "server: !!python/object/apply:os.system ['true']",
        "server: {host: !!python/name:os.system x}",
        "server: {host: !custom x}",
        "server: &a [*a]",
        "server: &a {b: *a}",
        "server: " + "[" * 300 + "]" * 300,
        "server: " + "[" * 5000 + "]" * 5000,
        "{a: " * 300 + "1" + "}" * 300,
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12)),
        "a0: &a0 {k: x}\n"
        + "".join(f"a{i}: &a{i} {{a: *a{i - 1}, b: *a{i - 1}}}\n" for i in range(1, 40)),
    ],
    ids=[
        "object",
        "name",
        "tag",
        "loop",
        "loop-of-keys",
        "deep",
        "deeper",
        "deep-keys",
        "bomb",
        "keys",
    ],
)
def test_yaml_that_does_harm_is_refused(load: Load, text: str) -> None:
    assert "config.yaml" in refusal(load, text)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"LLMR_SERVR__PORT": "1"}, ("LLMR_SERVR__PORT", "'server'")),
        ({"LLMR_PORT": "1"}, ("LLMR_PORT", "LLMR_SECTION__KEY")),
        ({"LLMR_": "1"}, ("LLMR_",)),
        ({"LLMR_SERVER__PROT": "1"}, ("prot", "'port'")),
        ({"LLMR_SERVER": "1"}, ("server",)),
        ({"LLMR_SERVER__PORT": "many"}, ("port",)),
        ({"LLMR_SERVER__API_KEYS": "[a"}, ("LLMR_SERVER__API_KEYS",)),
        ({"LLMR_SERVER__API_KEYS": "[" * 3000}, ("LLMR_SERVER__API_KEYS",)),
        ({"LLMR_SERVER__API_KEYS": "[!!python/name:os.system x]"}, ("LLMR_SERVER__API_KEYS",)),
        ({"LLMR_ROUTING__PRIORITY": "fast"}, ("speed, cost, quality or balanced",)),
        ({"LLMR_SERVER__HOST": "0.0.0.0"}, ("api_keys",)),
    ],
)
def test_an_environment_variable_that_cannot_be_used_is_told(
    load: Load, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    said = refusal(load, None, environ)
    assert all(word in said for word in words)


def test_a_bad_value_of_the_environment_is_not_blamed_on_a_line_of_the_file(load: Load) -> None:
    said = refusal(load, "server:\n  port: 1\n", {"LLMR_SERVER__PORT": "many"})
    assert "config.yaml:2" not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_a_bind_others_can_reach_needs_a_key(load: Load, host: str) -> None:
    assert "server.api_keys" in refusal(load, f"server:\n  host: '{host}'\n")
    assert "empty key" in refusal(load, f"server:\n  host: '{host}'\n  api_keys: [' ']\n")
    assert load(f"server:\n  host: '{host}'\n  api_keys: [k]\n").server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_loopback_bind_needs_none(load: Load, host: str) -> None:
    assert load(f"server: {{host: '{host}'}}").server.api_keys == ()


# --- upstreams ---


def test_openrouter_exists_unless_it_is_taken_out(load: Load) -> None:
    environ = {"OPENROUTER_API_KEY": "k"}
    default = UpstreamConfig(config.OPENROUTER_URL, "k")
    lab = UpstreamConfig("http://x/v1", None)
    assert load("upstreams: {lab: {base_url: 'http://x/v1'}}", environ).upstreams == {
        "openrouter": default,
        "lab": lab,
    }
    assert load("upstreams: {openrouter: {}}", environ).upstreams == {"openrouter": default}
    text = "upstreams: {openrouter: null, lab: {base_url: 'http://x/v1'}}"
    assert load(text, environ).upstreams == {"lab": lab}
    own = load("upstreams: {openrouter: {api_key: own}}", environ).upstreams["openrouter"]
    assert own == UpstreamConfig(config.OPENROUTER_URL, "own")


def test_no_key_at_all_and_a_missing_key_are_two_things(load: Load) -> None:
    url = "base_url: 'http://x/v1'"
    found = load(f"upstreams: {{none: {{{url}}}, empty: {{{url}, api_key: '${{K:-}}'}}}}").upstreams
    assert found["none"] == UpstreamConfig("http://x/v1", None)
    assert found["empty"] == UpstreamConfig("http://x/v1", "")


def test_own_rows_as_in_the_contract(load: Load) -> None:
    text = """
upstreams:
  lab:
    base_url: http://127.0.0.1:9001/v1
    api_key: ${LAB_KEY:-}
    models:
      - id: lab-large
        context_length: 128000
        prompt_cost_per_1k: 0.001
        completion_cost_per_1k: 0.002
        avg_latency_ms: 500
        quality_score: 0.8
        supports: [tools, vision, json_schema, reasoning, prefill]
"""
    row = ModelRow(
        id="lab-large",
        context_length=128000,
        prompt_cost_per_1k=0.001,
        completion_cost_per_1k=0.002,
        avg_latency_ms=500,
        quality_score=0.8,
        supports=("tools", "vision", "json_schema", "reasoning", "prefill"),
    )
    found = load(text, {"LAB_KEY": "k"}).upstreams["lab"]
    assert found == UpstreamConfig("http://127.0.0.1:9001/v1", "k", (row,))


@pytest.mark.parametrize(
    ("redis", "address"),
    [
        ("{}", None),
        ("{url: 'redis://h:1/2'}", "redis://h:1/2"),
        ("{host: h}", "redis://h:6379/0"),
        ("{host: h, port: 1, db: 2, password: 'p@ss/w:rd'}", "redis://:p%40ss%2Fw%3Ard@h:1/2"),
    ],
)
def test_the_address_of_redis(load: Load, redis: str, address: str | None) -> None:
    assert load(f"redis: {redis}").redis.address == address


# --- what is shown ---


@pytest.mark.parametrize(
    "redis",
    [
        "{url: 'redis://:hidden@h:1/0'}",
        "{url: 'rediss://me:hidden@h:1/0'}",
        "{url: 'redis://:hid/hidden@h:1/0'}",
        "{url: 'redis://:a@hidden@h:1/0'}",
        "{url: 'redis://h:1/0?password=hidden'}",
        "{host: h, password: hidden}",
    ],
)
def test_secrets_are_hidden_in_what_is_shown(load: Load, redis: str) -> None:
    text = f"""
server: {{api_keys: [hidden-one, hidden-two]}}
upstreams: {{lab: {{base_url: 'http://x/v1', api_key: hidden}}}}
redis: {redis}
"""
    told = config.shown(load(text, {"OPENROUTER_API_KEY": "hidden"}))
    assert "hidden" not in json.dumps(told)
    assert told["server"]["api_keys"] == ["***", "***"]
    lab = told["upstreams"]["lab"]
    assert (lab["base_url"], lab["api_key"]) == ("http://x/v1", "***")


def test_what_is_shown_tells_a_missing_key_from_a_hidden_one(load: Load) -> None:
    assert config.shown(load())["upstreams"]["openrouter"]["api_key"] == ""
