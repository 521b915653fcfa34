"""What a text most likely is where it is not read as it stands: made from what is in it, and tried on it.

Every option that is proposed has been tried on the lines at hand: with it they are a table. Where two
readings of a number are both possible, none is proposed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ema_cli.errors import Advice
from ema_cli.formats.text.dialect import Dialect
from ema_cli.formats.text.header import BOM
from ema_cli.formats.text.numerals import judge_cells
from ema_cli.notation import PLAIN, Notation, looks_like_row

# Lines at the beginning of an input that are looked at.
LINES = 1000
_SIGNS = (b"#", b"%", b"//", b";", b"!", b'"#')
_MARKS = (*_SIGNS, b"--", b"*", b"'")
_DELIMITERS = (b",", b";", b"\t", b"|")
_TYPED = {b"\t": "tab", b",": ",", b";": ";", b"|": "|"}
_CALLED = {b"\t": "tabs", b",": "commas", b";": "semicolons", b"|": "bars"}
# Lines below a header that may say units and the like, and what such a line has one of at least.
_UNIT_ROWS = 3
_UNIT = re.compile(
    rb"[\[(].*[\])]|.*[\xb0\xb2\xb3\xb5%/].*|(?:k|c|m|u|n|h|d)?(?:m|g|s|v|a|w|pa|hz|bar|l|wh|j|n|ohm)|h|min|sec|hrs?|days?"
    rb"|deg\.?.*|c|f|k|ts|rn|smp|avg|max|std|tot|unit.*|none|-|",
    re.IGNORECASE,
)
LOOKED_AT = 20
_SUMMARY = re.compile(
    rb'"?(?:sub|grand )?(?:totals?|sum|average|mean|summe|gesamt|mittel(?:wert)?)\b[":]*', re.IGNORECASE
)
# Lines below a table that are taken for notes, and how much of one tells it from records.
MOST_NOTES, LONGEST_MARK = 3, 40
_LOGGER = re.compile(rb'"(?:TOA5|TOACI1|TOB1)"')
BEFORE = "before the table"


@dataclass(frozen=True)
class Line:
    """A line of the sample: its number from 0, and its fields as they stand."""

    number: int
    text: bytes
    fields: list[bytes]


@dataclass(frozen=True)
class Reading:
    """One way to read the sample: a dialect, the header and the rows that it gives, and what it assumes."""

    dialect: Dialect
    header: Line
    rows: list[Line]
    causes: tuple[str, ...] = ()
    units: tuple[bytes, ...] = ()


def advice_on_table(
    opening: bytes, whole: bool, dialect: Dialect, names: Sequence[str] = ()
) -> Advice | None:
    """What to try with an input that begins so; None where nothing else is likely.

    opening: its first bytes; whole: there are no more. names: columns that were asked for.
    """
    lines = sample_lines(opening, whole)
    found = [
        _with_units(_from_name(_headed(reading), names))
        for each in _dialects(dialect)
        for reading in _readings(lines, each, dialect, whole)
    ]
    found = [each for each in found if _numbers(each) and not (each.causes and _splits_otherwise(each))]
    if not found:
        return _advice_on_spaces(lines)
    best = min(found, key=_doubt)
    causes, options = list(best.causes), _options(best, dialect)
    if _LOGGER.match(opening):
        causes.insert(0, "this is a data logger's file")
    judged = _judged(best)
    if judged is not None:
        causes.append(judged.cause)
        options += judged.options
    if not options:
        return None
    return Advice("; ".join(causes), tuple(options))


def _advice_on_spaces(lines: Sequence[bytes]) -> Advice | None:
    """What to say of columns with spaces between them, of which not all lines have as many."""
    aligned = [k for k, line in enumerate(lines) if re.search(rb"[^ \t][ \t]{2,}[^ \t]", line)]
    if len(aligned) < max(2, len(lines) // 2):
        return None
    counts = [len(lines[k].split()) for k in aligned]
    odd = next((k for k, count in zip(aligned, counts, strict=True) if count != counts[0]), None)
    if odd is None:
        return None
    first = f"{counts[0]} words in line {aligned[0] + 1}, {len(lines[odd].split())} in line {odd + 1}"
    cause = f"columns of a fixed width, or words that hold spaces, are not read ({first})"
    return Advice(f"{cause}; write the table with a delimiter", ())


def advice_on_comment(cell: bytes, column: Sequence[bytes]) -> Advice | None:
    """What to try with the first cell of a line that is a comment; None where it is none."""
    if _SUMMARY.fullmatch(cell.strip(b' \t"')):
        cause = f"the line that begins with {cell.decode()!r} sums up the others"
        return Advice(cause, ("--comment", cell.decode()))
    mark = next((mark for mark in (b"#", b"//") if cell.startswith(mark)), None)
    if mark is None or re.match(rb"#[A-Z0-9/]+[!?]", cell):  # Excel's #REF! and its like
        return None
    if 2 * sum(other.startswith(mark) for other in column) >= len(column):
        return None
    return Advice(f"lines that begin with {mark.decode()!r} are comments", ("--comment", mark.decode()))


def sample_lines(opening: bytes, whole: bool) -> list[bytes]:
    """The whole lines at the beginning, without their ends."""
    lines = opening.removeprefix(BOM).split(b"\n")
    if not whole or not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines[:LINES]]


def split_line(line: bytes, dialect: Dialect) -> list[bytes]:
    """The fields of a line."""
    if dialect.spaces:
        return re.findall(rb'"[^"]*"[^ \t]*|[^ \t]+', line)
    if b'"' not in line:
        return line.split(dialect.delimiter)
    d = re.escape(dialect.delimiter)
    field = re.compile(rb'("[^"]*(?:""[^"]*)*"[^' + d + rb"]*|[^" + d + rb"]*)(?:" + d + rb"|\Z)")
    fields, at = [], 0
    while at <= len(line) and (match := field.match(line, at)) is not None:
        fields.append(match[1])
        at = match.end() + (match.end() == len(line) and not match[0].endswith(dialect.delimiter))
        if at > len(line):
            break
    return fields


def _dialects(own: Dialect) -> Iterator[Dialect]:
    """The dialect itself, then others."""
    yield own
    for delimiter in _DELIMITERS:
        if own.spaces or delimiter != own.delimiter:
            yield replace(own, delimiter=delimiter, spaces=False)
    if not own.spaces:
        yield replace(own, delimiter=b" ", spaces=True)


def _readings(lines: Sequence[bytes], dialect: Dialect, own: Dialect, whole: bool) -> Iterator[Reading]:
    """The sample in that dialect, with as few guesses as make it a table of one width or another."""
    table = [
        Line(number, text, split_line(text, dialect))
        for number, text in _joined(lines)
        if number >= dialect.skip
        and (text.strip(b" \t") if dialect.spaces else text)
        and not (dialect.comments and text.startswith(dialect.comments))
        and not re.fullmatch(rb'"?sep=."?', text, re.IGNORECASE)
    ]
    widths = Counter(len(line.fields) for line in table)
    if not widths or (max(widths) < 2 and not dialect.separates_like(own)):
        return
    causes = () if dialect.separates_like(own) else (f"fields are separated by {_called(dialect)}",)
    usual = max(widths, key=lambda each: (widths[each] * (each > 1), each))
    for width in dict.fromkeys((usual, *(each for each in widths if each > 1 and widths[each] > 1))):
        odd = [line for line in table if len(line.fields) != width]
        commented = _commented(dialect, table, odd, causes)
        if commented is not None:
            yield commented
        if not odd:
            yield from _reading(dialect, table, causes)
        elif commented is None:
            yield from _skipped(dialect, table, width, causes, whole)


def _joined(lines: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines by number; those that a quoted field spans are one."""
    open_at, text = 0, b""
    for number, line in enumerate(lines):
        open_at, text = (number, line) if not text else (open_at, text + b"\n" + line)
        if text.count(b'"') % 2 == 0:
            yield open_at, text
            text = b""


