"""Privacy and region hold on every attempt: whom a request goes to, whatever fails on the way.

`REQUESTS` in the environment sets how many are made (4,000 unless told).
"""

import asyncio
import os
import random
from typing import Any

import pytest

from llmr.cache.key import cache_key
from llmr.calls import call_for
from llmr.core import capability
from llmr.core.body import Body
from llmr.core.decide import Policy, decide
from llmr.core.learner import Learner
from llmr.core.look import Now
from llmr.core.request import parse
from llmr.errors import ApiError
from llmr.execution.executor import Executor
from llmr.execution.types import Limits
from llmr.sandbox.process import SandboxProcess
from tests.builders import NOW, decided, model, names, raw, request, snapshot
from tests.harness import Server, upstream
from tests.test_schedules import Sink, answer, fault
from tests.virtual import Scripted, run

NAMES = ("a", "b", "c", "d")
PLACES = ("one", "two", "three", "four")
VOUCHED = ("no_training", "no_retention", "region_eu", "region_us")
EACH_CASE = 16  # requests


def asked(rng: random.Random) -> tuple[dict[str, Any], dict[str, str], int]:
    """(fields, headers, what may be relied on) of a request."""
    fields: dict[str, Any] = {"stream": rng.random() < 0.7}
    fields["messages"] = [{"role": "user", "content": "x"}]
    provider: dict[str, Any] = {}
    headers, needs = {}, 0
    if rng.random() < 0.4:
        provider["data_collection"] = "deny"
        needs |= capability.NO_TRAINING
    if rng.random() < 0.3:
        provider["zdr"] = True
        needs |= capability.NO_RETENTION
    if rng.random() < 0.3:
        region = rng.choice(("eu", "us"))
        headers["x-llmr-region"] = region
        needs |= capability.REGIONS[region]
    if provider or rng.random() < 0.2:
        fields["provider"] = provider
    how = rng.random()
    if how < 0.4:
        fields["models"] = rng.sample(NAMES, rng.randint(1, 4))
    elif how < 0.6:
        fields["model"] = rng.choice(NAMES)
    if rng.random() < 0.2:
        fields["preferred_models"] = rng.sample(NAMES, 2)
    if rng.random() < 0.2:
        fields["max_cost_usd"] = 0.05
    return fields, headers, needs


async def requests(rng: random.Random, vouched: dict[str, list[str]]) -> int:
    """Make some of them; how many were sent anywhere."""
    rows = snapshot(
        *(
            model(name, upstream=place, supports=[*vouched[place], *rng.sample(["prefill"], 1)])
            for name in NAMES
            for place in rng.sample(PLACES, rng.randint(1, 4))
        )
    )
    masks = {p: capability.mask_of(vouched[p], capability.NAMES) for p in PLACES}

    def script(_: int, body: Any) -> tuple[float, Any]:
        return fault(rng, body) if rng.random() < 0.6 else (rng.uniform(0, 0.5), answer(rng, body))

    places = {place: Scripted(place, dict.fromkeys(NAMES, script)) for place in PLACES}
    limits, loop = Limits(attempts=5, idle_s=5.0), asyncio.get_running_loop()
    executor = Executor(places, Learner(rng.random), limits, (), loop.time)
    policy = Policy(frozenset(PLACES), tuple(rng.sample(NAMES, 2)))
    sent = 0
    for _ in range(EACH_CASE):
        fields, headers, needs = asked(rng)
        body = Body(raw(**fields))
        known = executor.learner.publish(rows, loop.time())
        one = parse(body, headers, model_optional=True)
        try:
            decision = decide(one, rows, known, policy, Now(loop.time(), NOW.wall))
        except ApiError:
            continue  # nobody vouches for what it asks
        for place in places.values():
            place.sends.clear()
        call = call_for(body, decision, executor.deadline(60.0, None), keep=False)
        await executor.run(call, Sink() if one.stream else None)
        for name, place in places.items():
            sent += len(place.sends)
            assert not place.sends or not needs & ~masks[name], (name, fields, headers)
        await asyncio.sleep(rng.expovariate(0.1))
    return sent


