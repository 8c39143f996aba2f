"""From what a model can and what a prompt asks to the probability of a good answer."""

import math

import msgspec

from llmr.core.quality.artefact import Form
from llmr.core.quality.heads import Reading

LEAST, MOST = 0.005, 0.995
LEAST_SLOPE = 0.2  # however a prompt is read, more ability is never worth less than this


class Ability(msgspec.Struct, frozen=True, gc=False):
    """What a model can do, in logits.

    Attributes:
        overall: logit of the mean quality of its answers.
        by_kind: what is added for each of `KINDS`; empty where nothing is known.
        sd: how unsure `overall` is.
    """

    overall: float
    by_kind: tuple[float, ...] = ()
    sd: float = 0.0


def logit(quality: float) -> float:
    """The log odds of a quality in 0..1, kept away from both ends."""
    share = min(max(quality, LEAST), MOST)
    return math.log(share / (1.0 - share))


def sigma(value: float) -> float:
    """The probability of these log odds."""
    return 1.0 / (1.0 + math.exp(-value)) if value > -700.0 else 0.0


def ability_of(quality: float, sd: float = 0.0) -> Ability:
    """The ability of a model that one overall score in 0..1 is known of, with its sd in quality."""
    share = min(max(quality, LEAST), MOST)
    return Ability(logit(share), (), sd / (share * (1.0 - share)))


def probability(ability: Ability, reading: Reading, form: Form) -> tuple[float, float]:
    """(probability that the answer is good, its standard deviation), both in 0..1.

    An item response curve: ability against the ease of this prompt relative to the usual one, with a
    slope for prompts on which ability counts for more. It rises with `overall`. What the prompt
    says is trusted in proportion to its coverage; where nothing is known the ability's own quality is
    what is left.
    """
    trust = min(1.0, reading.coverage / form.full_coverage)
    ease = trust * form.ease * (reading.ease - form.usual_ease)
    slope = max(LEAST_SLOPE, 1.0 + trust * form.gain * (reading.gain - form.usual_gain))
    overall = ability.overall * widened(form.usual_spread)
    value = form.pivot + slope * (overall - form.pivot) + ease
    if ability.by_kind:
        value += math.fsum(map(float.__mul__, reading.kinds, ability.by_kind))
    quality = sigma(value)
    doubt = math.hypot(ability.sd, form.item_sd * (2.0 - trust))
    return quality, min(0.5, quality * (1.0 - quality) * doubt)


def widened(variance: float) -> float:
    """The factor on a logit that keeps the mean of the curve, where ease varies by `variance`."""
    return math.sqrt(1.0 + math.pi / 8.0 * variance)


