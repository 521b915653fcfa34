"""What can go wrong, as data: the place, the text that was found there, and what to try.

Nothing here prints or exits. The command line turns an `EmaError` into one message on stderr and
its `exit_code`; Python callers catch it as the `ValueError` it is.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

# What needs no quotes in a shell, nor in a sentence.
_PLAIN = re.compile(r"[\w%+=@/.-]+|,")


class EmaError(ValueError):
    """Anything a user can mend. `hint` says what to try; `exit_code` is the command line's."""

    exit_code = 1

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, as between processes, it is the same error: not all take their message as an argument."""
        return _remade, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return f"{self.problem}\n  try: {self.hint}" if self.hint else self.problem


def _remade(kind: type[EmaError], args: tuple[Any, ...], attributes: dict[str, Any]) -> EmaError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def readable(name: str) -> str:
    """A name as people read it: bytes that are no UTF-8 are taken for Windows-1252."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return name


class OptionError(EmaError):
    """The options, not the data, are at fault."""

    exit_code = 2


@dataclass(frozen=True)
class Place:
    """Where in the input something is: a physical line (or Parquet row), both counted from 1."""

    file: str = ""
    line: int | None = None
    column: str | None = None
    unit: str = "line"

    def __str__(self) -> str:
        where = self.file
        if self.line is not None:
            where += f"{', ' if where else ''}{self.unit} {self.line}"
        if self.column is not None:
            where += f"{', ' if where else ''}column {readable(self.column)!r}"
        return where


class DataError(EmaError):
    """A fault in the data, with its place."""

    def __init__(self, problem: str, place: Place = Place(), hint: str = "") -> None:
        where = str(place)
        super().__init__(f"{where}: {problem}" if where else problem, hint)
        self.place = place


def typeable(text: str) -> str:
    """A text as it can be typed in a shell, and told from the sentence that it stands in."""
    if _PLAIN.fullmatch(text):
        return text
    if not text.isprintable():  # a message shows it as an escape, so that is what is typed
        return "$'" + "".join(map(_typed, text)) + "'"
    if "'" in text and not re.search(r'["$`\\!]', text):
        return f'"{text}"'
    return shlex.quote(text + " ")[:-2] + "'"


def _typed(character: str) -> str:
    """A character as bash, zsh and ksh read it between $' and '."""
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return (
        character.encode("unicode_escape").decode() if character in "\t\n\r" else f"\\u{ord(character):04x}"
    )


@dataclass(frozen=True)
class Advice:
    """Why something in the input is not read, and the options with which it is; none if not sure."""

    cause: str
    options: tuple[str, ...]

    @property
    def is_of_lines(self) -> bool:
        """Whether the lines are to be taken otherwise, not only the cells in them."""
        return not {"-d", "--skip-lines", "--comment", "--ragged"}.isdisjoint(self.options)

    @property
    def says(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.cause or self.options)

    def __str__(self) -> str:
        """As a hint: what to type, then why."""
        typed = " ".join(map(typeable, self.options))
        return ": ".join(part for part in (typed, self.cause) if part)


class FileTrouble(EmaError):
    """A file that can't be read or written: its name, and the system's own words."""

    def __init__(self, name: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{name}: {problem}", hint)
        self.name = name


class StateError(EmaError):
    """A state file that is damaged, foreign, in use, or made with other options."""
