"""From what a model can and what a prompt asks to the probability of a good answer."""

import math
from operator import itemgetter

from llmr.core.quality.artefact import Form
from llmr.core.quality.curve import Curve
from llmr.core.quality.heads import Reading

LEAST, MOST = 0.005, 0.995
LEAST_SLOPE = 0.2  # however a prompt is read, more ability is never worth less than this


def logit(quality: float) -> float:
    """The log odds of a quality in 0..1, kept away from both ends."""
    share = min(max(quality, LEAST), MOST)
    return math.log(share / (1.0 - share))


def sigma(value: float) -> float:
    """The probability of these log odds."""
    return 1.0 / (1.0 + math.exp(-value)) if value > -700.0 else 0.0


def curve_of(reading: Reading, form: Form) -> Curve:
    """The curve on which the quality of an answer follows from what a model can.

    An item response curve: ability against the ease of this prompt relative to the usual one, with
    a slope for prompts on which ability counts for more. It rises with ability. What the prompt
    says is trusted in proportion to its coverage; where nothing is known the model's own quality is
    what is left.
    """
    trust = min(1.0, reading.coverage / form.full_coverage)
    ease = trust * form.ease * (reading.ease - form.usual_ease)
    slope = max(LEAST_SLOPE, 1.0 + trust * form.gain * (reading.gain - form.usual_gain))
    base = (1.0 - slope) * form.pivot + ease
    shares = sorted(enumerate(reading.kinds), key=itemgetter(1), reverse=True)[:3]
    one, two, three = ((kind, trust * share) for kind, share in shares)
    doubt = form.item_sd * (2.0 - trust)
    steep = slope * widened(trust * trust * form.usual_spread)
    return Curve(base, steep, (one, two, three), ease, reading.coverage, doubt)


def widened(variance: float) -> float:
    """The factor on a logit that keeps the mean of the curve, where ease varies by `variance`."""
    return math.sqrt(1.0 + math.pi / 8.0 * variance)
