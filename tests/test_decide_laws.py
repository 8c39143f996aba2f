"""The laws of a decision, over random catalogues and random requests."""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmr.core.board import Board
from llmr.core.capability import NAMES
from llmr.core.catalogue import BATCH, FAULT, Model, Snapshot
from llmr.core.decide import Decision, decide
from llmr.core.explain import explain
from llmr.core.figures import roomy
from llmr.core.look import MAY_NOT_FIT, SURELY_NOT, Look, Now
from llmr.core.price import UNKNOWN, Override, Prices
from llmr.core.ranking import RANKED, all_losses, rank
from llmr.core.request import Request
from llmr.core.scoring import Terms
from llmr.core.sourced import Figure
from llmr.core.telemetry import Telemetry
from llmr.errors import ApiError
from tests.builders import NOW, POLICY, model, request, snapshot, telemetry

ABILITIES = ("tools", "vision", "json_schema", "reasoning")
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def priced(prompt: int, completion: int, *overrides: Override) -> Prices:
    """Prices in hundred-millionths of a USD per token."""
    base = {"prompt": Decimal(prompt) / 10**8, "completion": Decimal(completion) / 10**8}
    return Prices(base, overrides)


def some_prices(code: bytes) -> Prices:
    """From 0.10 to 180 USD per million tokens: above the cost floor, also a tenth of it."""
    now, later = [
        (round(10 * 1.03**first), round(10 * 1.03**second))
        for first, second in (code[0:2], code[2:4])
    ]
    least = (None, None, 100, 4000, 100_000)[code[4] % 5]
    hours = ((None, None), (900, 1700), (2200, 600))[code[5] % 3]
    if least is None and hours[0] is None:
        return priced(*now)
    return priced(*now, Override(priced(*later).base, least, *hours))


def any_prices(code: bytes) -> Prices:
    """As above, or unknown, or so low that a request costs less than the floor."""
    if code[6] > 230:
        return UNKNOWN
    return priced(code[0] % 4, code[1] % 4) if code[6] > 200 else some_prices(code)


ROW_BYTES = 20


def row(name: str, code: bytes, prices: Callable[[bytes], Prices]) -> Model:
    """A row whose every figure one of the bytes chooses."""
    rare = ("keyless", "expires", BATCH, FAULT)[code[8] % 4] if code[7] > 200 else ""
    return model(
        name,
        upstream="keyless" if rare == "keyless" else "lab",
        ttft=(1 + code[9] + 256 * (code[10] % 2)) / 20,
        tpot=(1 + code[11] % 100) / 1000,
        price=prices(code),
        quality=Figure((code[12] % 101) / 100, ("estimated", "published")[code[13] % 2], 0.12),
        supports=[ability for i, ability in enumerate(ABILITIES) if code[14] % 32 & 1 << i]
        if code[14] > 64
        else ABILITIES,
        context=(1_000_000, None, 1500, 8000, 128_000)[code[15] % 5],
        max_output=(None, None, 300, 4096)[code[16] % 4],
        reasoning_mandatory=code[17] % 4 == 3,
        reasoning_default=code[17] % 4 == 1,
        default_effort=(None, "low", "xhigh")[code[18] % 3],
        thinks_aloud=code[19] % 2 == 0,
        expires="2026-08-18" if rare == "expires" else None,
        barred=rare if rare in (BATCH, FAULT) else None,
    )


def catalogues(
    prices: Callable[[bytes], Prices] = any_prices, least: int = 1
) -> st.SearchStrategy[list[Model]]:
    """Up to 60 rows, some of which `auto` must not pick."""

    def of(data: bytes) -> list[Model]:
        starts = range(0, len(data), ROW_BYTES)
        return [row(name_of(at), data[at : at + ROW_BYTES], prices) for at in starts]

    def coded(count: int) -> st.SearchStrategy[bytes]:
        return st.binary(min_size=count * ROW_BYTES, max_size=count * ROW_BYTES)

    counts = [count for count in (8, 3, 1, 2, 5, 13, 21, 34, 60) if count >= least]
    return st.sampled_from(counts).flatmap(coded).map(of)


