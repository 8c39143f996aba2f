"""Timers that many share."""

import asyncio

from llmr.watch import Watch


def test_a_callback_that_fails_holds_up_nobody_behind_it() -> None:
    async def main() -> tuple[list[int], int]:
        loop, called, told = asyncio.get_running_loop(), list[int](), 0

        def failing() -> None:
            called.append(1)
            raise RuntimeError("ours")

        def tell(*_: object) -> None:
            nonlocal told
            told += 1

        loop.set_exception_handler(tell)
        watch, now = Watch(), loop.time()
        watch.after(0.02, now, failing)
        watch.after(0.02, now, lambda: called.append(2))
        watch.after(0.02, now, lambda: called.append(3)).cancel()
        await asyncio.sleep(0.1)
        return called, told

    assert asyncio.run(main()) == ([1, 2], 1)
