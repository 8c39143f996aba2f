"""From text to features, in one pass: the ids of rows in the tables of the artefact.

Everything that a harmless rewording changes is folded away first: case, spacing, the digits of
numbers. What is left are words, pairs of neighbours, and a few counts in steps.
"""

MOST_WORDS = 150  # of the head of a long text
MOST_LAST_WORDS = 50  # of its tail
MOST_PAIRS = 80
STEM = 6  # leading bytes that stand for a word nobody has seen

_table = bytearray(c if c >= 128 or chr(c).isalnum() else 32 for c in bytes(range(256)).lower())
for _digit in b"0123456789":
    _table[_digit] = ord("0")
FOLD = bytes(_table)
"""Byte to byte: letters in lower case, every digit a 0, all else a space."""

OPTIONS = frozenset(bytes([letter]) for letter in b"bcdefghij")
SIZES = (72, 60, 16, 12, 10, 8, 8, 10, 4, 8, 8, 10, 2, 2, 6)
"""How many steps each count has, in the order of `steps`."""
OPTIONS_STEP = 11
"""Which of them counts the options of a question; 0 where it has none."""


def words(raw: bytes) -> list[bytes]:
    """The words of a text in UTF-8, folded, in order, without the middle of a long one."""
    found = raw.translate(FOLD).split()
    if len(found) > MOST_WORDS + MOST_LAST_WORDS:
        found = found[:MOST_WORDS] + found[-MOST_LAST_WORDS:]
    return found


def steps(raw: bytes, found: list[bytes], distinct: set[bytes], foreign: int) -> tuple[int, ...]:
    """The counts of a text, each as a step below its entry of `SIZES`.

    Length and digits say another thing in a question with options, in one with figures or code, and
    in prose: they have steps of their own in each.

    Args:
        raw: the text in UTF-8.
        found: its words.
        distinct: the set of its words.
        foreign: bytes of the text beyond one a character.
    """
    count = raw.count
    many = len(found) or 1
    joined = b"".join(found)
    letters = len(joined) or 1
    digits = joined.count(b"0")
    options = len(OPTIONS & distinct)
    slashes, equals, brackets = count(b"\\"), count(b"="), count(b"(")
    if options > 2:
        form = 0
    else:
        options = 0
        form = 1 if digits > 1 or slashes or equals or brackets else 2
    return (
        24 * form + min((many * many * many).bit_length(), 23),
        20 * form + min((digits * digits).bit_length(), 19),
        min(2 * letters // many, 15),
        min(16 * digits // letters, 11),
        min((slashes * slashes).bit_length(), 9),
        min(count(b"$").bit_length(), 7),
        min(equals.bit_length(), 7),
        min((brackets * brackets).bit_length(), 9),
        min(count(b"?"), 3),
        min(count(b'"').bit_length(), 7),
        min(20 * count(b",") // many, 7),
        options,
        1 if b"```" in raw else 0,
        1 if b"___" in raw else 0,
        min(foreign.bit_length(), 5),
    )
