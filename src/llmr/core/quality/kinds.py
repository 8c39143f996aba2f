"""The kinds of task the router tells apart."""

KINDS = (
    "chat",
    "writing",
    "knowledge",
    "science",
    "math",
    "logic",
    "code",
    "agent",
    "extraction",
    "translation",
)
"""Names of the kinds, in the order of every vector over kinds."""
