"""How much is measured: in full, or quickly, only to show that all parts work."""

from msgspec import Struct

SMALL, LARGE = 2_000, 100_000  # bytes of a request


class Settings(Struct, frozen=True):
    """The sizes of one measurement. They are written beside the figures they gave."""

    # deciding
    shapes: int = 2_000  # requests in the mix
    passes: int = 10  # times the mix is decided cold, and warm
    repeats: int = 20_000  # decisions of one repeated shape
    parses: int = 2_000
    samples: int = 300  # decisions right after new telemetry, and explained ones
    catalogues: tuple[int, int] = (400, 10_000)  # models that may be picked
    # requests: targets take turns, round after round
    rounds: int = 5
    round_s: float = 5.0  # for slow targets: a round sends nothing new after that
    warm_up: int = 500  # requests per target that do not count
    single: int = 2_000  # requests of a round on one connection
    beat_per_s: float = 5_000.0  # requests of many callers, for the router's own account of time
    busy: int = 12_000  # requests of a round on many connections
    connections: int = 64
    # streams
    stream_rounds: int = 2
    streams: int = 200
    many_streams: int = 1_000
    events: int = 100
    interval_ms: float = 20.0
    ramp_s: float = 1.0  # over which the streams of a round begin
    # the process
    in_flight: int = 4_000
    fill: int = 12_000  # requests before, so that what is kept of each is full
    hold_s: float = 1.0
    starts: int = 5  # times the router is started, and imported


FULL = Settings()
QUICK = Settings(
    shapes=100,
    passes=1,
    repeats=200,
    parses=50,
    samples=10,
    catalogues=(400, 1_000),
    rounds=1,
    round_s=2.0,
    warm_up=20,
    single=50,
    busy=200,
    connections=8,
    stream_rounds=1,
    streams=10,
    many_streams=20,
    events=10,
    interval_ms=5.0,
    ramp_s=0.05,
    in_flight=50,
    fill=200,
    hold_s=0.1,
    starts=1,
)
