"""Text for people: control characters become escapes, and characters that a stream lacks become ASCII."""

from __future__ import annotations

import codecs
import re

# A message may go on in an indented line; every other line break comes from a name or a cell.
_LINE_BREAK = re.compile(r"\n(?!  )")
# Characters of our own messages in ASCII, for streams that don't have them.
_SPELLINGS = {
    "→": "->",
    "−": "-",
    "α": "alpha",
    "Δ": "d",
    "Σ": "sum",
    "·": "*",
    "×": "x",
    "…": "...",
    "–": "-",
}
_SPELLINGS |= {"≤": "<=", "≥": ">=", "±": "+-", "└": "+", "─": "-", "│": "|", "┤": "+"}
SPELLED = "ema-smooth.spelled"


def safe_text(text: str) -> str:
    """`text` with control characters, invisible ones and undecoded bytes as escapes, such as `\\x1b`.

    File names, columns, keys and cells can hold anything; printed raw, they could clear the screen, set the
    title, reverse the reading direction or look like a message of ours.
    """
    lines = _LINE_BREAK.sub(r"\\n", text).split("\n")
    return "\n".join("".join(c if c.isprintable() else _escape(c) for c in line) for line in lines)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no text in the system's encoding
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def spelled(error: UnicodeError) -> tuple[str, int]:
    """An error handler for streams: our own characters are written in ASCII, others as question marks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(sign, "?") for sign in signs), error.end


codecs.register_error(SPELLED, spelled)
