"""Draw the pictures of the README from the code and the data.

    python tools/figures.py

`flow.svg` shows the way of one request, each box with the modules that do it. `priorities.svg`
shows how the four priorities score the bundled catalogue, by the router's own arithmetic.
`bench.svg` shows the newest full measurement kept in bench/results, where there is one. The same
code and data give the same bytes; a test holds the committed pictures to that.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llmr import bundle
from llmr.core.decide import Now, Policy, decide
from llmr.core.explain import explain
from llmr.core.learner import Learner
from llmr.core.request import PRIORITIES, Request, grid

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "img"
RESULTS = ROOT / "bench" / "results"
WIDTH = 800
TERMS = ("latency", "cost", "quality")

# (light, dark) by part. The three terms stay apart for every kind of colour blindness.
COLOURS = {
    "card": ("#ffffff", "#0d1117"),
    "edge": ("#d1d9e0", "#3d444d"),
    "ink": ("#1f2328", "#f0f6fc"),
    "dim": ("#59636e", "#9198a1"),
    "main": ("#1f5fbf", "#5b9bf0"),
    "tint": ("#eef5fd", "#12233a"),
    "plain": ("#f6f8fa", "#161b22"),
    "line": ("#818b98", "#7d8590"),
    "track": ("#eaeef2", "#21262d"),
    "latency": ("#1f5fbf", "#5b9bf0"),
    "cost": ("#d68910", "#f2b04a"),
    "quality": ("#93346c", "#bd5a97"),
}
SHAPES = """\
text { font-size: 12px; font-family: -apple-system, "Segoe UI", "Noto Sans", Arial, sans-serif; }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  font-size: 11px; }
.title { font-size: 15px; font-weight: 600; }
.bold { font-weight: 600; }
.way { fill: none; stroke-width: 2; }
.side { fill: none; stroke-width: 1.3; }
.pure { fill: none; stroke-dasharray: 4 4; }
"""
RULES = """\
.card {{ fill: {card}; stroke: {edge}; }}
text {{ fill: {ink}; }}
.dim {{ fill: {dim}; }}
.box {{ fill: {plain}; stroke: {edge}; }}
.step {{ fill: {tint}; stroke: {main}; }}
.pure {{ stroke: {main}; }}
.way {{ stroke: {main}; }}
.side {{ stroke: {line}; }}
.way-tip {{ fill: {main}; }}
.side-tip {{ fill: {line}; }}
.track {{ fill: {track}; }}
.latency {{ fill: {latency}; }}
.cost {{ fill: {cost}; }}
.quality {{ fill: {quality}; }}
"""


def picture(title: str, told: str, height: int, parts: list[str]) -> str:
    """A whole SVG: the parts on a card of its own, so that it reads on a page of any colour."""
    light, dark = (
        RULES.format_map({part: pair[theme] for part, pair in COLOURS.items()}) for theme in (0, 1)
    )
    style = f"{SHAPES}{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title told">'
    )
    lines = [
        head,
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="told">{escape(told)}</desc>',
        f"<style>\n{style}</style>",
        rect("card", 0.5, 0.5, WIDTH - 1, height - 1, 12),
        *parts,
    ]
    return "\n".join([*lines, "</svg>\n"])


def text(
    x: float, y: float, words: str, kind: str = "", anchor: str = "start", fit: int = 0
) -> str:
    more = f' textLength="{fit}" lengthAdjust="spacingAndGlyphs"' if fit else ""
    place = f'x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}"{more}'
    return f"<text {place}>{escape(words)}</text>"


def rect(kind: str, x: float, y: float, width: float, height: float, round_by: float = 0) -> str:
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
        f'rx="{round_by:g}"/>'
    )


# --- the way of one request ---


class Box(NamedTuple):
    """One stage: where it stands, what it does, and the modules under src/llmr that do it."""

    column: int
    row: int
    kind: str
    title: str
    notes: tuple[str, ...]
    modules: tuple[str, ...]


BOXES = (
    Box(0, 0, "box", "Caller", ("any client, or the library",), ("server/hot.py", "router.py")),
    Box(1, 0, "box", "Catalogue", ("immutable snapshot,", "swapped whole"), ("core/catalogue.py",)),
    Box(
        2,
        0,
        "box",
        "Telemetry",
        ("live estimates,", "cooldowns"),
        ("core/telemetry.py", "core/learner.py"),
    ),
    Box(3, 0, "step", "Upstream", ("pooled HTTP/1.1,", "bytes through"), ("upstreams/http.py",)),
    Box(0, 1, "step", "View", ("what routing needs",), ("core/body.py", "core/request.py")),
    Box(
        1,
        1,
        "step",
        "Filters",
        ("abilities, limits, keys",),
        ("core/look.py", "core/decide.py"),
    ),
    Box(2, 1, "step", "Score", ("latency, cost, quality",), ("core/scoring.py", "core/ranking.py")),
    Box(
        3, 1, "step", "Execute", ("attempts, fallback,", "commit point"), ("execution/executor.py",)
    ),
    Box(0, 2, "box", "Decision log", ("each one replayable",), ("observe/decisions.py",)),
    Box(
        1, 2, "box", "Metrics", ("rolling window",), ("observe/window.py", "observe/prometheus.py")
    ),
    Box(2, 2, "box", "Recorder", ("one record a request",), ("observe/record.py",)),
    Box(3, 2, "box", "Cache", ("exact; calls joined",), ("cache/memory.py", "cache/flight.py")),
)
REFRESH = "refresh.py"
MODULES = (REFRESH, *(module for box in BOXES for module in box.modules))

BOX_WIDTH, BOX_HEIGHT = 156, 96
COLUMNS, ROWS = (40, 228, 416, 604), (58, 218, 420)
FLOW_HEIGHT = 556

# Lines from (x, y) over corners to the tip; "way" is the request's own, "side" the loops beside it.
LINES = (
    ("way", "M118 154 V216"),
    ("way", "M196 266 H226"),
    ("way", "M384 266 H414"),
    ("way", "M572 266 H602"),
    ("way", "M666 218 V156"),
    ("way", "M714 154 V216"),
    ("way", "M626 314 V370 H20 V106 H38"),
    ("side", "M682 58 V36 H306 V56"),
    ("side", "M306 154 V206"),
    ("side", "M466 154 V206"),
    ("side", "M622 218 V186 H524 V156"),
    ("side", "M648 314 V396 H494 V418"),
    ("side", "M692 314 V418"),
    ("side", "M724 420 V316"),
    ("side", "M416 468 H386"),
    ("side", "M494 516 V534 H118 V518"),
)
LABELS = (
    (126, 190, "request bytes", "start"),
    (494, 28, f"GET /models, off the request's way: {REFRESH}", "middle"),
    (298, 186, "facts, prices", "end"),
    (458, 186, "estimates", "end"),
    (573, 180, "outcomes", "middle"),
    (658, 176, "send", "end"),
    (722, 190, "stream", "start"),
    (118, 363, "answer", "middle"),
    (571, 389, "outcome", "middle"),
    (684, 404, "ask", "end"),
    (732, 404, "hit", "start"),
    (400, 332, "one pure function, no I/O, no clock", "middle"),
)


def draw_box(box: Box) -> Iterator[str]:
    """The frame, and the lines of text centred in it."""
    x, y = COLUMNS[box.column], ROWS[box.row]
    yield rect(box.kind, x, y, BOX_WIDTH, BOX_HEIGHT, 8)
    lines = [("title", box.title, 18)]
    lines += [("", note, 20 if note == box.notes[0] else 15) for note in box.notes]
    lines += [("mono dim", name, 19 if name == box.modules[0] else 14) for name in box.modules]
    base = y + (BOX_HEIGHT - sum(height for *_, height in lines)) / 2 - 3
    for kind, words, height in lines:
        base += height
        yield text(x + BOX_WIDTH / 2, base, words, kind, "middle")


def flow() -> str:
    """The way of one request, with the loops beside it."""
    tips = [
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="{size}" '
        f'markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path class="{kind}-tip" d="M0 0.5 L8 4 L0 7.5 Z"/></marker>'
        for kind, size in (("way", 10), ("side", 8))
    ]
    lines = [f'<path class="{kind}" d="{d}" marker-end="url(#{kind})"/>' for kind, d in LINES]
    parts = [
        f"<defs>{''.join(tips)}</defs>",
        rect("pure", 216, 208, 368, 132, 12),
        *(part for box in BOXES for part in draw_box(box)),
        *lines,
        *(text(x, y, words, "dim", anchor) for x, y, words, anchor in LABELS),
    ]
    told = " → ".join(box.title for box in BOXES if box.row == 1) + " → Upstream"
    return picture("The way of one request", told, FLOW_HEIGHT, parts)


# --- what each priority makes of the bundled catalogue ---

PROMPT_TOKENS, OUTPUT_TOKENS = 500, 300
SHOWN = 8
LONG_ID = (45, 300)  # an id of more letters is set to this width, in whatever font there is
PANEL_X, PANEL_WIDTH = (28, 414), 358
PANEL_Y, PANEL_HEIGHT = (84, 404), 320
ROW_HEIGHT, BAR_HEIGHT = 33, 9


def account(priority: str) -> dict[str, Any]:
    """The explained decision for the typical request, nothing measured, on the catalogue's day."""
    snapshot = bundle.catalogue()
    noon = datetime.fromisoformat(max(snapshot.captured.values())).replace(hour=12, tzinfo=UTC)
    now = Now(0.0, noon.timestamp())
    request = Request(
        mode="auto",
        models=(),
        priority=priority,
        weights=PRIORITIES[priority],
        prompt_tokens=grid(PROMPT_TOKENS),
        output_tokens=grid(OUTPUT_TOKENS),
        stream=True,
    )
    policy = Policy(frozenset(model.upstream for model in snapshot.models))
    telemetry = Learner(lambda: 0.5).publish(snapshot, 0.0)
    return explain(decide(request, snapshot, telemetry, policy, now))