def name_of(position: int) -> str:
    """Ids in an order that is not that of the rows."""
    return f"lab/{position * 37 % 1201:04d}"


WEIGHTS = st.fixed_dictionaries({key: st.integers(1, 50) for key in ("latency", "cost", "quality")})
SIZES = st.one_of(
    st.sampled_from((100, 4600, 5500, 24_000, 450_000, 3_500_000)), st.integers(0, 9000)
)


def bodies(*, limited: bool = True, sized: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Random fields of a chat request for `auto`."""
    optional: dict[str, st.SearchStrategy[Any]] = {
        "stream": st.booleans(),
        "reasoning_effort": st.sampled_from(("none", "low", "high")),
        "tools": st.just([TOOL]),
        "response_format": st.just({"type": "json_schema", "json_schema": {"schema": {}}}),
    }
    if sized:
        optional["max_tokens"] = st.integers(1, 5000)
    if limited:
        optional["max_latency_ms"] = st.integers(500, 30_000)
        optional["max_cost_per_1k"] = st.integers(1, 100).map(lambda n: n / 1000)
        optional["max_cost_usd"] = st.integers(1, 100).map(lambda n: n / 1000)
    fields = st.fixed_dictionaries({"weights": WEIGHTS}, optional=optional)
    return st.builds(
        lambda fields, size, picture: {
            **fields,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "x" * size}, *([PICTURE] * picture)],
                }
            ],
        },
        fields,
        SIZES,
        st.sampled_from((False, False, False, True)),
    )


def order(rows: Sequence[Model], asked: Request, now: Now = NOW) -> list[str]:
    """The ids of the ranked rows, best first."""
    of = snapshot(*rows)
    return [
        of.models[i].id for i in rank(Look(asked, of, telemetry(of), POLICY, now), Board()).order
    ]


def look_at(of: Snapshot, asked: Request, now: Now = NOW) -> Look:
    """The request's look at the rows, at the spread the ranking was made with."""
    look = Look(asked, of, telemetry(of), POLICY, now)
    look.spread = MAY_NOT_FIT
    if not any(look.why_not(i) is None for i in of.routable):
        look.spread = SURELY_NOT
    return look


def passing(rows: Sequence[Model], asked: Request) -> dict[str, Terms]:
    """The terms of every row that passes the filters, by a plain walk."""
    of = snapshot(*rows)
    look = look_at(of, asked)
    return {of.models[i].id: look.terms(i) for i in of.routable if look.why_not(i) is None}


def tried(rows: Sequence[Model], asked: Request, **more: Any) -> Decision:
    """The decision; an example in which nothing passes is not looked at."""
    of = snapshot(*rows)
    try:
        return decide(asked, of, telemetry(of), replace(POLICY, **more), NOW)
    except ApiError:
        assume(False)
        raise


def outcome(asked: Request, of: Snapshot, known: Telemetry, now: Now) -> object:
    """What will be tried, or why nothing can be."""
    try:
        return decide(asked, of, known, POLICY, now).chain
    except ApiError as error:
        return error.message


@given(catalogues(least=2), bodies(), st.data())
def test_adding_or_removing_a_model_never_changes_the_order_of_the_others(
    catalogue: list[Model], fields: dict[str, Any], data: st.DataObject
) -> None:
    asked = request(**fields)
    everything = order(catalogue, asked)
    for gone in {data.draw(st.sampled_from(catalogue)).id, everything[0] if everything else ""}:
        others = [name for name in everything if name != gone]
        assert order([m for m in catalogue if m.id != gone], asked)[: len(others)] == others


def rescaled(rows: Sequence[Model], money: Decimal, time: float) -> list[Model]:
    def dearer(found: dict[str, Decimal]) -> dict[str, Decimal]:
        return {field: value * money for field, value in found.items()}

    return [
        replace(
            m,
            ttft_s=Figure(m.ttft_s.value * time, "configured"),
            tpot_s=Figure(m.tpot_s.value * time, "configured"),
            prices=Prices(
                dearer(m.prices.base),
                tuple(replace(o, prices=dearer(o.prices)) for o in m.prices.overrides),
            ),
        )
        for m in rows
    ]


@given(
    catalogues(some_prices),
    bodies(limited=False, sized=False),
    st.sampled_from(("0.1", "0.37", "3", "100")),
    st.sampled_from((0.01, 0.3, 7.0, 100.0)),
)
def test_scaling_all_prices_or_all_latencies_changes_no_order(
    catalogue: list[Model], fields: dict[str, Any], money: str, time: float
) -> None:
    asked = request(**fields)
    scores = {name: found.score for name, found in passing(catalogue, asked).items()}
    before = [scores[name] for name in order(catalogue, asked)]
    for scaled in (
        rescaled(catalogue, Decimal(money), 1.0),
        rescaled(catalogue, Decimal(1), time),
        rescaled(catalogue, Decimal(money), time),
    ):
        after = [scores[name] for name in order(scaled, asked)]
        # Scores that are equal but for rounding may change places.
        assert len(after) == len(before)
        assert all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(after, before, strict=True))


