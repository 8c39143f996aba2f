"""Every model placed from public facts: what follows from which fact, and what never does."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llmr import bundle
from llmr.core.quality.ability import (
    ESTIMATED_SD,
    EVEN,
    PUBLISHED_SD,
    Ability,
    logit,
    of_probability,
    sigmoid,
)
from llmr.core.quality.boards import QUALITY_HIGH, QUALITY_LOW, Board
from llmr.core.quality.facts import Facts
from llmr.core.quality.kinds import KINDS
from llmr.core.quality.placing import place
from llmr.listing import model_rows
from tests.builders import telemetry

CODE, AGENT, CHAT, MATH = (KINDS.index(kind) for kind in ("code", "agent", "chat", "math"))
YEAR_S = 31_557_600


def rows(count: int = 12, **of_the_last: Any) -> list[Facts]:
    """Models of as many authors, each a little better, dearer and newer than the one before."""
    out = [
        Facts(
            f"author-{chr(97 + at)}/model",
            0.1 * 1.5**at,
            1_735_689_600 + at * YEAR_S // 12,
            indices={"intelligence": 10.0 + 4 * at, "coding": 12.0 + 4 * at, "agentic": 8.0 + at},
        )
        for at in range(count)
    ]
    out[-1] = replace(out[-1], **of_the_last)
    return out


def code_board(scores: dict[str, float]) -> Board:
    return Board("bench", "code", "percent", tuple((m, s, "") for m, s in scores.items()))


# --- the vector ---


@given(st.floats(-800, 800))
def test_every_logit_has_a_probability_and_back(x: float) -> None:
    p = sigmoid(x)
    assert 0 <= p <= 1
    if 0.001 < p < 0.999:
        assert logit(p) == pytest.approx(x)


def test_of_a_mere_figure_every_kind_is_alike() -> None:
    ability = of_probability(0.8, 0.1, ("configured",))
    assert [ability.at(kind) for kind in range(len(KINDS))] == pytest.approx([0.8] * len(KINDS))
    assert ability.probability_sd == pytest.approx(0.1)
    assert ability.sources == ("configured",)
    assert 0 < of_probability(0.0, None).probability < of_probability(1.0, None).probability < 1


# --- placing ---


def test_the_same_facts_give_the_same_abilities_in_any_order() -> None:
    facts = rows()
    board = code_board({row.id: 20.0 + 5 * at for at, row in enumerate(facts)})
    there, back = place(facts, [board]), place(facts[::-1], [board])
    for name, ability in there.items():
        assert back[name].overall == pytest.approx(ability.overall, abs=1e-3)
        assert back[name].by_kind == pytest.approx(ability.by_kind, abs=1e-3)
    assert place(facts, [board]) == there


def test_places_keep_the_order_of_the_index_and_its_span() -> None:
    found = place(rows())
    values = [found[row.id].probability for row in rows()]
    assert values == sorted(values)
    assert values[0] == pytest.approx(QUALITY_LOW, abs=0.05)
    assert values[-1] == pytest.approx(QUALITY_HIGH, abs=0.05)


@settings(max_examples=60)
@given(
    st.permutations(range(12)),
    st.integers(0, 11),
    st.integers(1, 11),
    st.sampled_from(("intelligence", "coding", "agentic")),
)
def test_a_higher_index_never_makes_a_model_worse(
    order: list[int], at: int, passed: int, index: str
) -> None:
    def with_figure(extra: float) -> Ability:
        facts = rows()
        for i, row in enumerate(facts):
            value = order[i] + (extra if i == at else 0.0)
            facts[i] = replace(row, indices={**row.indices, index: value})
        return place(facts)[facts[at].id]

    assert with_figure(passed + 0.5).overall >= with_figure(0.0).overall - 0.02


def test_a_board_of_code_tells_code_apart_and_nothing_else() -> None:
    facts = rows()
    scores = {row.id: 20.0 + 5 * at for at, row in enumerate(facts)}
    plain = place(facts, [code_board(scores)])
    better = place(facts, [code_board(scores | {facts[4].id: 75.0})])
    gain = [
        b - a for a, b in zip(plain[facts[4].id].by_kind, better[facts[4].id].by_kind, strict=True)
    ]
    assert gain[CODE] > gain[AGENT] > gain[MATH]
    assert gain[CODE] > 0.1
    assert better[facts[4].id].sources[-1] == "bench"


def test_without_evidence_no_kind_is_different() -> None:
    bare = [replace(row, indices={"intelligence": row.indices["intelligence"]}) for row in rows()]
    for ability in place([*bare, Facts("new/model", 1.0)]).values():
        assert ability.by_kind == EVEN


def test_offsets_of_the_kinds_add_up_to_nothing() -> None:
    for ability in place(rows(), bundle.boards()).values():
        assert sum(ability.by_kind) == pytest.approx(0.0, abs=0.001)


def test_a_new_row_gets_a_place_by_its_price_and_is_never_sure() -> None:
    cheap, dear = Facts("new/cheap", 0.1, None), Facts("other/dear", 8.0, None)
    found = place([*rows(), cheap, dear])
    assert found["new/cheap"].overall < found["other/dear"].overall
    for name in ("new/cheap", "other/dear"):
        assert found[name].probability_sd >= ESTIMATED_SD
        assert found[name].sources == ()


def test_a_new_version_inherits_what_its_predecessor_is_known_for() -> None:
    coder = rows(indices={"intelligence": 31.0, "coding": 90.0, "agentic": 13.2})
    kin = Facts("author-l/model-2", coder[-1].usd_per_mtok, None)
    stranger = Facts("author-x/other", coder[-1].usd_per_mtok, None)
    low = rows(indices={"intelligence": 11.0, "coding": 13.0, "agentic": 8.5})
    found, lower = place([*coder, kin, stranger]), place([*low, kin, stranger])
    assert found[kin.id].by_kind[CODE] > 0.02
    assert found[stranger.id].by_kind == EVEN
    assert lower[kin.id].overall < lower[stranger.id].overall - 0.2
    assert found[kin.id].sources == ()


def test_a_serving_variant_is_its_base() -> None:
    facts = rows()
    free = replace(facts[3], id=f"{facts[3].id}:free", usd_per_mtok=None, indices={})
    found = place([*facts, free])
    assert found[free.id] == found[facts[3].id]
    alone = place([free])
    assert alone[free.id].probability_sd >= ESTIMATED_SD


@pytest.mark.parametrize(
    "facts",
    [
        [],
        [Facts("a/b")],
        [Facts("")],
        [Facts("a/b", 1.0, 1, True, {"coding": 5.0})],
        [Facts("a/b", 1.0, indices={"intelligence": 1.0}), Facts("c/d", 1.0)],
        [Facts(f"a/m-{n}", arenas={("models", "web"): 1200.0}) for n in range(5)],
    ],
)
def test_few_facts_or_none_are_enough(facts: list[Facts]) -> None:
    found = place(facts, bundle.boards())
    assert set(found) == {row.id for row in facts}
    for ability in found.values():
        assert math.isfinite(ability.overall)
        assert ability.sd > 0
        assert all(math.isfinite(offset) for offset in ability.by_kind)


FIGURES = st.floats(-1e6, 1e6, allow_nan=False)
HOSTILE = st.builds(
    Facts,
    st.from_regex(r"[a-c]/[a-z0-9.-]{1,9}(:free)?", fullmatch=True),
    st.one_of(st.none(), st.floats(1e-9, 1e300)),
    st.one_of(st.none(), st.integers(1, 10**12)),
    st.booleans(),
    st.dictionaries(st.sampled_from(("intelligence", "coding", "agentic")), FIGURES),
    st.dictionaries(
        st.tuples(st.sampled_from(("models", "agents")), st.sampled_from(("a", "b"))), FIGURES
    ),
)


@settings(max_examples=200)
@given(st.lists(HOSTILE, max_size=12))
def test_no_facts_break_the_placing(facts: list[Facts]) -> None:
    for ability in place(facts).values():
        assert 0 <= ability.probability <= 1
        assert math.isfinite(ability.probability_sd)


# --- the bundled catalogue ---


def bundled() -> dict[str, Ability]:
    snapshot = bundle.catalogue()
    return {snapshot.models[i].id: snapshot.models[i].ability for i in snapshot.routable}


def test_no_figure_is_surer_than_its_sources() -> None:
    for ability in bundled().values():
        least = PUBLISHED_SD if ability.sources else ESTIMATED_SD
        assert ability.probability_sd >= least - 1e-9


def test_the_six_known_models_stand_in_their_order() -> None:
    found = bundled()
    order = [
        "google/gemini-3.1-flash-lite-preview",
        "openai/gpt-5.4-mini",
        "google/gemini-3.1-pro-preview",
        "openai/gpt-5.4",
        "anthropic/claude-opus-4.7",
    ]
    values = [found[name].probability for name in order]
    assert values == sorted(values)


def test_models_are_listed_with_kinds_and_sources() -> None:
    snapshot = bundle.catalogue()
    listed = {row["id"]: row for row in model_rows(snapshot, telemetry(snapshot), {}, 0.0)}
    row = listed["anthropic/claude-opus-4.7"]
    assert set(row["quality_by_kind"]) == set(KINDS)
    assert all(0 < value < 1 for value in row["quality_by_kind"].values())
    assert {"artificial_analysis_intelligence", "arena_text"} <= set(row["quality_sources"])
    assert row["sources"]["quality"] == "published"
    guess = listed["openai/gpt-6-astra"]
    assert (guess["quality_sources"], guess["sources"]["quality"]) == ([], "estimated")
    assert guess["quality_sd"] >= ESTIMATED_SD


def test_every_board_names_its_source_and_licence_and_knows_its_models() -> None:
    ids = {model.id for model in bundle.catalogue().models}
    for board in bundle.boards():
        assert {row[0].split(":")[0] for row in board.scores} <= {i.split(":")[0] for i in ids}
