"""`python -m training`: fits everything and writes the artefact."""

from pathlib import Path

import msgspec

from llmr.core.quality.artefact import Form
from training.data import outcomes, own_prompts
from training.fit import fit

TARGET = Path(__file__).parent.parent / "src" / "llmr" / "data" / "quality.msgpack"
FORM = Form(0.75, 0.35, 0.5, 0.5, 1.0, 0.0, 0.0, 0.5)


def main() -> None:
    """Train and write."""
    artefact = fit([*outcomes(), *own_prompts()], FORM)
    raw = msgspec.msgpack.encode(artefact)
    TARGET.write_bytes(raw)
    print(f"{TARGET.name}: {len(raw)} bytes")


if __name__ == "__main__":
    main()