def _reading(dialect: Dialect, table: list[Line], causes: tuple[str, ...]) -> Iterator[Reading]:
    """The first line as header, and the others as rows; where it comes again it is none."""
    rows = [line for line in table[1:] if line.text != table[0].text]
    if rows:
        yield Reading(dialect, table[0], rows, causes)


def _commented(
    dialect: Dialect, table: list[Line], odd: list[Line], causes: tuple[str, ...]
) -> Reading | None:
    """Where all lines that don't fit, or the first ones, begin with the same mark, they are comments."""
    first = [] if odd else table[:1]
    mark = next((mark for mark in _MARKS if all(line.text.startswith(mark) for line in odd or first)), None)
    if mark is None:
        return None
    rest = [line for line in table if not line.text.startswith(mark)]
    cause = f"lines that begin with {mark.decode()!r} are comments"
    commented = replace(dialect, comments=(*dialect.comments, mark))
    found = next(_reading(commented, rest, (*causes, cause)), None)
    # Under a header that begins with the mark itself come rows.
    return None if found is not None and first and _is_row(found) else found


def _skipped(
    dialect: Dialect, table: list[Line], width: int, causes: tuple[str, ...], whole: bool
) -> Iterator[Reading]:
    """Lines before the table and notes after it; records that are too short, or that end in a delimiter too
    many; names of rows, which have none themselves."""
    begin = next(k for k, line in enumerate(table) if len(line.fields) == width)
    before, header = table[:begin], table[begin]
    if before and _could_be_header(before[-1], table[begin:]):
        before, header = before[:-1], before[-1]
    if before and _names_rows(before[-1], table[begin:]):
        cause = "rows have a field more than their header, as names of rows; columns go by number"
        numbered = replace(dialect, skip=before[-1].number + 1, header=False)
        yield Reading(numbered, _numbers_of(header), table[begin:], (*causes, cause))
        return
    if before:
        causes, dialect = (*causes, _before(header.number)), replace(dialect, skip=header.number)
    rest = [line for line in table if line.number > header.number and line.text != header.text]
    names = len(header.fields)
    odd = [line for line in rest if len(line.fields) != names]
    fitting = [line for line in rest if line not in odd]
    notes = _marks_of_notes(odd, fitting, [*before, header]) if whole else ()
    if notes:
        rest = fitting
        said = " and ".join(str(line.number + 1) for line in odd)
        causes = (*causes, f"line{'s' * (len(odd) > 1)} {said} {'are' if len(odd) > 1 else 'is'} no row")
        dialect = replace(dialect, comments=(*dialect.comments, *notes))
    elif odd:
        if dialect.spaces or any(any(line.fields[names:]) for line in rest):
            return
        longer = any(len(line.fields) > names for line in rest)
        cause = "rows end in a delimiter that the header does not have" if longer else "some rows are short"
        causes, dialect = (*causes, cause), replace(dialect, pad=True)
    if rest:
        yield Reading(dialect, header, rest, causes)


