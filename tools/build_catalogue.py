"""Build the catalogue that ships with the package from recorded OpenRouter replies.

    python tools/build_catalogue.py SOURCE_DIR

SOURCE_DIR holds the raw `/models` reply, the newer derived catalogue and the latency recordings.
Facts only are kept: ids, dates, prices, limits, capabilities, benchmark figures. The rows keep the
wire shape of `GET /models`, so that the bundled rows and live ones go through one parser.
"""

import csv
import json
import math
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RAW = "models-2026-08-18.json"
DERIVED = "catalog-2026-11-10.json"
LATENCY = "priors/latency-throughput-2026-05-06.csv"

DROPPED = {"name", "description", "links", "hugging_face_id", "supported_voices"}
EFFORTS = ("max", "xhigh", "high", "medium", "low", "minimal")
MILLION = Decimal(1_000_000)


def per_token(usd_per_million: float) -> str:
    """USD per million tokens as the decimal string per token that `/models` uses."""
    text = format(Decimal(str(usd_per_million)) / MILLION, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def prices(cost: dict[str, Any]) -> dict[str, Any]:
    """Wire-shaped prices of a derived row."""
    names = {
        "prompt": "input",
        "completion": "output",
        "input_cache_read": "cacheRead",
        "input_cache_write": "cacheWrite",
    }
    out: dict[str, Any] = {
        wire: per_token(cost[key])
        for wire, key in names.items()
        if cost.get(key) is not None and (cost[key] or wire in ("prompt", "completion"))
    }
    tiers = cost.get("tiers") or []
    if tiers:
        out["overrides"] = [
            {"min_prompt_tokens": tier["inputTokensAbove"]}
            | {wire: per_token(tier[key]) for wire, key in names.items() if tier.get(key)}
            for tier in tiers
        ]
    return out


def reasoning(row: dict[str, Any]) -> dict[str, Any] | None:
    """Wire-shaped reasoning facts of a derived row."""
    if not row.get("reasoning"):
        return None
    levels = row.get("thinkingLevelMap")
    if not levels:
        return {"mandatory": False}
    efforts = [level for level in EFFORTS if levels.get(level)]
    out: dict[str, Any] = {"mandatory": "off" in levels and levels["off"] is None}
    if efforts:
        out["supported_efforts"] = efforts
    return out


def derived_row(row: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Any]:
    """A newer derived row laid over the older raw one, where there is one."""
    inputs = row.get("input") or ["text"]
    if row["type"] != "chat":
        outputs = row.get("output") or ["text"]
        return {
            "id": row["id"],
            "context_length": row.get("contextWindow"),
            "architecture": {"input_modalities": inputs, "output_modalities": outputs},
            "pricing": prices(row["cost"]),
            "supported_parameters": [],
            "kind": row["type"],
        }
    out = dict(base) if base else {"id": row["id"], "supported_parameters": []}
    architecture = dict(out.get("architecture") or {"output_modalities": ["text"]})
    architecture["input_modalities"] = list(
        dict.fromkeys([*inputs, *architecture.get("input_modalities", [])])
    )
    limits = dict(out.get("top_provider") or {"context_length": row["contextWindow"]})
    limits["max_completion_tokens"] = row["maxTokens"]
    parameters = dict.fromkeys(out["supported_parameters"])
    parameters.update(dict.fromkeys(["max_tokens", "tools", "tool_choice"]))
    if row.get("reasoning"):
        parameters["reasoning"] = None
    pricing = prices(row["cost"])
    for key, value in (out.get("pricing") or {}).items():
        # A derived row has token prices only; per-search and media prices stay as last seen.
        if key not in (
            "overrides",
            "input_cache_read",
            "input_cache_write",
            "input_cache_write_1h",
        ):
            pricing.setdefault(key, value)
    return (
        out
        | {
            "context_length": row["contextWindow"],
            "architecture": architecture,
            "top_provider": limits,
            "pricing": pricing,
            "supported_parameters": sorted(parameters),
        }
        | ({"reasoning": (out.get("reasoning") or {}) | facts} if (facts := reasoning(row)) else {})
    )


def catalogue(source: Path) -> list[dict[str, Any]]:
    """Every derived row, and the raw rows that only the derived list could not hold."""
    raw_rows = json.loads((source / RAW).read_text())["data"]
    raw = {
        r["id"]: {k: v for k, v in r.items() if k not in DROPPED and v is not None}
        for r in raw_rows
    }
    rows = {
        r["id"]: derived_row(r, raw.get(r["id"]))
        for r in json.loads((source / DERIVED).read_text())["models"]
        if "/" in r["id"]
    }
    for row_id, row in raw.items():
        # The derived list has tool-capable chat models only: a row without tools is not gone.
        if row_id not in rows and "tools" not in row["supported_parameters"]:
            rows[row_id] = row
    return [rows[key] for key in sorted(rows)]


def latency(source: Path) -> dict[str, dict[str, list[float]]]:
    """Recorded first-token seconds and tokens per second by model: [p10, p50, p90].

    A model with several providers gets their geometric mean, weighted by hours seen.
    """
    seen: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (source / LATENCY).open() as file:
        for row in csv.DictReader(file):
            seen[row["model"]].append(row)
    out = {}
    for model, rows in sorted(seen.items()):
        figures = {}
        for name in ("ttft_s", "tokens_per_s"):
            points = []
            for p in ("p10", "p50", "p90"):
                pairs = [
                    (float(r[f"{name}_{p}"]), int(r["hours"])) for r in rows if r[f"{name}_{p}"]
                ]
                pairs = [(value, hours) for value, hours in pairs if value > 0]
                total = sum(hours for _, hours in pairs)
                if total:
                    mean = math.exp(sum(math.log(v) * h for v, h in pairs) / total)
                    points.append(float(f"{mean:.4g}"))
            if len(points) == 3:
                figures[name] = points
        if len(figures) == 2:
            out[model] = figures
    return out


def write(path: Path, head: dict[str, Any], key: str, rows: list[str]) -> None:
    """One row a line, so that a change of the data can be read as a diff."""
    lines = [f'"{k}": {json.dumps(v)},' for k, v in head.items()]
    path.write_text("{\n" + "\n".join(lines) + f'\n"{key}": [\n' + ",\n".join(rows) + "\n]\n}\n")
    print(f"{path.relative_to(ROOT)}: {len(rows)} rows, {path.stat().st_size // 1024} KiB")


def main() -> None:
    source = Path(sys.argv[1])
    data = ROOT / "src" / "llmr" / "data"
    compact = {"separators": (",", ":"), "ensure_ascii": False}
    write(
        data / "catalogue.json",
        {
            "captured": "2026-11-10",
            "sources": [
                "OpenRouter GET /api/v1/models, 2026-08-18 (models that take no tools, and facts "
                "the newer source lacks)",
                "npm @earendil-works/pi-ai 1.5.2, 2026-11-10, MIT (derived from the same endpoint: "
                "prices, limits, modalities, efforts)",
            ],
            "citation": "Benchmark figures: Artificial Analysis (artificialanalysis.ai) and Design "
            "Arena (designarena.ai), as published in the OpenRouter Data API, CC BY 4.0.",
        },
        "data",
        [json.dumps(row, **compact) for row in catalogue(source)],  # type: ignore[arg-type]
    )
    write(
        data / "latency.json",
        {
            "captured": "2026-05-09/2026-06-12",
            "source": "MrFlynn/openrouter-model-metrics, MIT: hourly public model pages",
            "columns": "model, seconds to the first token, tokens per second; each p10, p50, p90",
        },
        "rows",
        [
            json.dumps([model, f["ttft_s"], f["tokens_per_s"]], **compact)  # type: ignore[arg-type]
            for model, f in latency(source).items()
        ],
    )


if __name__ == "__main__":
    main()