@given(
    catalogues(),
    bodies(),
    st.data(),
    st.sampled_from(("0", "0.5", "0.99", "1")),
    st.sampled_from((0.5, 0.99, 1.0)),
    st.sampled_from((0.0, 0.01, 0.3)),
    st.sampled_from(("lab/", "lab/~")),
)
def test_a_twin_that_is_cheaper_faster_or_better_never_ranks_lower(
    catalogue: list[Model],
    fields: dict[str, Any],
    data: st.DataObject,
    money: str,
    time: float,
    better: float,
    name: str,
) -> None:
    asked = request(**fields)
    first = data.draw(st.sampled_from(catalogue))
    assume(Decimal(money) < 1 or time < 1 or better > 0)
    twin = replace(
        rescaled([first], Decimal(money), time)[0],
        id=name,
        quality=replace(first.quality, value=first.quality.value + better),
    )
    together = order([*catalogue, twin], asked)
    if first.id in together and (first.prices.known or time < 1 or better > 0):
        assert together.index(twin.id) < together.index(first.id)


@given(catalogues(), bodies())
def test_the_pick_is_on_the_pareto_frontier_of_what_passed(
    catalogue: list[Model], fields: dict[str, Any]
) -> None:
    asked = request(**fields)
    passed = passing(catalogue, asked)
    assume(passed)

    def figures(found: Terms) -> tuple[float, float, float]:
        cost = 1.0 if found.cost_usd is None else found.cost_usd
        return found.latency_score, -cost, found.quality

    picked = figures(passed[order(catalogue, asked)[0]])
    for name, found in passed.items():
        other = figures(found)
        dominates = other != picked and all(o >= p for o, p in zip(other, picked, strict=True))
        assert not dominates, name


@given(catalogues(least=2), bodies(), st.sampled_from(("latency", "cost", "quality")))
def test_raising_one_weight_never_makes_the_pick_worse_in_that_dimension(
    catalogue: list[Model], fields: dict[str, Any], dimension: str
) -> None:
    term = {"latency": "latency_score", "cost": "cost_score", "quality": "quality"}[dimension]
    asked = request(**fields)
    passed = passing(catalogue, asked)
    assume(passed)
    last = getattr(passed[order(catalogue, asked)[0]], term)
    for factor in (1.5, 4, 20, 1000):
        weights = fields["weights"] | {dimension: fields["weights"][dimension] * factor}
        raised = request(**fields | {"weights": weights})
        value = getattr(passed[order(catalogue, raised)[0]], term)
        assert value >= last - 1e-9
        last = value


@given(st.permutations(range(40)), st.integers(1, 40), st.integers(0, 14))
def test_equal_rows_rank_by_name(positions: list[int], count: int, better: int) -> None:
    ahead = [model(f"lab/a{i:02d}", quality=0.9 - i / 100) for i in range(better)]
    equal = [model(f"lab/{i:02d}") for i in positions[:count]]
    found = order([*equal, *ahead], request())
    assert found == [*(m.id for m in ahead), *sorted(m.id for m in equal)][:RANKED]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True))
