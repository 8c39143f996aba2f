"""How much is measured: in full, or quickly, only to show that all parts work."""

from msgspec import Struct

SMALL, LARGE = 2_000, 100_000  # bytes of a request


class Settings(Struct, frozen=True):
    """The sizes of one measurement. They are written beside the figures they gave."""

    shapes: int = 2_000  # requests in the mix of decisions
    passes: int = 10  # times the mix is decided cold, and warm
    repeats: int = 20_000  # decisions of one repeated shape
    parses: int = 2_000
    samples: int = 300  # decisions right after new telemetry, and explained ones
    synthetic_models: int = 10_000
    rounds: int = 5  # targets take turns this often
    warm_up: int = 500  # requests per target that do not count
    single: int = 1_000  # requests of a round on one connection
    busy: int = 6_000  # requests of a round on many connections
    connections: tuple[int, ...] = (16, 64)
    stream_rounds: int = 2
    streams: int = 200
    events: int = 100
    interval_ms: float = 20.0
    ramp_s: float = 1.0  # over which the streams of a round begin
    starts: int = 5  # times the router is started, and imported


FULL = Settings()
QUICK = Settings(
    shapes=100,
    passes=1,
    repeats=200,
    parses=50,
    samples=10,
    synthetic_models=1_000,
    rounds=1,
    warm_up=20,
    single=50,
    busy=100,
    connections=(8,),
    stream_rounds=1,
    streams=10,
    events=10,
    interval_ms=5.0,
    ramp_s=0.05,
    starts=1,
)
