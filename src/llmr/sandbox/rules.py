"""Faults set on the control port: per model a queue, of which the first live rule wins."""

import time

import msgspec

from llmr.sandbox.faults import AnyFault, Fault

ANY_MODEL = "*"


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /faults`: a fault for a model, N times and/or for some seconds."""

    fault: AnyFault
    model: str = ANY_MODEL
    times: int | None = None
    until_s: float | None = None


class _Rule(msgspec.Struct):
    fault: Fault
    left: int | None
    until_t: float | None

    def is_live(self) -> bool:
        in_time = self.until_t is None or time.monotonic() < self.until_t
        return in_time and (self.left is None or self.left > 0)


class Rules:
    """The queues. A rule used up or expired is dropped."""

    def __init__(self) -> None:
        self._queues: dict[str, list[_Rule]] = {}

    def add(self, order: Order) -> None:
        until_t = None if order.until_s is None else time.monotonic() + order.until_s
        rule = _Rule(order.fault, order.times, until_t)
        self._queues.setdefault(order.model, []).append(rule)

    def take(self, *names: str) -> Fault | None:
        """The fault for the first of `names` that has a live rule; counts as one use of it."""
        for name in names:
            queue = [rule for rule in self._queues.get(name, ()) if rule.is_live()]
            if not queue:
                self._queues.pop(name, None)
                continue
            self._queues[name] = queue
            if queue[0].left is not None:
                queue[0].left -= 1
            return queue[0].fault
        return None

    def clear(self, model: str | None = None) -> None:
        """Drop all rules, or those of one name."""
        if model is None:
            self._queues.clear()
        else:
            self._queues.pop(model, None)