def test_equal_scores_below_the_cost_floor_rank_by_cost(picodollars: list[int]) -> None:
    catalogue = [
        model(
            f"lab/{90 - n}",
            price=Prices(dict.fromkeys(("prompt", "completion"), Decimal(n) / 10**12)),
        )
        for n in picodollars
    ]
    assert order(catalogue, request()) == [f"lab/{90 - n}" for n in sorted(picodollars)][:RANKED]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40, unique=True))
def test_equal_scores_at_equal_cost_rank_by_latency(tenths: list[int]) -> None:
    catalogue = [model(f"lab/{90 - n}", ttft=n / 10) for n in tenths]
    found = order(catalogue, request(weights={"cost": 1, "quality": 1}))
    assert found == [f"lab/{90 - n}" for n in sorted(tenths)][:RANKED]


def test_equal_scores_rank_by_cost_before_latency_and_unknown_prices_last() -> None:
    rows = [
        model("lab/a", price=None, ttft=0.1),
        model("lab/b", price=("2", "2"), ttft=0.1),
        model("lab/c", price=("0.0000001", "0"), ttft=9.0),
    ]
    assert order(rows, request(weights={"quality": 1})) == ["lab/c", "lab/b", "lab/a"]


@given(catalogues(), bodies())
def test_the_terms_of_the_explanation_add_up_to_the_score(
    catalogue: list[Model], fields: dict[str, Any]
) -> None:
    asked = request(**fields)
    told = explain(tried(catalogue, asked))
    weights = told["weights_used"]
    exact = passing(catalogue, asked)
    assert len(told["candidates"]) == len(exact)
    for candidate in told["candidates"]:
        parts = (weights[key] * candidate[f"{key}_score"] for key in weights)
        assert math.isclose(sum(parts), candidate["composite_score"], abs_tol=2e-6)
        terms = exact[candidate["model"]]
        whole = sum(
            weight * term
            for weight, term in zip(
                asked.weights, (terms.latency_score, terms.cost_score, terms.quality), strict=True
            )
        )
        assert math.isclose(whole, terms.score, abs_tol=1e-12)
        assert math.isclose(terms.score, candidate["composite_score"], abs_tol=1e-6)


@given(catalogues(), bodies(), st.sampled_from((0.0, 6 * 3600.0, 11 * 3600.0, 72 * 3600.0)))
def test_the_fast_loop_and_the_plain_terms_agree(
    catalogue: list[Model], fields: dict[str, Any], later: float
) -> None:
    asked, now = request(**fields), Now(NOW.monotonic, NOW.wall + later)
    of = snapshot(*catalogue)
    for spread in (MAY_NOT_FIT, SURELY_NOT):
        look = Look(asked, of, telemetry(of), POLICY, now)
        look.spread = spread
        fast = {index: loss for loss, index in all_losses(look)}
        plain = {i: look.terms(i).score for i in of.routable if look.why_not(i) is None}
        assert fast.keys() == plain.keys()
        sums = [fast[index] + plain[index] for index in fast]
        assert not sums or max(sums) - min(sums) < 1e-9


@given(catalogues(), bodies())
def test_the_ranking_is_a_plain_sort_of_what_passed(
    catalogue: list[Model], fields: dict[str, Any]
) -> None:
    asked = request(**fields)
    passed = passing(catalogue, asked)

    def documented(name: str) -> tuple[float, float, float, str]:
        found = passed[name]
        cost = math.inf if found.cost_usd is None else found.cost_usd
        return -found.score, cost, found.total_s, name

    of = snapshot(*catalogue)
    assert order(catalogue, asked) == sorted(passed, key=documented)[:RANKED]
    look = Look(asked, of, telemetry(of), POLICY, NOW)
    rank(look, Board())
    assert look.limited or roomy(look) == len(passed)


