"""What it costs to stay, to choose anew every turn, and to use one model throughout.

Conversations grow turn by turn; a provider reads what it has seen within ten minutes at its price
for cached input. Each turn asks for another kind of thing, at another difficulty.
"""

import random
import statistics
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from llmr import bundle
from llmr.core.board import Board
from llmr.core.body import Body
from llmr.core.decide import decide
from llmr.core.learner import Learner
from llmr.core.look import Now, Policy
from llmr.core.quality.curve import Curve
from llmr.core.quality.kinds import KINDS
from llmr.core.request import Request, parse
from llmr.sessions import FORGET_S, Sessions

CONVERSATIONS, TURNS = 300, (4, 12)
FIRST_TOKENS, TURN_TOKENS, ANSWER_TOKENS = (500, 8000), (50, 800), 300
PAUSE_S = (5.0, 240.0)


def asked(rng: random.Random, tokens: int, priority: str) -> Request:
    """One turn: a prompt of so many tokens in all, of some kind and difficulty."""
    body = {"messages": [{"role": "user", "content": "word" * tokens}], "stream": True}
    body["priority"] = priority
    one, two, three = rng.sample(range(len(KINDS)), 3)
    curve = Curve(rng.gauss(0.3, 1.0), 1.0, ((one, 0.7), (two, 0.2), (three, 0.1)))
    read = parse(Body(msgspec.json.encode(body)), {}, model_optional=True)
    return replace(read, curve=curve)


def play(how: str, priority: str, seed: int) -> tuple[float, float, float]:
    """(USD a turn, mean quality, changes of model a conversation). `how`: sticky, per turn, or one
    model for each conversation, the one that is best for its first turn."""
    rng, rows = random.Random(seed), bundle.catalogue()
    known = Learner(lambda: 0.5).publish(rows, 0.0)
    policy = Policy(frozenset(("openrouter",)))
    usd, quality, moves, turns = 0.0, [], 0, 0
    board = Board()
    for _ in range(CONVERSATIONS):
        sessions, now, last = Sessions(), 0.0, -1
        caches: dict[int, tuple[int, float]] = {}
        tokens = rng.randint(*FIRST_TOKENS)
        for turn in range(rng.randint(*TURNS)):
            request = asked(rng, tokens, priority)
            stay = sessions.find(b"x", now) if how == "sticky" else None
            moment = Now(now, 1.8e9 + now)
            index = decide(request, rows, known, policy, moment, board, stay).chain[0]
            if how == "one model" and turn:
                index = last
            model = rows.models[index]
            base = model.prices.base
            seen, at = caches.get(index, (0, -1e9))
            cached = seen if now - at <= FORGET_S and seen >= 1024 else 0
            cached = cached if "input_cache_read" in base else 0
            usd += (tokens - cached) * float(base["prompt"]) + ANSWER_TOKENS * float(
                base["completion"]
            )
            usd += cached * float(base.get("input_cache_read", 0))
            assert request.curve is not None
            quality.append(request.curve.quality(model.skill))
            moves += index != last and turn > 0
            last, turns = index, turns + 1
            caches[index] = tokens + ANSWER_TOKENS, now
            sessions.note(b"x", model, tokens + ANSWER_TOKENS, now)
            tokens += ANSWER_TOKENS + rng.randint(*TURN_TOKENS)
            now += rng.uniform(*PAUSE_S)
    return usd / turns, statistics.fmean(quality), moves / CONVERSATIONS


def main(ways: Sequence[str] = ("sticky", "per turn", "one model")) -> None:
    """Print the table."""
    print(f"{'':24}{'USD / 1,000 turns':>20}{'quality':>10}{'moves':>8}")
    for priority in ("balanced", "quality"):
        for how in ways:
            found = [play(how, priority, seed) for seed in range(3)]
            usd, quality, moves = (statistics.fmean(column) for column in zip(*found, strict=True))
            print(f"{priority + ', ' + how:24}{usd * 1000:20.3f}{quality:10.3f}{moves:8.2f}")


if __name__ == "__main__":
    main()
