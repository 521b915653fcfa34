"""In which notation the cells of a column are numbers, if they are none as they are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ema_cli.errors import Advice
from ema_cli.notation import MARKS, Notation, tidy

# Words that are numbers in some notation, or may be: nobody is told to call them missing.
_NUMERIC_WORDS = re.compile(r"[+-]?(?i:inf|infinity|true|false|yes|no|on|off)|[IVXLCDM]{2,}")
# What changes a number that it stands behind, or may: thousands and millions, debit and credit, compass
# points; halves of the day and months, with which it is no number but a time.
_CHANGING = re.compile(
    r"[kmgtpbnµe]|[kmgtp]i|[mbt]n|tr|mio|mln|mrd|tsd|dr|cr|[nsew]|st|nd|rd|th", re.IGNORECASE
)
_OF_TIME = re.compile(r"[ap]\.?m\.?|(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*", re.IGNORECASE)
_CURRENCY = re.compile(r"(?:[$€£¥₹₽₩฿₺₫]|[A-Z]{1,2}\$|Rs\.|kr\.?) ?|[A-Z]{3} ")
_UNIT = re.compile(r"(?:[^\W\d_]|[%°$€£¥₹₽₩‰\"'′″])[^0-9+\-()<>~,:]*[0-9²³]?")
_BLANKS = " \t\u00a0"
# A number, as it may be grouped, and what stands around it.
_AROUND = re.compile(
    r"([^0-9+\-.,]*)([+-]?[.,]?[0-9](?:[0-9.,'_\u00a0\u202f\u2009\u2019 ]*[0-9.,])?(?:[eE][+-]?[0-9]+)?)(.*)"
)
_CALLED = {",": "commas", ".": "points", "'": "apostrophes", "_": "underscores", " ": "spaces"}
# How numbers are written that no option reads: what such a text looks like, one like it that may be read, and
# what it has.
_UNREAD = (
    (re.compile(r"\((.*)\)"), r"-\1", "brackets, which may be a minus"),
    (re.compile(r"(.*[0-9]) *[-\u2212]"), r"-\1", "a minus behind it"),
    (re.compile(r"\u2212 *(.*)"), r"-\1", "a minus that is not the keyboard's"),
    (re.compile(r"- *([^-+0-9., ]+) *([.,]?[0-9].*)"), r"\1-\2", "a minus before its unit"),
    (re.compile(r'="(.*)"'), r"\1", "an equals sign and quotes around it"),
    (re.compile(r"([+-]?[0-9.]+)[dD]([+-]?[0-9]+)"), r"\1e\2", "a D for its exponent"),
    (re.compile(r"(\D*[0-9]{1,2})(?:,[0-9]{2})+(,[0-9]{3}(?!,).*)"), r"\1\2", "groups of two digits"),
)
# As many different units, and as long ones, are told as such; more or longer ones are words.
MOST_WORDS, LONGEST_UNIT = 3, 6


def judge_cells(cells: Sequence[bytes], notation: Notation) -> Advice | None:
    """Why cells of a column are no numbers, and what to try; None where all are, or are missing.

    No options where nothing is sure: a number in two notations, or in one that no option reads. Neither where
    it is not a number at all.
    """
    different = dict.fromkeys(map(tidy, cells))  # which are often few, and each takes a while
    if all(notation.read(cell) is not None for cell in different):
        return None
    texts = [_text(cell) for cell in different if not notation.is_missing(cell)]
    words = sorted({text for text in texts if not any(c.isdigit() for c in text)})
    numbers = [text for text in texts if any(c.isdigit() for c in text)]
    if words and (len(words) > MOST_WORDS or any(map(_is_no_word, words))):
        return Advice("", ())
    found = _notation_of(numbers, notation)
    if found is None or not numbers:
        return Advice(_why_not(numbers, notation), ())
    listed = " and ".join(map(repr, words))
    causes = [found.cause] * bool(found.cause) + [f"{listed} may stand for missing"] * bool(words)
    options = found.options if found.options or not found.cause else None
    if options is None:
        return Advice(found.cause, ())
    return Advice("; ".join(causes), (*options, *(part for word in words for part in ("--na", word))))


def advice_on_cells(cells: Sequence[bytes], notation: Notation, otherwise: str) -> Advice:
    """What to try where a column has a cell among these that is no number. otherwise: if none reads it."""
    judged = judge_cells(cells, notation) or Advice("", ())
    return judged if judged.options else Advice("; ".join(filter(None, (judged.cause, otherwise))), ())


def _is_no_word(text: str) -> bool:
    """Whether nobody is told to call that text missing: it may be a number, or can't be typed."""
    return "\0" in text or _NUMERIC_WORDS.fullmatch(text) is not None


def _why_not(texts: Sequence[str], notation: Notation) -> str:
    """Why texts with digits in them are numbers in no notation, where that can be said."""
    plain, said = [], ""
    for text in texts:
        number, what = _plainly(text)
        plain.append(number)
        said = said or (what and f"{text!r} has {what}, and no option reads that")
    if said and _notation_of(plain, notation) is not None:
        return said
    units = set(map(_beside, texts))
    changing = next(filter(_CHANGING.fullmatch, sorted(units)), None)
    if changing is not None:
        return f"{changing!r} behind a number may change what it means"
    if not 1 < len(units) <= MOST_WORDS or not all(map(_is_unit, units - {""})):
        return ""
    if "" in units:
        return f"some numbers have {max(units)!r} beside them, and others nothing"
    return f"numbers have different things beside them: {', '.join(map(repr, sorted(units)))}"


