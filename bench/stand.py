"""Everything a measurement of requests needs, started: upstream, router, nginx, peers."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import load, payload
from bench.children import Child, cores
from bench.compiler import Programs, compiled
from bench.load import Compared, Job, Request
from bench.payload import Target
from bench.servers import READING_CONFIG, start_nginx, start_router, start_upstream
from bench.servers import router as router_with
from bench.settings import Settings

DIRECT, ROUTER, NGINX = "direct", "router", "nginx"
READING = "reading"  # the router that reads every prompt

Starter = Callable[[int, Path], tuple[Child, Target]]  # from the upstream's port, in a folder


class Stand:
    """What stands while it is measured.

    `sent` counts the requests the router was given, `hits` those it has to answer from its cache.
    """

    def __init__(
        self,
        settings: Settings,
        programs: Programs,
        folder: Path,
        targets: dict[str, Target],
        servers: dict[str, Child],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.targets = targets
        self.servers = servers
        self.sent = self.hits = 0
        self._programs = programs

    @property
    def router(self) -> Child:
        return self.servers[ROUTER]

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(name for name in self.targets if name not in (DIRECT, ROUTER, NGINX))

    def measure(
        self,
        job: Job,
        requests: Callable[[Target], Sequence[Request]],
        leave_out: Sequence[str] = (),
    ) -> Compared:
        """A job over the targets, the peers among them unless they are left out."""
        targets = {k: v for k, v in self.targets.items() if k not in leave_out}
        found = load.run(self._programs.load, job, requests, targets, self.folder, cores()[1])
        self.sent += found[ROUTER].sent if ROUTER in found else 0
        return found

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds of every server so far."""
        return {name: child.cpu_s() for name, child in self.servers.items()}


def same(size: int, stream: bool = False, **more: object) -> Callable[[Target], list[Request]]:
    """One and the same request again and again."""
    return lambda target: [(payload.request(size, stream, target.model, **more), stream)]


@contextmanager
def workshop() -> Iterator[tuple[Programs, Path]]:
    """The programs in C, and a folder for whatever is started."""
    with tempfile.TemporaryDirectory(prefix="llmr-bench-") as name:
        folder = Path(name)
        yield compiled(folder), folder


@contextmanager
def standing(
    settings: Settings,
    programs: Programs,
    folder: Path,
    peers: Mapping[str, Starter],
) -> Iterator[Stand]:
    """Start everything, and end everything."""
    with ExitStack() as stack:
        upstream, port = start_upstream(
            programs,
            folder,
            events=settings.events,
            interval_ms=settings.interval_ms,
            on=cores()[1],
        )
        stack.enter_context(upstream)
        router, target = start_router(port, folder)
        stack.enter_context(router)
        targets, servers = {DIRECT: Target(port), ROUTER: target}, {ROUTER: router}
        if (nginx := start_nginx(port, folder)) is not None:
            servers[NGINX], targets[NGINX] = nginx
            stack.enter_context(nginx[0])
        home = folder / READING
        reading, target = router_with(READING_CONFIG, port=port, folder=home, more="")
        servers[READING], targets[READING] = reading, target
        stack.enter_context(reading)
        for name, start in peers.items():
            servers[name], targets[name] = start(port, folder)
            stack.enter_context(servers[name])
        yield Stand(settings, programs, folder, targets, servers)
