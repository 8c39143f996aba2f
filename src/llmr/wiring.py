"""From the configuration to the client of an upstream, with the credentials of its host."""

from llmr import __version__
from llmr.config import UpstreamConfig
from llmr.errors import ConfigError
from llmr.outbox import Outbox
from llmr.upstreams.http import Origin


def origin(name: str, config: UpstreamConfig, outbox: Outbox) -> Origin:
    headers = [(b"user-agent", f"llmr/{__version__}".encode())]
    if config.api_key:
        try:
            secret = config.api_key.encode("ascii")
        except UnicodeEncodeError:
            raise ConfigError(f"upstreams.{name}.api_key has characters no key has.") from None
        if any(byte < 33 for byte in secret):
            raise ConfigError(f"upstreams.{name}.api_key has spaces or line breaks in it.")
        headers.append((b"authorization", b"Bearer " + secret))
    assert config.base_url is not None
    if name == "openrouter":
        headers += [(b"http-referer", b"http://localhost/llmr"), (b"x-openrouter-title", b"llmr")]
    return Origin(name, config.base_url, tuple(headers), outbox=outbox)