def _plainly(text: str) -> tuple[str, str]:
    """A number as it is mostly written, and what it had that is not so."""
    said = ""
    for pattern, number, what in _UNREAD:
        if (match := pattern.fullmatch(text)) is not None:
            text, said = match.expand(number), said or what
    return text, said


def _beside(text: str) -> str:
    """What stands behind a number, or the currency before it."""
    part = _AROUND.fullmatch(text)
    if part is None or (part[1] and not _CURRENCY.fullmatch(part[1])):
        return "?"
    return (part[1] + part[3]).strip(_BLANKS)


def _is_unit(text: str) -> bool:
    return len(text) <= LONGEST_UNIT and _UNIT.fullmatch(text) is not None and not _OF_TIME.fullmatch(text)


def _text(cell: bytes) -> str:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell.decode("cp1252", "replace")


def _notation_of(texts: Sequence[str], notation: Notation) -> Advice | None:
    """What makes numbers of all these texts; no options and a cause where two notations do; None: nothing."""
    if _all_read(texts, notation):
        return Advice("", ())
    unit, bare = _without_unit(texts)
    ways = [Advice("", ())] if _all_read(bare, notation) else _ways(bare, notation)
    if not ways:
        return None
    if len(ways) > 1:
        example = next(text for text in texts if notation.read(text.encode()) is None)
        marks = ", another with ".join(way.cause for way in ways)
        return Advice(f"{example!r} is one number with {marks} (ema-smooth --help: options for both)", ())
    if unit is None:
        return Advice(f"numbers have {ways[0].cause}" if ways[0].cause else "", ways[0].options)
    cause = f"numbers have {unit!r} beside them" + (f" and {ways[0].cause}" if ways[0].cause else "")
    options = ("--strip", unit, *ways[0].options)
    return Advice(cause, options)


def _all_read(texts: Sequence[str], notation: Notation) -> bool:
    return all(notation.read(text.encode("utf-8", "surrogateescape")) is not None for text in texts)


def _ways(texts: Sequence[str], notation: Notation) -> list[Advice]:
    """Decimal commas and grouping marks with which all the texts are numbers that somebody would write so."""
    out = []
    for comma in (False, True):
        for mark in (None, *MARKS):
            if mark == ("," if comma else ".") or (comma == notation.decimal_comma and mark is None):
                continue
            if notation.thousands is not None and mark != notation.thousands:
                continue
            tried = replace(notation, decimal_comma=comma, thousands=mark)
            if _all_read(texts, tried) and _plausible(texts, tried):
                out.append(_way(tried, notation))
    return _fewest(out)


def _fewest(ways: Sequence[Advice]) -> list[Advice]:
    """A way that needs a grouping mark and a decimal comma is none where one of the two is enough."""
    least = min((len(way.options) for way in ways), default=0)
    return [way for way in ways if len(way.options) == least]


def _way(tried: Notation, own: Notation) -> Advice:
    causes, options = [], []
    if tried.decimal_comma != own.decimal_comma:
        causes.append(f"a decimal {'comma' if tried.decimal_comma else 'point'}")
        options += ["--decimal", "," if tried.decimal_comma else "."]
    if tried.thousands != own.thousands and tried.thousands is not None:
        causes.append(f"groups of digits between {_CALLED[tried.thousands]}")
        options += ["--thousands", tried.thousands]
    return Advice(" and ".join(causes), tuple(options))


def _plausible(texts: Sequence[str], notation: Notation) -> bool:
    """Whether numbers are written alike: as many decimals each, or no needless ones; grouped or not."""
    decimal = "," if notation.decimal_comma else "."
    wholes, fractions = [], []
    for text in texts:
        whole, mark, fraction = text.lstrip("+-").partition(decimal)
        wholes.append(whole)
        fractions.append(re.split("[eE]", fraction)[0] if mark else None)
    if notation.thousands is not None:
        used = any(not whole.isdigit() for whole in wholes if whole)
        return used and not any(whole.isdigit() and len(whole) > 3 for whole in wholes)
    fixed = len({None if fraction is None else len(fraction) for fraction in fractions}) == 1
    return fixed or not any(fraction is not None and fraction.endswith("0") for fraction in fractions)


def _without_unit(texts: Sequence[str]) -> tuple[str | None, list[str]]:
    """The one text that stands beside all the numbers, on the same side, and the numbers without it.

    None, and the texts as they are, where there is none, it may change what the number means, or numbers
    other than zero have nothing beside them.
    """
    parts = [_AROUND.fullmatch(text) for text in texts]
    found = {(part[1], part[3].strip(_BLANKS)) for part in parts if part is not None and part[0].strip("0.,")}
    if None in parts or len(found) != 1 or any("\t" in text for text in texts):
        return None, list(texts)
    before, after = next(iter(found))
    quoted = before == "'" and after in ("", "'")
    if before and not quoted and (after or not _CURRENCY.fullmatch(before.replace("\u00a0", " "))):
        return None, list(texts)
    unit = before.strip(_BLANKS) or after
    if _CHANGING.fullmatch(unit) or _OF_TIME.fullmatch(unit) or not _UNIT.fullmatch(unit):
        return None, list(texts)
    return unit, [part[2] for part in parts if part is not None]
