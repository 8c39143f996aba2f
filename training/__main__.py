"""`python -m training`: fits everything and writes the artefact; `evaluate` holds some out."""

import sys
from pathlib import Path

import msgspec

from llmr.core.quality.artefact import Form
from training import evaluate
from training.data import outcomes, own_prompts
from training.fit import fit

TARGET = Path(__file__).parent.parent / "src" / "llmr" / "data" / "quality.msgpack"
FORM = Form(0.65, 0.2, 0.5, 0.5, 1.0, 0.0, 0.0, 0.5)


def main() -> None:
    """Train and write."""
    artefact = fit([*outcomes(), *own_prompts()], FORM)
    raw = msgspec.msgpack.encode(artefact)
    TARGET.write_bytes(raw)
    print(f"{TARGET.name}: {len(raw)} bytes")


if __name__ == "__main__":
    if sys.argv[1:] == ["evaluate"]:
        evaluate.run(FORM)
    else:
        main()