def draw_row(found: dict[str, Any], weights: dict[str, float], x: float, y: float) -> Iterator[str]:
    """One candidate: its id and score, and under them its weighted terms end to end."""
    name = found["model"]
    yield text(x, y + 12, name, fit=LONG_ID[1] if len(name) > LONG_ID[0] else 0)
    yield text(x + PANEL_WIDTH, y + 12, f"{found['composite_score']:.3f}", "bold", "end")
    yield rect("track", x, y + 18, PANEL_WIDTH, BAR_HEIGHT)
    start = x
    for term in TERMS:
        width = round(weights[term] * found[f"{term}_score"] * PANEL_WIDTH, 2)
        if width < 0:
            raise ValueError(f"{found['model']}: a {term} term below 0 cannot be stacked")
        yield rect(term, start, y + 18, width, BAR_HEIGHT)
        start = round(start + width, 2)


def draw_panel(told: dict[str, Any], x: float, y: float) -> Iterator[str]:
    """One priority: its name, its weights, its best candidates."""
    weights = told["weights_used"]
    formula = " + ".join(f"{weights[term]:.2f} {term}" for term in TERMS)
    yield text(x, y + 14, told["priority"], "title")
    yield text(x + PANEL_WIDTH, y + 14, formula, "dim", "end")
    for place, found in enumerate(told["candidates"][:SHOWN]):
        yield from draw_row(found, weights, x, y + 26 + place * ROW_HEIGHT)


