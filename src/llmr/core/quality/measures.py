"""What each kind of task and each kind of board draws on, as a table.

A model's vector has a general ability and what it adds to it (or lacks) in code, as an agent, in
mathematics and in conversation. A kind or a board draws on the general ability and on a share of
one or two of these. `NOISE` is how far a board's equated scores stray from what it measures, in
logits: little for composite indices, more for preferences and for figures that makers report
themselves. Set by hand; `tools/boards.py` shows what they give.
"""

from llmr.core.quality.gaussian import Loading
from llmr.core.quality.kinds import KINDS

DIMENSIONS = ("general", "code", "agent", "math", "talk")
GENERAL, CODE, AGENT, MATH, TALK = range(len(DIMENSIONS))
_OF_KIND: dict[str, Loading] = {
    "chat": ((TALK, 1.0),),
    "writing": ((TALK, 1.0),),
    "translation": ((TALK, 0.5),),
    "science": ((MATH, 0.5),),
    "math": ((MATH, 1.0),),
    "logic": ((MATH, 0.7),),
    "code": ((CODE, 1.0),),
    "agent": ((AGENT, 1.0),),
}
ADDED: tuple[Loading, ...] = tuple(_OF_KIND.get(kind, ()) for kind in KINDS)

MEASURES: dict[str, Loading] = {
    "intelligence": ((GENERAL, 1.0),),
    "coding": ((GENERAL, 1.0), (CODE, 1.0)),
    "code": ((GENERAL, 1.0), (CODE, 1.0)),
    "agentic": ((GENERAL, 1.0), (AGENT, 1.0)),
    "agent": ((GENERAL, 1.0), (AGENT, 1.0)),
    "repository": ((GENERAL, 1.0), (CODE, 0.5), (AGENT, 0.5)),
    "frontend": ((GENERAL, 1.0), (CODE, 0.7)),
    "apps": ((GENERAL, 1.0), (AGENT, 0.7)),
    "chat": ((GENERAL, 1.0), (TALK, 1.0)),
    "math": ((GENERAL, 1.0), (MATH, 1.0)),
    "logic": ((GENERAL, 1.0), (MATH, 0.7)),
}
NOISE: dict[str, float] = {
    "intelligence": 0.12,
    "coding": 0.25,
    "agentic": 0.25,
    "code": 0.45,
    "agent": 0.45,
    "repository": 0.5,
    "frontend": 0.5,
    "apps": 0.6,
    "chat": 0.4,
    "math": 0.4,
    "logic": 0.5,
}
# Deviations of the four specialities, and how far code and agent go together.
SPECIAL_SD = (0.35, 0.4, 0.35, 0.4)
CODE_WITH_AGENT = 0.5