def _marks_of_notes(odd: Sequence[Line], rows: Sequence[Line], above: Sequence[Line]) -> tuple[bytes, ...]:
    """What the few lines begin with that are no records but say something; none where one may be a record."""
    marks, counted = list[bytes](), all(_has_digit_first(row.text) for row in rows)
    for line in odd:
        mark = next((mark for mark in (*_SIGNS, b"\x1a") if line.text.startswith(mark)), None)
        if (total := _SUMMARY.match(line.text)) is not None:
            mark = total[0]
        elif mark is None and (_is_rule(line.text) or len(line.fields) == 1 or counted):
            mark = None if _has_digit_first(line.text) else line.text[:LONGEST_MARK].rstrip()
        if mark is None or any(line.text.startswith(mark) for line in (*rows, *above)):
            return ()
        marks.append(mark)
    return tuple(dict.fromkeys(marks)) if len(marks) <= MOST_NOTES else ()


def _is_rule(text: bytes) -> bool:
    """Whether a line is only drawn, as databases and Markdown do, or says types, as the USGS' tables do."""
    return not text.strip(b"-=+:| \t") or re.fullmatch(rb"(?:[0-9]+[sdn]\t)+[0-9]+[sdn]", text) is not None


def _names_rows(header: Line, rows: Sequence[Line]) -> bool:
    """Whether a line names the columns of rows that have names of their own before them, as R writes them."""
    names = [field.strip(b'" ') for field in header.fields]
    named = all(name and not _has_digit_first(name) and not re.search(rb"[,;\t|]", name) for name in names)
    wide = all(len(row.fields) == len(names) + 1 and row.fields[-1] for row in rows)
    return named and wide and any(map(_has_digit_first, rows[0].fields[1:]))


