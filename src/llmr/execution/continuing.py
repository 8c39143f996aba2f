"""Who may go on with an answer that broke off, and how."""

from collections.abc import Iterator, Sequence

from llmr.core import capability
from llmr.core.decide import Decision


def continuations(
    decision: Decision, chain: Sequence[int], index: int, setting: str, some: bool
) -> Iterator[tuple[int, bool]]:
    """(target, whether by prefill) in the order in which they are worth trying.

    `index` broke off, `chain` is left; `setting` is that of `limits.continue`; `some`: part of the
    answer was delivered.
    """
    models = decision.snapshot.models
    same = [i for i in decision.snapshot.by_id[models[index].id] if i != index]
    others = [
        i
        for i in dict.fromkeys([*same, *chain])
        if models[i].upstream in decision.policy.usable
        and not decision.request.needs & capability.BINDING & ~models[i].supports
    ]
    takers = [i for i in [*others, index] if some and models[i].supports & capability.PREFILL]
    if setting == "prefill":
        return iter([(i, True) for i in takers[:1]])
    again = [*others, index]
    if takers:
        return iter([(takers[0], True), (takers[0], False)])
    return iter([(i, False) for i in again[:2]])
