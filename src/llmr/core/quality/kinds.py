"""The kinds of task that quality is told apart by."""

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
