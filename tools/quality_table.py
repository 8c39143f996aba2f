"""Writes the held-out figures into docs/quality.md: `python tools/quality_table.py`."""

from pathlib import Path

from llmr.evaluation import ROWS, WHOLE, Measure, held_out

DOCUMENT = Path(__file__).parent.parent / "docs" / "quality.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
HEAD = (
    "| set | measure | rows left out, a fifth at a time | the whole set left out | beside (whole) |"
)


def table() -> str:
    """The figures of every set as one table."""
    lines = [HEAD, "|---|---|---:|---:|---|"]
    for name, columns in held_out().items():
        some = {one.name: one for one in columns[ROWS]}
        lines += [_line(name, some.get(one.name), one) for one in columns[WHOLE]]
    return "\n".join(lines) + "\n"


def _line(name: str, some: Measure | None, whole: Measure) -> str:
    beside = ", ".join(f"{what} {_number(whole.name, v)}" for what, v in whole.beside.items())
    return (
        f"| {name} | {whole.name} | {_value(some) if some else ''} | {_value(whole)} | {beside} |"
    )


def _value(one: Measure) -> str:
    text = _number(one.name, one.value)
    if one.low is None or one.high is None:
        return text
    return f"{text} [{_number(one.name, one.low)}, {_number(one.name, one.high)}]"


def _number(name: str, value: float) -> str:
    return f"{value:.1f}" if name.endswith("%") else f"{value:.3f}"


def main() -> None:
    """Put the table where the marks are."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}{table()}{END}{after}")


if __name__ == "__main__":
    main()