def _numbers_of(line: Line) -> Line:
    """Numbers for names, where no line has these."""
    return Line(line.number, b"", [b"%d" % (k + 1) for k in range(len(line.fields))])


def _could_be_header(line: Line, rows: Sequence[Line]) -> bool:
    """Whether a line names the columns of rows that only have empty fields more."""
    width = len(line.fields)
    return 1 < width < len(rows[0].fields) and not any(any(row.fields[width:]) for row in rows)


def _from_name(reading: Reading, names: Sequence[str]) -> Reading:
    """The same, with the header where the columns are that were asked for: lines above it are no rows."""
    wanted = {name.encode("utf-8", "surrogateescape") for name in names}
    said = [field.strip(b' \t"') for field in reading.header.fields]
    if not wanted or wanted & set(said):
        return reading
    for k, row in enumerate(reading.rows[:LOOKED_AT]):
        if wanted <= {field.strip(b' \t"') for field in row.fields}:
            return _below(reading, k)
    return reading


def _below(reading: Reading, k: int) -> Reading:
    """The same, with a row for the header: the lines above it stand before the table."""
    row = reading.rows[k]
    causes = [each for each in reading.causes if BEFORE not in each]
    dialect = replace(reading.dialect, skip=row.number)
    return Reading(dialect, row, reading.rows[k + 1 :], (*causes, _before(row.number)))


def _before(lines: int) -> str:
    return ("the first line stands " if lines == 1 else f"the first {lines} lines stand ") + BEFORE


def _is_row(reading: Reading) -> bool:
    """Whether what would be the header is a row like the others: a number for every column of numbers."""
    notation, names = reading.dialect.notation, reading.header.fields
    if all(map(_has_digit_first, names)):
        return True
    numeric = [
        name
        for k, name in enumerate(names)
        if judge_cells([row.fields[k] for row in reading.rows if k < len(row.fields)], notation) is None
    ]
    return looks_like_row([notation.read(name) for name in numeric])


def _headed(reading: Reading) -> Reading:
    """The same, without a header where what would be one is a row."""
    if not reading.dialect.header:
        return replace(reading, header=_numbers_of(reading.header), rows=[reading.header, *reading.rows])
    if not reading.causes or not _is_row(reading):
        return reading
    causes = (*reading.causes, "the first line is no header")
    dialect = replace(reading.dialect, header=False)
    return Reading(dialect, _numbers_of(reading.header), [reading.header, *reading.rows], causes)


def _splits_otherwise(reading: Reading) -> bool:
    """Whether another delimiter parts all rows alike, so that this one may only stand in their fields."""
    rows = [row.text for row in reading.rows]
    return any(
        delimiter != reading.dialect.delimiter
        and rows[0].count(delimiter) > 0
        and len({row.count(delimiter) for row in rows}) == 1
        for delimiter in _DELIMITERS[1:]
    )


def _with_units(reading: Reading) -> Reading:
    """The same without the rows right below the header that say units."""
    rows = reading.rows
    count = next(
        (k for k, row in enumerate(rows) if not _is_rule(row.text) and any(map(_holds_number, row.fields))), 0
    )
    below = rows[count:]
    if not 0 < count <= _UNIT_ROWS or not _numbers(replace(reading, rows=below)):
        return reading
    if not all(map(_says_units, rows[:count])):
        if len(rows[count - 1].fields) != len(reading.header.fields):
            return reading
        return _below(reading, count - 1)
    marks = [_mark_of(row, [*below, reading.header], reading.dialect) for row in rows[:count]]
    if not all(marks):
        return reading
    numbers = " and ".join(str(row.number + 1) for row in rows[:count])
    cause = f"line{'s' * (count > 1)} {numbers} say{'s' * (count == 1)} units, not values"
    found = replace(reading, rows=below, units=tuple(mark for mark in marks if mark is not None))
    return replace(found, causes=(*reading.causes, cause))


