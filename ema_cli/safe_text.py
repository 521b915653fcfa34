"""Text for people: what a terminal would obey is shown as an escape, and what it can't show is spelled."""

from __future__ import annotations

import codecs
import re

# A message may go on in an indented line; every other line break comes from a name or a cell.
_LINE_BREAK = re.compile(r"\n(?!  )")
# Signs of our own, in ASCII, for streams that don't have them.
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

    File names, columns, keys and cells can hold anything; shown raw, they could clear the screen, set the
    title, turn the reading direction round or pass for a message of ours.
    """
    lines = _LINE_BREAK.sub(r"\\n", text).split("\n")
    return "\n".join("".join(c if c.isprintable() else _escape(c) for c in line) for line in lines)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no text in the system's encoding
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def spelled(error: UnicodeError) -> tuple[str, int]:
    """An error handler for streams: signs of ours are spelled in ASCII, other things are question marks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(sign, "?") for sign in signs), error.end


codecs.register_error(SPELLED, spelled)