def test_no_attempt_goes_where_nobody_vouches_for_it() -> None:
    sent = 0
    for seed in range(int(os.environ.get("REQUESTS", "4000")) // EACH_CASE):
        rng = random.Random(seed)
        vouched = {place: [word for word in VOUCHED if rng.random() < 0.6] for place in PLACES}
        try:
            sent += run(requests(rng, vouched))
        except BaseException:
            print(f"seed {seed}")
            raise
    print(f"\n{sent} sends")
    assert sent > 1000


# --- what is asked, and what is said of it ---


@pytest.mark.parametrize(
    ("fields", "headers", "needs"),
    [
        ({}, {}, 0),
        ({"provider": {}}, {}, 0),
        ({"provider": {"data_collection": "allow", "zdr": False}}, {}, 0),
        ({"provider": {"data_collection": "deny"}}, {}, capability.NO_TRAINING),
        ({"provider": {"zdr": True, "order": ["x"]}}, {}, capability.NO_RETENTION),
        ({}, {"x-llmr-region": "EU"}, capability.REGIONS["eu"]),
    ],
)
def test_what_may_be_relied_on(fields: dict[str, Any], headers: dict[str, str], needs: int) -> None:
    assert request(headers, **fields).needs & capability.BINDING == needs


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"provider": {"data_collection": "denied"}}, {}, "provider"),
        ({"provider": {"zdr": "yes"}}, {}, "provider"),
        ({"provider": "x"}, {}, "provider"),
        ({}, {"x-llmr-region": "mars"}, "x-llmr-region"),
    ],
)
def test_a_wish_for_privacy_that_cannot_be_read_is_refused(
    fields: dict[str, Any], headers: dict[str, str], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        request(headers, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_the_refusal_says_what_to_set() -> None:
    rows = [model("lab/one", supports=["no_training"])]
    private: dict[str, Any] = {"provider": {"data_collection": "deny", "zdr": True}}
    each: tuple[dict[str, Any], ...] = ({}, {"model": "lab/one"})
    for fields in each:
        with pytest.raises(ApiError, match="set no_retention: true for the upstream") as caught:
            decided(rows, **private, **fields)
        assert (caught.value.status, caught.value.code) == (400, "no_candidates")
    both = [*rows, model("lab/two", supports=["no_training", "no_retention"])]
    assert names(decided(both, **private)) == ["lab/two"]
    assert names(decided(both, **private, models=["lab/one", "lab/two"])) == ["lab/two"]


def test_an_answer_kept_for_one_region_is_not_that_of_another() -> None:
    body = Body(raw(temperature=0))
    keys = {
        cache_key(body, parse(body, headers, model_optional=True), b"scope")
        for headers in ({}, {"x-llmr-region": "eu"}, {"x-llmr-region": "us"})
    }
    assert len(keys) == 3


def test_an_upstream_is_what_its_owner_vouches_for(sandbox_process: SandboxProcess) -> None:
    url = sandbox_process.base_url
    own = {"base_url": url, "models": [{"id": "fb-ok"}, {"id": "lab/own"}]}
    lab = {"no_training": True, "region": "eu", **own}
    tree = upstream(url)
    tree["upstreams"] |= {"lab": lab, "other": own}
    with Server(tree) as server:
        rows = {
            (row["id"], row["upstream"]): row["supports"]
            for row in server.request("GET", "/models").json["models"]
        }
        assert {"no_training", "region_eu"} <= set(rows["lab/own", "lab"])
        assert not {"no_training", "region_eu"} & set(rows["lab/own", "other"])
        assert {"no_training", "no_retention"} <= set(rows["openai/gpt-5.4", "openrouter"])
        said: dict[str, Any] = {"model": "fb-ok", "headers": {"x-llmr-region": "eu"}}
        reply = server.chat("/route", **said)
        assert [a["upstream"] for a in reply.json["routing_decision"]["attempts"]] == ["lab"]
