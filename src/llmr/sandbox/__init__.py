"""A simulated OpenRouter provider in its own process, reached over a real socket.

It answers with a fixed text that says it is simulated, paced by recorded latencies, and produces
faults on demand: by model name (`fb-…`), or by rules set on its control port.
"""

from llmr.sandbox.text import CANONICAL_ANSWER

__all__ = ["CANONICAL_ANSWER"]