def _says_units(row: Line) -> bool:
    if _is_rule(row.text):
        return True
    said = [cell.strip(b' \t"') for cell in row.fields]
    return all(len(cell) <= 10 for cell in said) and any(_UNIT.fullmatch(cell) for cell in said)


def _holds_number(cell: bytes) -> bool:
    """Whether a cell is a number or something like it, in any notation."""
    if _has_digit_first(cell):
        return True
    judged = None if PLAIN.is_missing(cell) else judge_cells([cell], PLAIN)
    return judged is not None and judged.says


def _has_digit_first(cell: bytes) -> bool:
    return re.match(rb'[ \t"]*[+-]?[.,]?[0-9]', cell) is not None


def _mark_of(row: Line, others: Sequence[Line], dialect: Dialect) -> bytes | None:
    """What that row begins with and no other line does; None where it can't be told apart."""
    if dialect.spaces:
        return None if any(line.text.startswith(row.text) for line in others) else row.text
    for count in range(1, len(row.fields)):
        mark = dialect.delimiter.join(row.fields[:count]) + dialect.delimiter
        if not any(line.text.startswith(mark) for line in others):
            return mark
    return None if any(line.text.startswith(row.text) for line in others) else row.text


def _numbers(reading: Reading) -> bool:
    """Whether there is a column of numbers below what looks like a header."""
    return any(_is_numeric(cells, reading.dialect.notation) for _, cells in columns_of(reading))


def _doubt(reading: Reading) -> tuple[int, int, bool, int]:
    """What tells readings apart: the least is the most likely."""
    dialect = reading.dialect
    return _guesses(reading), dialect.skip, dialect.spaces, -len(reading.header.fields)


def _guesses(reading: Reading) -> int:
    """How much is assumed by reading the sample so; that no number is as it should be counts twice."""
    notation = reading.dialect.notation
    plain = any(judge_cells(cells, notation) is None for _, cells in columns_of(reading))
    return len(reading.causes) + 2 * (not plain)


def _is_numeric(cells: Sequence[bytes], notation: Notation) -> bool:
    judged = judge_cells(cells, notation)
    return judged is None or bool(judged.options or judged.cause)


def columns_of(reading: Reading) -> Iterator[tuple[bytes, list[bytes]]]:
    """Each column's name and cells; columns without a value are left out."""
    for k, name in enumerate(reading.header.fields):
        cells = [row.fields[k] for row in reading.rows if k < len(row.fields)]
        if any(not reading.dialect.notation.is_missing(cell) for cell in cells):
            yield name, cells


def _judged(reading: Reading) -> Advice | None:
    """What the numbers of the table need, where its columns agree."""
    if is_one_quoted(reading.header.fields):
        return None
    verdicts = [judge_cells(cells, reading.dialect.notation) for _, cells in columns_of(reading)]
    needs = [each for each in verdicts if each is not None and each.options]
    return needs[0] if needs and None not in verdicts and len(set(needs)) == 1 else _decimal(needs)


def is_one_quoted(names: Sequence[bytes]) -> bool:
    """Whether the only name holds a delimiter, as where every line is in quotes as a whole."""
    return len(names) == 1 and any(delimiter in names[0] for delimiter in _DELIMITERS)


def _decimal(needs: Sequence[Advice]) -> Advice | None:
    """A decimal comma is one for the whole table."""
    commas = [each for each in needs if each.options == ("--decimal", ",")]
    return commas[0] if commas else None


def _options(reading: Reading, own: Dialect) -> list[str]:
    dialect = reading.dialect
    out = [] if dialect.separates_like(own) else ["-d", _typed(dialect)]
    out += [] if dialect.skip == own.skip else ["--skip-lines", str(dialect.skip)]
    for mark in (*dialect.comments[len(own.comments) :], *reading.units):
        out += ["--comment", mark.decode("utf-8", "surrogateescape")]
    out += ["--no-header"] if own.header and not dialect.header else []
    return out + (["--ragged", "pad"] if dialect.pad and not own.pad else [])


def _typed(dialect: Dialect) -> str:
    return "spaces" if dialect.spaces else _TYPED[dialect.delimiter]


def _called(dialect: Dialect) -> str:
    return "spaces" if dialect.spaces else _CALLED[dialect.delimiter]
