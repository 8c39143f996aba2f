"""Low-Latency Model Router: picks the best model for every chat request.

>>> from llmr import Router
>>> async with Router() as router:
...     answer = await router.chat(messages=[{"role": "user", "content": "Hi"}], priority="cost")
...     print(answer.text)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmr.errors import ApiError, ConfigError, LlmrError
    from llmr.router import Chunk, Decided, Result, Router

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "Chunk",
    "ConfigError",
    "Decided",
    "LlmrError",
    "Result",
    "Router",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # Importing llmr costs nothing; the first use of a name imports what is behind it.
    if name in ("ApiError", "ConfigError", "LlmrError"):
        from llmr import errors

        return getattr(errors, name)
    if name in ("Chunk", "Decided", "Result", "Router"):
        from llmr import router

        return getattr(router, name)
    raise AttributeError(f"module 'llmr' has no attribute {name!r}")