def priorities() -> str:
    """The best models of each priority, every score split into the terms that add up to it."""
    accounts = [account(name) for name in PRIORITIES]
    first = accounts[0]
    asked, day = first["request"], max(first["state"]["captured"].values())
    caption = (
        f"{asked['prompt_tokens']} prompt + {asked['output_tokens']} output tokens, streamed; "
        f"{len(first['candidates'])} models of {day}, nothing measured yet"
    )
    parts = [text(PANEL_X[0], 34, "score = weighted latency + cost + quality", "title")]
    parts.append(text(PANEL_X[0], 56, caption + "; a full bar is 1", "dim"))
    for x, term in zip((590, 661, 717), TERMS, strict=True):
        parts += [rect(term, x, 24, 11, 11, 2), text(x + 17, 34, term)]
    for place, told in enumerate(accounts):
        parts += draw_panel(told, PANEL_X[place % 2], PANEL_Y[place // 2])
    winners = "; ".join(f"{told['priority']}: {told['selected_model']}" for told in accounts)
    title = "What each priority makes of the bundled catalogue"
    return picture(title, winners, PANEL_Y[1] + PANEL_HEIGHT - 8, parts)


# --- what was measured beside nginx ---

FORM = 2  # of the results; older ones have no rows
NGINX, ROUTER = "nginx", "router"
PLOT_X, PLOT_WIDTH, PLOT_Y, PLOT_ROW = 290, 350, 98, 30
SHARE_MOST = 2.0  # a bar that is longer is cut


def newest_result() -> dict[str, Any] | None:
    """The newest full measurement with every target that is compared with nginx."""
    found = []
    for file in sorted(RESULTS.glob("*.json")):
        result = msgspec.json.decode(file.read_bytes())
        whole = result.get("form") == FORM and not result["quick"]
        if whole and len(compared(result)) >= 3:
            found.append(result)
    return max(found, key=lambda result: str(result["at"]), default=None)


def compared(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that are ratios to nginx."""
    return [
        row
        for row in result["rows"]
        if row["measured"] is not None and NGINX in row["by"] and row["unit"] == "×"
    ]


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Each server's figure over nginx's; what was measured straight is no server."""
    base = row["by"][NGINX]
    return {k: v / base for k, v in row["by"].items() if k not in (NGINX, "direct") and v > 0}


def short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw_ratio(row: dict[str, Any], y: float, low: float, high: float) -> Iterator[str]:
    """One ratio on a logarithmic line: the target as a stroke, each server as a dot."""

    def place(ratio: float) -> float:
        share = (math.log10(ratio) - low) / (high - low)
        return round(PLOT_X + min(1.0, max(0.0, share)) * PLOT_WIDTH, 1)

    sign = "≥" if row["at_least"] else "≤"
    yield text(28, y + 4, row["name"].removesuffix(" / nginx"))
    yield rect("track", PLOT_X, y - 1, PLOT_WIDTH, 2)
    goal = place(row["target"])
    yield f'<path class="side" d="M{goal:g} {y - 9:g} V{y + 9:g}"/>'
    for name, ratio in ratios(row).items():
        kind = "latency" if name == ROUTER else "cost"
        yield f'<circle class="{kind}" cx="{place(ratio):g}" cy="{y:g}" r="5.5"/>'
        if name != ROUTER:
            yield text(place(ratio), y - 9, name, "dim", "middle")
    told = f"{row['measured']:.2f}×  ({sign} {row['target']:g})"
    yield text(WIDTH - 28, y + 4, told, "bold" if row["met"] else "", "end")


def draw_share(row: dict[str, Any], y: float) -> Iterator[str]:
    """One target without nginx: a bar of its share of what is allowed."""
    unit, share = row["unit"], min(SHARE_MOST, row["measured"] / row["target"])
    width = round(share / SHARE_MOST * PLOT_WIDTH, 1)
    yield text(28, y + 4, row["name"])
    yield rect("track", PLOT_X, y - BAR_HEIGHT / 2, PLOT_WIDTH, BAR_HEIGHT)
    yield rect("latency" if row["met"] else "cost", PLOT_X, y - BAR_HEIGHT / 2, width, BAR_HEIGHT)
    told = f"{short(row['measured'])} {unit}  (≤ {row['target']:g})"
    yield text(WIDTH - 28, y + 4, told, "bold" if row["met"] else "", "end")


def measured(result: dict[str, Any]) -> str:
    """The targets of one measurement, with what was reached."""
    first = compared(result)
    others = [
        r
        for r in result["rows"]
        if r["measured"] is not None and r["target"] > 0 and r not in first and not r["at_least"]
    ]
    every = [1.0, *(v for row in first for v in (*ratios(row).values(), row["target"]))]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    machine, code = result["machine"], result["code"]["commit"]
    where = f"{machine['cpu']}, {result['at'][:10]}, {code}, nginx {result['versions']['nginx']}"
    parts = [
        text(28, 34, "One process beside nginx as a plain reverse proxy", "title"),
        text(28, 56, f"{where}; strokes are targets, bold ones are met", "dim"),
    ]
    bottom = PLOT_Y + len(first) * PLOT_ROW
    for power in range(low, high + 1):
        x = round(PLOT_X + (power - low) / max(1, high - low) * PLOT_WIDTH, 1)
        parts.append(f'<path class="side pure" d="M{x:g} {PLOT_Y - 12} V{bottom - 12}"/>')
        label = "nginx" if power == 0 else f"{10.0**power:g}×"
        parts.append(text(x, PLOT_Y - 18, label, "dim", "middle"))
    for place, row in enumerate(first):
        parts += draw_ratio(row, PLOT_Y + 8 + place * PLOT_ROW, low, high)
    parts.append(text(28, bottom + 24, "Share of what is allowed", "title"))
    goal = PLOT_X + PLOT_WIDTH / SHARE_MOST
    for place, row in enumerate(others):
        parts += draw_share(row, bottom + 50 + place * PLOT_ROW)
    height = bottom + 50 + len(others) * PLOT_ROW
    parts.append(f'<path class="side" d="M{goal:g} {bottom + 36} V{height - 18}"/>')
    told = "; ".join(f"{r['name']}: {short(r['measured'])} {r['unit']}" for r in (*first, *others))
    return picture("What was measured beside nginx", told, height, parts)


def pictures() -> dict[str, str]:
    """Every picture by file name."""
    found = {"flow.svg": flow(), "priorities.svg": priorities()}
    if (result := newest_result()) is not None:
        found["bench.svg"] = measured(result)
    return found


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures().items():
        (IMAGES / name).write_text(svg, encoding="utf-8")
