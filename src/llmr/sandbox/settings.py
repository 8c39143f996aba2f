"""What can be changed while the sandbox runs."""

from typing import Annotated, Any

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds unless named otherwise.

    `speed` multiplies every simulated latency: the first token, the pace of tokens, also of the
    `fb-` models; 0 means no waiting. The seconds written in a fault or a scenario are not scaled.
    """

    speed: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    seed: int = 0
    require_key: str | None = None
    first_token_s: float | None = None
    """Replaces the recorded first-token times of all ordinary models."""
    tokens_per_s: float | None = None
    """Replaces the recorded pace of all ordinary models."""
    report_cost: bool = True
    """Whether usage says what an answer costs, as OpenRouter's does and most others' does not."""
    comment_every_s: float = 0.5
    """Between the keep-alive comments of a stream that waits for its first token."""

    fb_first_token_s: float = 0.05
    fb_token_s: float = 0.015
    retry_after_s: float = 2.0
    silent_s: float = 120.0
    slow_first_token_s: float = 20.0
    cut_after_tokens: int = 40
    stall_after_tokens: int = 20
    stall_s: float = 30.0
    malformed_at_token: int = 10
    flap_s: float = 60.0

    def changed(self, patch: dict[str, Any]) -> "Settings":
        """These settings with some replaced. Raises `msgspec.ValidationError`."""
        return msgspec.convert({**msgspec.structs.asdict(self), **patch}, Settings)
