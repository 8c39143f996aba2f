"""Prints the table of `docs/quality.md` on what feedback finds."""

import random

from llmr.core.quality.ability import logit, sigmoid
from llmr.core.quality.feedback import Feedback
from llmr.core.quality.kinds import KINDS

CODE, CHAT = KINDS.index("code"), KINDS.index("chat")
SIMULATIONS = 300
CASES = ((0.6, 0.75), (0.9, 0.8), (0.3, 0.5))


def taken_for(feedback: Feedback, model: str, kind: int, base: float) -> float:
    """The quality of a model on a kind, with what was said of it."""
    overall, by_kind = feedback.shift(model, 0.0) or (0.0, (0.0,) * len(KINDS))
    return sigmoid(logit(base) + overall + by_kind[kind])


def simulate(
    base: float, true: float, opinions: int, seed: int
) -> tuple[float, bool, float, float]:
    """(found on code, right one ahead, moved on chat, error of a model that is as expected)."""
    draw, feedback = random.Random(seed), Feedback()
    for _ in range(opinions):
        for model, chance in (("other", true), ("same", base)):
            feedback.add(model, [(CODE, 1.0)], float(draw.random() < chance), base, 0.0)
    other, same = (taken_for(feedback, model, CODE, base) for model in ("other", "same"))
    moved = taken_for(feedback, "other", CHAT, base) - base
    return other - base, (other > same) == (true > base), moved, abs(same - base)


def main() -> None:
    """Print the rows."""
    print(
        "| taken for, truly | opinions of each | found | the right one is ahead "
        "| other kinds moved by | error of the other model |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for base, true in CASES:
        for opinions in (20, 50, 100, 200):
            runs = [simulate(base, true, opinions, seed) for seed in range(SIMULATIONS)]
            found, ahead, moved, error = (
                sum(column) / SIMULATIONS for column in zip(*runs, strict=True)
            )
            print(
                f"| {base:.2f}, {true:.2f} | {opinions} | {found:+.3f} | {ahead:.0%} "
                f"| {moved:+.3f} | {error:.3f} |"
            )


if __name__ == "__main__":
    main()