def test_the_candidates_of_the_explanation_stand_in_the_order_of_the_ranking() -> None:
    # Both cost less than the floor: the scores are equal, the costs are not.
    of = snapshot(
        model("lab/a", price=("0.0000000003", "0")), model("lab/b", price=("0.0000000002", "0"))
    )
    found = decide(request(), of, telemetry(of), POLICY, NOW)
    assert [row["model"] for row in explain(found)["candidates"]] == ["lab/b", "lab/a"]
    assert found.model.id == "lab/b"


@given(catalogues(), bodies(), st.data())
def test_a_decision_can_be_worked_out_again_from_what_it_keeps(
    catalogue: list[Model], fields: dict[str, Any], data: st.DataObject
) -> None:
    some = st.lists(st.sampled_from([m.id for m in catalogue]), max_size=3)
    asked = request(**fields, preferred_models=data.draw(some))
    found = tried(catalogue, asked, fallback_models=tuple(data.draw(some)))
    again = decide(found.request, found.snapshot, found.telemetry, found.policy, found.now)
    assert (again.chain, again.ranking) == (found.chain, found.ranking)
    assert explain(again) == explain(found)


@given(
    catalogues(least=3),
    bodies(),
    st.lists(st.sampled_from((0, 6, 11, 13, 24, 7 * 24)), min_size=2, max_size=4, unique=True),
    st.sampled_from((0, 1, 7)),
)
def test_what_is_remembered_between_decisions_changes_none(
    catalogue: list[Model], fields: dict[str, Any], hours: list[int], cold: int
) -> None:
    of = snapshot(*catalogue)
    cooling = {m.target: "timeout" for i, m in enumerate(catalogue) if cold and i % cold == 0}
    shared = telemetry(of, cooling)
    # The same request, and those that differ from it by one field.
    for gone in ("", *sorted(fields)):
        asked = request(**{key: value for key, value in fields.items() if key != gone})
        for hour in hours:
            now = Now(NOW.monotonic, NOW.wall + hour * 3600.0)
            remembered = outcome(asked, of, shared, now)
            fresh = snapshot(*catalogue)
            assert remembered == outcome(asked, fresh, telemetry(fresh, cooling), now)


def test_the_best_of_the_well_rows_is_looked_for_again_when_one_of_them_ends() -> None:
    of = snapshot(
        *(model(f"lab/{i:02d}", quality=0.9 - i / 100) for i in range(30)),
        model("lab/30", quality=0.5, expires="2026-08-18"),
        model("lab/31", quality=0.4),
    )
    shared = telemetry(of, {f"lab/lab/{i:02d}": "timeout" for i in range(30)})
    for day, expected in ((0, "lab/30"), (1, "lab/31"), (0, "lab/30")):
        now = Now(NOW.monotonic, NOW.wall + day * 86_400.0)
        assert decide(request(), of, shared, POLICY, now).model.id == expected


@given(catalogues(), bodies(), st.data())
def test_the_explanation_lists_every_row_once_and_the_pick_among_the_candidates(
    catalogue: list[Model], fields: dict[str, Any], data: st.DataObject
) -> None:
    preferred = data.draw(st.lists(st.sampled_from([m.id for m in catalogue]), max_size=2))
    told = explain(tried(catalogue, request(**fields, preferred_models=preferred)))
    candidates = [row["model"] for row in told["candidates"]]
    excluded = {row["model"]: row["reason"] for row in told["excluded"]}
    assert sorted([*candidates, *excluded]) == sorted(m.id for m in catalogue)
    assert all(excluded.values())
    assert set(told["chain"]) <= set(candidates)
    assert told["selected_model"] == told["chain"][0]


@given(catalogues(), bodies())
def test_what_auto_picks_can_do_all_the_request_needs(
    catalogue: list[Model], fields: dict[str, Any]
) -> None:
    found = tried(catalogue, request(**fields))
    for index in found.chain:
        row = found.snapshot.models[index]
        assert row.barred is None
        assert row.upstream in POLICY.usable
        assert not ("tools" in fields and not row.supports & NAMES["tools"])
        assert row.max_output is None or fields.get("max_tokens", 0) <= row.max_output
