"""`make simulate`: regret against an oracle, beside other ways to choose, over many seeds."""

import argparse
import math
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import msgspec

from llmr import bundle
from llmr.core.body import Body
from llmr.core.request import Request, parse
from llmr.core.scoring import COST_FLOOR_USD, COST_SPAN, LATENCY_FLOOR_S, LATENCY_SPAN, STREAM_TAIL
from simulation.policies import ATTEMPTS, NAMES, chooser
from simulation.world import DOWN_ANSWER_S, World

EARLY = 100
BARS = 40


def requests() -> list[Request]:
    """A few everyday requests under each priority."""
    found = []
    for priority in ("speed", "balanced", "cost", "quality"):
        for words in (20, 400):
            said = [{"role": "user", "content": "word " * words}]
            body = {"messages": said, "stream": True, "priority": priority}
            found.append(parse(Body(msgspec.json.encode(body)), {}, model_optional=True))
    return found


def worth(world: World, request: Request, index: int, lost_s: float) -> float:
    """What an answer of a model is worth now, on the mean, where `lost_s` were lost before it."""
    model = world.rows.models[index]
    first, rate = world.takes(index)
    felt = lost_s + first + STREAM_TAIL * request.output_tokens * rate
    weights, prices = request.weights, model.prices.base
    score = weights[0] * (1.0 - math.log(felt / LATENCY_FLOOR_S) / LATENCY_SPAN)
    usd = 1.0
    if model.prices.known:
        usd = request.prompt_tokens * float(prices["prompt"]) * model.lengths.prompt
        usd += request.output_tokens * float(prices["completion"])
        usd += float(prices.get("request", 0))
    score += weights[1] * (1.0 - math.log(max(usd / COST_FLOOR_USD, 1.0)) / COST_SPAN)
    return score + weights[2] * model.believed


def play(name: str, seed: int, count: int, gap_s: float) -> tuple[list[float], list[float], float]:
    """(regret of each request, what the oracle had of each, share of tries that explored)."""
    world, rng = World(bundle.catalogue(), seed), random.Random(seed)
    chosen, asked = chooser(name, seed), requests()
    regrets, best_of_all = [], []
    for _ in range(count):
        world.advance(rng.expovariate(1.0 / gap_s))
        request = rng.choice(asked)
        well = [i for i in world.rows.routable if not world.down(i)]
        best = max(worth(world, request, index, 0.0) for index in well)
        lost, got = 0.0, 0.0
        for index in chosen.choose(request, world.rows, world.now)[:ATTEMPTS]:
            if world.down(index):
                chosen.seen(world.rows, index, None, world.now)
                lost += DOWN_ANSWER_S
                continue
            got = worth(world, request, index, lost)
            chosen.seen(world.rows, index, world.answer(index), world.now)
            break
        regrets.append(best - got)
        best_of_all.append(best)
    explorer = getattr(chosen, "explorer", None)
    tries = explorer.tries / count if explorer is not None else 0.0
    return regrets, best_of_all, tries


def mean_of(values: Sequence[float]) -> str:
    """A mean with the interval of 95 % over seeds."""
    middle = statistics.fmean(values)
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{middle:6.2f} ± {half:4.2f}"


def main() -> None:
    """Print the table and its chart."""
    parser = argparse.ArgumentParser(description="Regret of ways to choose in a simulated world.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--gap", type=float, default=2.0, help="seconds between two requests")
    args = parser.parse_args()
    begun = time.monotonic()
    models = len(bundle.catalogue().routable)
    print(f"{models} models, {args.seeds} seeds, {args.requests} requests,")
    print(f"one in {args.gap:g} s; regret in percent of what the oracle has\n")
    print(f"{'':24}{'first ' + str(EARLY):>16}{'later':>16}   tries")
    later: dict[str, float] = {}
    with ProcessPoolExecutor(2) as pool:
        for name in NAMES:
            jobs = [
                pool.submit(play, name, seed, args.requests, args.gap) for seed in range(args.seeds)
            ]
            played = [job.result() for job in jobs]
            first = [100 * sum(r[:EARLY]) / sum(b[:EARLY]) for r, b, _ in played]
            rest = [100 * sum(r[EARLY:]) / sum(b[EARLY:]) for r, b, _ in played]
            later[name] = statistics.fmean(rest)
            tries = statistics.fmean(one[2] for one in played)
            print(f"{name:24}{mean_of(first):>16}{mean_of(rest):>16}   {100 * tries:.1f} %")
    print()
    most = max(later.values())
    for name, regret in later.items():
        print(f"{name:24}{'█' * max(1, round(BARS * regret / most))} {regret:.2f}")
    print(f"\n{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
