"""What a request costs at worst on a row, so that a ceiling in USD can be kept.

Only what is known beforehand counts: the prompt at the size that one in twenty exceeds, at the
dearest prices that may apply, and every token of an answer that the row may write.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct

from llmr.core import capability
from llmr.core.catalogue import Model
from llmr.core.lengths import THOUGHT_LATE
from llmr.core.price import Prices
from llmr.core.request import Request
from llmr.core.scoring import thinking

IMAGE_LATE = 2.0  # the tokens of a dear image over those that are estimated for it
UNCOUNTED = capability.AUDIO | capability.FILE | capability.VIDEO  # parts nobody here can measure
LEAST_TOKENS = 16  # some providers take no smaller `max_tokens`

Moment = tuple[int, int]  # UTC time (HHMM) and weekday, Monday = 0


class Worst(Struct, frozen=True):
    """The bound of one send: `before` USD for what precedes the answer, `per_token` for each token.

    `wanted` is how many tokens an answer may well need, `most` how many it can have at all; both
    count every choice. `bounded`: the row keeps to a smaller `max_tokens`.
    """

    before: Decimal
    per_token: Decimal
    wanted: int
    most: int | None
    bounded: bool

    @property
    def least(self) -> Decimal | None:
        """The smallest ceiling under which this row may be sent to; None where there is none."""
        tokens = self.wanted if self.bounded else self.most
        if tokens is None:
            return None if self.per_token else self.before
        return self.before + self.per_token * tokens

    def tokens(self, usd: Decimal) -> int | None:
        """How many tokens an answer may have for `usd`; None where more than it can have."""
        if not self.per_token:
            return None
        count = int((usd - self.before) / self.per_token)
        return None if self.most is not None and count >= self.most else count

    def cost(self, tokens: int | None) -> Decimal:
        """What a send costs at worst whose answer has at most so many tokens."""
        most = tokens if tokens is not None else self.most
        return self.before + self.per_token * (most or 0)


def prompt_tokens(model: Model, request: Request, more: int = 0) -> int | None:
    """Tokens of the prompt that one in twenty exceeds; None where nothing bounds them.

    `more` tokens come on top of those of the request. A part that cannot be measured here may fill
    the window.
    """
    if request.needs & UNCOUNTED:
        return model.context_length
    late = model.lengths.prompt_late
    if request.needs & capability.VISION:
        late = max(late, IMAGE_LATE)
    return int((request.prompt_tokens + more) * model.lengths.prompt * late) + 1


def worst(model: Model, request: Request, moments: Iterable[Moment], more: int = 0) -> Worst | None:
    """The bound of `request` on `model`, None where none can be given. `more`: prompt tokens added.

    `moments` are those at which the answer may begin and end: prices may change between.
    """
    size = prompt_tokens(model, request, more)
    if not model.prices.known or size is None:
        return None
    rates = _dearest(model.prices, (request.prompt_tokens, size), moments)
    paid = [rates["prompt"]]
    if request.needs & capability.AUDIO:
        paid.append(rates.get("audio", paid[0]))
    if request.writes_cache:
        paid += [
            rates[name] for name in ("input_cache_write", "input_cache_write_1h") if name in rates
        ]
    each = [rates["completion"]]
    for need, field in (
        (capability.AUDIO_OUT, "audio_output"),
        (capability.IMAGE_OUT, "image_output"),
    ):
        if request.needs & need:
            each.append(rates.get(field, each[0]))
    before = max(paid) * size + rates.get("request", Decimal(0))
    return Worst(
        before,
        max(each),
        _wanted(model, request),
        _most(model, request),
        bool(model.supports & capability.MAX_TOKENS),
    )


def _dearest(
    prices: Prices, sizes: Iterable[int], moments: Iterable[Moment]
) -> Mapping[str, Decimal]:
    """The highest price of each field at any of the sizes and moments."""
    if not prices.overrides:
        return prices.base
    found: dict[str, Decimal] = {}
    for size in sizes:
        for hhmm, day in moments:
            for name, usd in prices.at(size, hhmm, day).items():
                found[name] = max(found.get(name, usd), usd)
    return found


def _most(model: Model, request: Request) -> int | None:
    """Tokens that an answer can have, all choices together."""
    asked = request.max_tokens if model.supports & capability.MAX_TOKENS else None
    known = [n for n in (asked, model.max_output, model.context_length) if n is not None]
    return min(known) * request.choices if known else None


def _wanted(model: Model, request: Request) -> int:
    """Tokens that nineteen answers in twenty keep to, all choices together."""
    most = _most(model, request)
    lengths = model.lengths
    thought, _ = thinking(model, request.effort, float("inf"))
    late = request.output_tokens * lengths.answer * lengths.answer_late
    late += thought * THOUGHT_LATE * request.choices
    wanted = max(int(late), LEAST_TOKENS * request.choices)
    return wanted if most is None else min(wanted, most)
