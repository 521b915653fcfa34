"""How numbers are written in cells of text, and what stands for a missing one: the grammar, cell by cell.

`formats/text/cells.py` reads whole columns by the same grammar.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isnan

from ema_cli.errors import OptionError

# The empty cell and the spellings that pandas reads as missing by default; `nan` in any case besides.
MISSING = frozenset(
    b",#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,None,n/a,null".split(b",")
)
NAN = re.compile(rb"[+-]?nan", re.IGNORECASE)
# As Arrow's regular expressions and Python's have it.
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NUMBER = re.compile(NUMBER.removesuffix("$").encode())
# A number in groups of three digits, with `_` for the mark; a leading zero groups nothing.
_GROUPED = re.compile(rb"[+-]?[1-9][0-9]{0,2}(?:_[0-9]{3})+(?![0-9_])")
SPACES = " \t"
# What people type for a grouping mark, and all that is meant by it: UTF-8 and Windows-1252.
_NO_BREAK = ("\u00a0", "\u202f", "\u2009")
MARKS: dict[str, tuple[bytes, ...]] = {
    ",": (b",",),
    ".": (b".",),
    "_": (b"_",),
    "'": (b"'", "\u2019".encode(), b"\x92"),
    " ": (*(space.encode() for space in _NO_BREAK), b" ", b"\xa0"),
}
# With a decimal comma a point makes a cell no number: it turns into a byte that no number has.
COMMA_TO_POINT = bytes.maketrans(b",.", b".\0")


@dataclass(frozen=True)
class Notation:
    """How numbers are written.

    decimal_comma: the decimal mark is a comma, not a point. thousands: the mark between groups of three
    digits. strip: texts that are taken off either end of a cell. na: further spellings of missing; where one
    is a number, every spelling of that number is meant.
    """

    decimal_comma: bool = False
    thousands: str | None = None
    strip: tuple[str, ...] = ()
    na: tuple[str, ...] = ()

    @cached_property
    def marks(self) -> tuple[bytes, ...]:
        """The bytes that group digits."""
        return () if self.thousands is None else MARKS[self.thousands]

    @cached_property
    def stripped(self) -> tuple[bytes, ...]:
        """What is taken off either end of a cell, spaces included; empty where nothing is."""
        if not self.strip:
            return ()
        texts = [text for given in self.strip for text in _encoded(given.strip(SPACES))]
        return tuple(dict.fromkeys([*texts, b" ", b"\t", *MARKS[" "]]))

    @cached_property
    def missing(self) -> frozenset[bytes]:
        """The spellings of missing, without spaces round them."""
        return MISSING | {text for given in self.na for text in _encoded(given.strip(SPACES))}

    @cached_property
    def na_numbers(self) -> tuple[float, ...]:
        """The numbers that stand for missing."""
        plain = Notation()
        found = [
            number
            for text in self.na
            for number in (self._without_na.read(text.encode()), plain.read(text.encode()))
            if number is not None and not isnan(number)
        ]
        return tuple(dict.fromkeys(found))

    @cached_property
    def _without_na(self) -> Notation:
        return Notation(self.decimal_comma, self.thousands, self.strip)

    def is_missing(self, cell: bytes) -> bool:
        """True for a cell that says that there is no value."""
        number = self.read(cell)
        return number is not None and isnan(number)

    def read(self, cell: bytes) -> float | None:
        """The finite number that a cell holds, NaN where it is missing, None where it is neither."""
        cell = tidy(cell)
        if cell in self.missing or NAN.fullmatch(cell):
            return float("nan")
        bare = self._bare(cell)
        if bare in self.missing or NAN.fullmatch(bare):
            return float("nan")
        if b"_" in bare and self.thousands != "_":
            return None
        for mark in self.marks:
            bare = bare.replace(mark, b"_")
        if b"_" in bare:
            grouped = _GROUPED.match(bare)
            if grouped is None or b"_" in bare[grouped.end() :]:
                return None
            bare = grouped.group().replace(b"_", b"") + bare[grouped.end() :]
        if self.decimal_comma:
            bare = bare.translate(COMMA_TO_POINT)
        if _NUMBER.fullmatch(bare) is None or not math.isfinite(number := float(bare)):
            return None
        return float("nan") if number in self.na_numbers else number

    def _bare(self, cell: bytes) -> bytes:
        """The cell without what `--strip` takes off its ends."""
        before = None
        while cell != before:
            before = cell
            for text in self.stripped:
                cell = cell.removeprefix(text).removesuffix(text)
        return cell


PLAIN = Notation()


def make_notation(
    *, decimal: str, thousands: str | None, strip: tuple[str, ...], na: tuple[str, ...]
) -> Notation:
    """The notation that the options ask for. Raises OptionError where they contradict each other."""
    mark = " " if thousands in _NO_BREAK else "'" if thousands == "\u2019" else thousands
    if mark is not None and mark not in MARKS:
        raise OptionError(
            f"--thousands {thousands!r}: not a grouping mark", "--thousands ',' or . or ' or _ or ' '"
        )
    if mark == decimal:
        other = "." if decimal == "," else ","
        raise OptionError(
            f"--thousands {mark} is the decimal mark too", f"--decimal {other} where that is the decimal mark"
        )
    for text in strip:
        if not text.strip(SPACES) or re.fullmatch(r"[0-9+\-.,]+", text.strip(SPACES)):
            problem = f"--strip {text!r}: that may be a part of the number itself"
            raise OptionError(problem, "a unit or a currency: --strip %")
    return Notation(decimal == ",", mark, strip, na)


def looks_like_row(names: Sequence[float | None]) -> bool:
    """Whether most names of columns are numbers, as in a row, and neither years nor counted."""
    numbers = [number for number in names if number is not None and not isnan(number)]
    counted = len(numbers) > 1 and all(b - a == 1.0 for a, b in pairwise(numbers))
    years = all(number.is_integer() and 1800 <= number < 2200 for number in numbers)
    return 2 * len(numbers) > len(names) and not counted and not years


def tidy(cell: bytes) -> bytes:
    """The cell without spaces round it and, if it is quoted, without its quotes."""
    cell = cell.strip(b" \t")
    if len(cell) >= 2 and cell[:1] == cell[-1:] == b'"':
        cell = cell[1:-1].replace(b'""', b'"').strip(b" \t")
    return cell


def _encoded(text: str) -> list[bytes]:
    """A text as UTF-8 and as Windows-1252 write it."""
    out = [text.encode("utf-8", "surrogateescape")]
    try:
        return [*out, text.encode("cp1252")]
    except UnicodeEncodeError:
        return out
