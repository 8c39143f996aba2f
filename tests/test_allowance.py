from llmr.core.allowance import Allowance


def test_twenty_a_minute_then_as_the_minute_slides() -> None:
    allowance = Allowance()
    for second in range(19):
        assert allowance.take(float(second)) is None
    assert allowance.take(19.0) == 60.0
    assert allowance.take(60.5) == 61.0
    assert allowance.take(200.0) is None


def test_so_many_a_day() -> None:
    allowance = Allowance()
    allowance.day_limit = 3
    assert [allowance.take(t) for t in (0.0, 1000.0, 2000.0)] == [None, None, 86_400.0]
    assert allowance.take(86_500.0) == 87_400.0


def test_yesterday_is_forgotten() -> None:
    allowance = Allowance()
    allowance.day_limit = 2
    allowance.take(0.0)
    assert allowance.take(100_000.0) is None
