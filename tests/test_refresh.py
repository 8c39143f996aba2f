"""The catalogue keeps itself current: what is believed, what is kept, what goes on meanwhile."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmr import bundle, shelf
from llmr.cli.app import app
from llmr.config import UpstreamConfig
from llmr.core import endpoints
from llmr.core.changes import changes
from llmr.core.credible import HELD_S, judge
from llmr.core.price import Override
from llmr.outbox import Outbox
from llmr.refresh import in_use
from llmr.source import Source
from llmr.wiring import origin
from tests.builders import model, prices
from tests.harness import Server, eventually

NAMES = [f"lab/m{number}" for number in range(40)]
ANSWER = {
    "id": "x",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


def row(name: str, prompt: str = "0.000001", completion: str = "0.000002", **more: Any) -> Any:
    pricing = {"prompt": prompt, "completion": completion}
    return {"id": name, "pricing": pricing, "context_length": 8000, **more}


def listing(*rows: Any) -> bytes:
    return json.dumps({"data": rows or [row(name) for name in NAMES]}).encode()


class Provider:
    """An upstream whose list of models can be changed, on a real socket."""

    def __init__(self) -> None:
        self.status, self.body, self.etag = 200, listing(), ""
        self.endpoints: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.removeprefix("/v1")
                provider.asked.append((path, self.headers.get("if-none-match")))
                if path == "/models":
                    unchanged = provider.etag and provider.asked[-1][1] == provider.etag
                    status = 304 if unchanged else provider.status
                    self._reply(status, b"" if unchanged else provider.body)
                else:
                    found = provider.endpoints.get(path)
                    self._reply(200 if found else 404, json.dumps(found).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self._reply(200, json.dumps(ANSWER).encode())

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                # What a 304 says of its length is that of the list, which it has not.
                self.send_header(
                    "content-length", str(len(provider.body if status == 304 else body))
                )
                if provider.etag:
                    self.send_header("etag", provider.etag)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    running = Provider()
    yield running
    running.close()


class Looking:
    """Sources of one upstream, one after another, as processes that come and go have them."""

    def __init__(self, url: str, folder: Path | None, name: str = "lab") -> None:
        self.config = UpstreamConfig(base_url=url, api_key="sk-test")
        self.folder, self.name = folder, name

    def source(self) -> Source:
        return Source(self.name, self.config, origin(self.name, self.config, Outbox()), self.folder)

    def look(
        self, source: Source | None = None, closer: list[str] | None = None, **how: Any
    ) -> Source:
        async def looked() -> Source:
            found = source or self.source()
            found.upstream = origin(self.name, self.config, Outbox())
            await found.look(**how)
            if closer is not None:
                await found.look_closer(closer)
            await found.upstream.close()
            return found

        return asyncio.run(looked())


@pytest.fixture
def lab(provider: Provider, tmp_path: Path) -> Looking:
    return Looking(provider.url, tmp_path)


def usd(source: Source, name: str, field: str = "prompt") -> Decimal | None:
    return source.snapshot.models[source.snapshot.by_id[name][0]].prices.base.get(field)


# --- R12: lists that cannot be right ---

BAD = {
    "html": (200, b"<!doctype html><title>Maintenance</title>", "it is not JSON"),
    "empty": (200, b'{"data": []}', "it lists no model"),
    "cut": (200, listing()[:-40], "it is not JSON"),
    "half": (200, listing(*(row(name) for name in NAMES[:19])), "lists 19 models where 40 were"),
    "mad": (
        200,
        listing(*(row(name, prompt="0.5") for name in NAMES)),
        "40 prices moved more than 100 times, that of lab/m0 from 0.000001 to 0.5 USD",
    ),
    "error": (503, b"{}", "GET /models answered 503"),
    "moved": (302, b"", "GET /models answered 302"),
}


@pytest.mark.parametrize("kind", BAD)
def test_r12_a_bad_list_leaves_the_good_one_in_force_and_says_why(
    kind: str, provider: Provider, lab: Looking
) -> None:
    source = lab.look()
    good, file = source.snapshot, (lab.folder or Path()) / "catalogue-lab.json"
    before = file.read_bytes()
    provider.status, provider.body, said = BAD[kind]
    lab.look(source)
    assert source.snapshot is good
    assert file.read_bytes() == before
    status = source.status()
    assert said in status["error"]
    assert status["catalogue"] == "live"
    assert 0 <= status["age_s"] < 60
    provider.status, provider.body = 200, listing(*(row(name, "0.000003") for name in NAMES))
    lab.look(source)
    assert source.status()["error"] is None
    assert usd(source, "lab/m3") == Decimal("0.000003")


def test_r12_a_running_router_shows_it(provider: Provider, tmp_path: Path) -> None:
    tree = {
        "upstreams": {"openrouter": None, "lab": {"base_url": provider.url}},
        "state": {"path": str(tmp_path / "state.sqlite")},
    }
    with Server(tree) as server:
        refresh = server.gateway._refresh
        eventually(lambda: len(server.gateway.snapshot.models) == len(NAMES), "the first list")
        assert server.chat(model="lab/m1").status == 200
        provider.status, provider.body, said = BAD["html"]
        asyncio.run_coroutine_threadsafe(refresh.once(), loop_of(server)).result(10)
        assert server.chat(model="lab/m1").status == 200
        health = server.request("GET", "/health").json
        assert health["status"] == "degraded"
        shown = health["upstreams"]["lab"]
        assert said in shown["error"]
        listed = server.request("GET", "/models").json
        assert len(listed["models"]) == len(NAMES)
        assert {key: listed["catalogue"]["lab"][key] for key in ("catalogue", "error")} == {
            "catalogue": "live",
            "error": shown["error"],
        }
        assert listed["catalogue"]["lab"]["age_s"] < 60


def loop_of(server: Server) -> asyncio.AbstractEventLoop:
    return next(iter(server.gateway._tasks)).get_loop()


# --- R13: prices ---


@pytest.mark.parametrize(
    ("before", "after", "believed"),
    [
        ("0.000001", "0.00005", True),
        ("0.000001", "0.0001", False),
        ("0.000001", "0.001", False),
        ("0.000001", "0.00000001", False),
        ("0.000001", "0", False),
        ("0", "0.001", True),
        ("0.000001", "-1", True),
        ("0.000001", "abc", True),
        ("0.000001", "nan", True),
    ],
)
@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_r13_a_price_that_jumps_is_held_back_and_shown(
    before: str, after: str, believed: bool, field: str
) -> None:
    known = {"lab/one": {"prompt": "0.000001", "completion": "0.000001", field: before}}
    fresh = row("lab/one", **{"prompt": "0.000001", "completion": "0.000001", field: after})
    judged = judge(listing(fresh), known, {}, 1000.0)
    assert judged.problem is None
    assert [jump.field for jump in judged.refused] == ([] if believed else [field])
    assert judged.rows["lab/one"]["pricing"][field] == (after if believed else before)


def test_r13_a_free_variant_may_become_free_and_an_odd_price_that_stays_is_believed() -> None:
    free = {"lab/one:free": {"prompt": "1", "completion": "1"}}
    assert judge(listing(row("lab/one:free", "0", "0")), free, {}, 0.0).refused == ()
    known = {"lab/one": {"prompt": "1", "completion": "1"}}
    body = listing(row("lab/one", "1", "0.001"))
    first = judge(body, known, {}, 1000.0)
    assert first.held == {"lab/one": 1000.0}
    assert judge(body, known, first.held, 999.0 + HELD_S).held == first.held
    later = judge(body, known, first.held, 1000.0 + HELD_S)
    assert (later.refused, later.held) == ((), {})
    assert later.rows["lab/one"]["pricing"]["completion"] == "0.001"


def test_r13_the_old_price_counts_until_someone_accepts_the_new_one(
    provider: Provider, lab: Looking
) -> None:
    source = lab.look()
    provider.etag = '"two"'
    provider.body = listing(row("lab/m0", "0.01"), *(row(name, "0.000004") for name in NAMES[1:]))
    lab.look(source)
    assert usd(source, "lab/m0") == Decimal("0.000001")
    assert usd(source, "lab/m1") == Decimal("0.000004")
    assert source.status()["refused"] == ["lab/m0 prompt: 0.000001 to 0.01 USD"]
    held = shelf.read(source.path or Path(), provider.url)
    assert held is not None
    assert list(held.held) == ["lab/m0"]
    again = lab.look()  # another process, later
    assert usd(again, "lab/m0") == Decimal("0.000001")
    assert provider.asked[-1][1] is None, "a list with odd prices is asked for whole"
    lab.look(accept=True)  # `llmr catalogue refresh --accept`
    lab.look(source)  # the running router sees what was accepted
    assert usd(source, "lab/m0") == Decimal("0.01")
    assert source.status()["refused"] == []


# --- R14: names ---


def test_r14_names_are_told_apart_to_the_letter() -> None:
    known = {"lab/One": {"prompt": "1", "completion": "1"}}
    for other in ("lab/one", "lab/One:free", "lab/One-2", "Lab/One"):
        judged = judge(listing(row(other, "0.0001", "0"), row("lab/x")), known, {}, 0.0)
        assert judged.rows[other]["pricing"]["prompt"] == "0.0001"
        assert judged.refused == ()


def test_what_changed_is_told_by_id() -> None:
    peak = Override({"prompt": Decimal(1)}, utc_start=900, utc_end=1700)
    before = [
        model("a"),
        model("b"),
        model("c", price=("0.001", "0.002"), context=1000),
        model("D"),
    ]
    after = [
        model("b"),
        model("c", price=("0.001", "0.003"), context=2000),
        model("d", price=prices(1, 1)),
        model("e", price=prices("0.001", "0.002", peak)),
    ]
    found = changes(before, after)
    assert (found.added, found.removed) == (("d", "e"), ("D", "a"))
    assert [(one.model, one.field) for one in found.repriced] == [("c", "completion")]
    assert found.altered == (("c", "context_length"),)
    assert changes([model("e")], [after[-1]]).altered == (("e", "conditional prices"),)
    assert not changes(before, before)


# --- what is kept, and conditional requests ---


def test_the_last_good_list_survives_a_restart(provider: Provider, lab: Looking) -> None:
    provider.body = listing(row("lab/only", "0.000007"))
    lab.look()
    fresh = lab.source()
    assert (fresh.origin, usd(fresh, "lab/only")) == ("kept", Decimal("0.000007"))
    assert Looking("http://127.0.0.1:9/v1", lab.folder).source().origin == "none"


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b'{"version": 1}', b"\xff" * 99])
def test_a_damaged_file_is_as_good_as_none(damage: bytes, provider: Provider, lab: Looking) -> None:
    file = lab.look().path
    assert file is not None
    file.write_bytes(damage)
    fresh = lab.source()
    assert fresh.origin == "none"
    lab.look(fresh)
    assert fresh.status()["error"] is None
    assert lab.source().origin == "kept"


def test_a_folder_that_cannot_be_written_holds_up_nothing(
    provider: Provider, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    source = Looking(provider.url, tmp_path / "file" / "folder").look()
    assert (source.origin, source.error) == ("live", None)


def test_a_list_that_has_not_changed_is_not_sent_again(provider: Provider, lab: Looking) -> None:
    provider.etag = '"one"'
    source = lab.look()
    good = source.snapshot
    lab.look(source)
    assert [asked[1] for asked in provider.asked] == [None, '"one"']
    assert source.snapshot is good
    assert source.status()["error"] is None
    fresh = lab.look()  # after a restart
    assert (provider.asked[-1][1], fresh.origin) == ('"one"', "live")
    provider.etag, provider.body = '"two"', listing(row("lab/new"), *map(row, NAMES))
    lab.look(fresh)
    assert "lab/new" in fresh.snapshot.by_id


def test_an_older_list_of_openrouter_gives_way_to_the_one_that_ships(
    provider: Provider, tmp_path: Path
) -> None:
    kept = shelf.Kept(1, provider.url, "2020-01-01T00:00:00Z", [row("old/one")])
    shelf.write(tmp_path / "catalogue-openrouter.json", kept)
    looking = Looking(provider.url, tmp_path, "openrouter")
    assert looking.source().origin == "bundled"
    kept.captured = "2999-01-01T00:00:00Z"
    shelf.write(tmp_path / "catalogue-openrouter.json", kept)
    assert looking.source().origin == "kept"
    assert len(bundle.pricing()) == len(bundle.catalogue().models)


# --- the providers behind a model ---


def endpoint(**more: Any) -> dict[str, Any]:
    """One that serves well; latency in milliseconds, as recorded on 2026-08-30 for glm-5.3."""
    return {
        "status": 0,
        "uptime_last_30m": 99.3,
        "context_length": 262_144,
        "max_completion_tokens": 32_000,
        "pricing": {"prompt": "0.000001", "completion": "0.000003", "discount": 0},
        "latency_last_30m": {"p50": 2229.5, "p75": 4813.5, "p90": 10117.7, "p99": 26895.49},
        "throughput_last_30m": {"p50": 25, "p75": 40, "p90": 54, "p99": 78},
        **more,
    }


def parsed(*found: Any) -> endpoints.Endpoints:
    result = endpoints.parse({"data": {"endpoints": list(found)}})
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("latency", "seconds"),
    [
        *(({"p50": 2229.5}, 2.2295), ({"p50": 1.4}, 1.4), (900, 0.9), (0.7, 0.7)),
        *((None, None), ({"p50": None}, None), ("fast", None), ([], None)),
        *(({"p50": -5}, None), ({"p50": 1e12}, None)),
    ],
)
def test_first_tokens_are_read_in_milliseconds_and_in_seconds(
    latency: Any, seconds: float | None
) -> None:
    found = parsed(endpoint(latency_last_30m=latency))
    assert found.ttft_s == (None if seconds is None else pytest.approx(seconds))


def test_providers_count_by_what_they_are_likely_to_get() -> None:
    dear = endpoint(
        pricing={"prompt": "0.00001", "completion": "0.00003"},
        latency_last_30m={"p50": 100},
        context_length=8000,
    )
    found = parsed(endpoint(), dear)
    assert found.ttft_s == pytest.approx(2.2295 - 2.1295 / 101, rel=1e-3)
    assert (found.providers, found.well, found.context_length) == (2, 2, 8000)
    assert found.tpot_s == pytest.approx(0.04)


@pytest.mark.parametrize(
    "down", [endpoint(status=-5), endpoint(uptime_last_30m=12.0), endpoint(service_tier="flex")]
)
def test_providers_that_are_down_do_not_count(down: Any) -> None:
    down["latency_last_30m"] = {"p50": 100.0}
    found = parsed(endpoint(status=-2), down)
    assert found.well == 1
    assert found.ttft_s == pytest.approx(2.2295)
    alone = parsed(down)
    assert (alone.well, alone.ttft_s, alone.context_length) == (0, None, None)


@pytest.mark.parametrize("odd", [None, [], {}, {"data": None}, {"data": {"endpoints": {}}}, "x"])
def test_what_is_no_reply_about_endpoints_is_none(odd: Any) -> None:
    assert endpoints.parse(odd) is None
    assert parsed("x", 5, None, {}).ttft_s is None


def test_models_in_use_are_looked_at_more_closely(provider: Provider, lab: Looking) -> None:
    provider.endpoints["/models/lab/m1/endpoints"] = {"data": {"endpoints": [endpoint()]}}
    source = lab.look(closer=["lab/m1", "lab/gone"])
    first, other = (source.snapshot.models[source.snapshot.by_id[n][0]] for n in NAMES[1:3])
    assert first.ttft_s.source == "live"
    assert first.ttft_s.value == pytest.approx(2.2295)
    assert first.tpot_s.value == pytest.approx(0.04)
    assert first.max_output == 32_000
    assert first.context_length == 8000
    assert first.uptime == pytest.approx(0.993)
    assert other.ttft_s.source != "live"
    version = source.snapshot.version
    lab.look(source)
    assert source.snapshot.version == version, "a new list keeps what was seen closely"


def test_the_models_in_use_are_those_with_most_new_answers() -> None:
    now = {"lab/a": 5, "lab/b": 9, "lab/c": 3, "other/d": 99}
    assert in_use("lab", {"lab/b": 8, "lab/c": 3}, now) == ["a", "b"]


# --- swaps, and the command line ---


def test_a_hundred_swaps_under_load_lose_no_request(provider: Provider, tmp_path: Path) -> None:
    tree = {
        "upstreams": {"openrouter": None, "lab": {"base_url": provider.url}},
        "state": {"path": str(tmp_path / "state.sqlite")},
        "cache": {"default": "never"},
    }
    with Server(tree) as server:
        eventually(lambda: len(server.gateway.snapshot.models) == len(NAMES), "the first list")
        loop, over = loop_of(server), threading.Event()

        def load(number: int) -> list[int]:
            found = []
            while not over.is_set():
                wanted = ("auto", "auto:cost", "lab/m39")[number % 3]
                found.append(server.chat(model=wanted).status)
            return found

        with ThreadPoolExecutor(6) as pool:
            loads = [pool.submit(load, number) for number in range(6)]
            versions = set()
            for number in range(100):
                some = NAMES[number % 10 :]
                provider.body = listing(*(row(name, f"0.00000{1 + number % 9}") for name in some))
                once = server.gateway._refresh.once()
                asyncio.run_coroutine_threadsafe(once, loop).result(10)
                versions.add(server.gateway.snapshot.version)
            over.set()
            statuses = [status for one in loads for status in one.result(30)]
    assert len(versions) >= 90
    assert len(statuses) > 100
    assert set(statuses) == {200}


@pytest.fixture
def settings(provider: Provider, tmp_path: Path) -> list[str]:
    """The options of a command line whose only upstream is the provider."""
    file = tmp_path / "config.yaml"
    tree = {
        "upstreams": {"openrouter": None, "lab": {"base_url": provider.url}},
        "state": {"path": str(tmp_path / "state.sqlite")},
    }
    file.write_text(json.dumps(tree))
    return ["--config", str(file)]


def test_the_catalogue_verbs(provider: Provider, settings: list[str]) -> None:
    def said(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["catalogue", *words, *settings])
        assert result.exit_code == code, result.output
        return result.output

    assert "none" in said("show")
    assert "new  lab/m0" in " ".join(said("diff").split(" "))
    assert json.loads(said("show", "--json"))["lab"]["catalogue"] == "none"
    said("refresh")
    kept = json.loads(said("show", "--json"))["lab"]
    assert (kept["catalogue"], kept["models"]) == ("kept", len(NAMES))
    provider.body = listing(row("lab/m0", "0.1"), *(row(n, "0.000002") for n in NAMES[1:]))
    told = said("diff")
    assert "lab/m1 prompt: $1/M to $2/M" in told
    assert "not believed yet: lab/m0 prompt: 0.000001 to 0.1 USD" in told
    assert json.loads(said("show", "--json"))["lab"]["refused"] == []
    changed = json.loads(said("refresh", "--accept", "--json"))["lab"]["changes"]
    assert changed["repriced"][0] == {
        "model": "lab/m0",
        "field": "prompt",
        "before": "0.000001",
        "after": "0.1",
    }
    provider.status, provider.body, why = BAD["html"]
    assert why in said("refresh", code=4)
    assert json.loads(said("show", "--json"))["lab"]["models"] == len(NAMES)
