"""The options of one run as plain values: what to read, how to average, where to write."""

from __future__ import annotations

from dataclasses import dataclass, field

from ema_cli.average import Average
from ema_cli.errors import OptionError
from ema_cli.notation import Notation, make_notation

# What `Job.delimiter` is where runs of spaces and tabs separate fields.
SPACES = b"spaces"


@dataclass(frozen=True)
class Job:
    """What the command line asks for; a field is the option of the same name unless said otherwise.

    inputs: `-` is stdin. output: None is stdout. source, target: `--from` and `--to`. delimiter: None if the
    format decides. time, time_of_day: the first `--time` and the second. processes: the most that share the
    work on one input (`--jobs`); 0: as many as help.
    """

    average: Average
    inputs: tuple[str, ...] = ("-",)
    output: str | None = None
    source: str | None = None
    target: str | None = None
    delimiter: bytes | None = None
    header: bool = True
    decimal_comma: bool = False
    thousands: str | None = None
    strip: tuple[str, ...] = ()
    na: tuple[str, ...] = ()
    skip_lines: int = 0
    comments: tuple[str, ...] = ()
    ragged: str = "error"
    columns: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    time: str | None = None
    time_unit: str | None = None
    time_of_day: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    order: str | None = None
    late: str = "error"
    newest_first: bool = False
    by_file: bool = False
    only: bool = False
    invalid: str = "error"
    digits: int | None = None
    state: str | None = None
    x: str | None = None
    weights: str | None = None
    processes: int = 0

    @property
    def notation(self) -> Notation:
        """How numbers are written in cells of text. Raises OptionError for contradicting options."""
        decimal = "," if self.decimal_comma else "."
        return make_notation(decimal=decimal, thousands=self.thousands, strip=self.strip, na=self.na)

    @property
    def spaces(self) -> bool:
        """Runs of spaces and tabs separate fields."""
        return self.delimiter == SPACES


# Fields that may differ between the runs of a series: where the rows come from and go, how they are written,
# and those that the state has in another form. A state is compared by all others.
MAY_DIFFER = (
    *("average", "inputs", "output", "source", "target", "delimiter", "header", "decimal_comma"),
    *("thousands", "strip", "skip_lines", "comments", "ragged"),
    *("columns", "by", "time", "time_of_day", "order", "x", "weights", "only", "invalid", "digits"),
    *("state", "processes"),
)


@dataclass
class Summary:
    """What a run has done. names: the smoothed columns; alphas: what `--alpha auto` found for them."""

    rows: int = 0
    missing: int = 0
    invalid: int = 0
    names: list[str] = field(default_factory=list)
    alphas: list[float] | None = None
    notes: list[str] = field(default_factory=list)


def read_delimiter(given: str | None) -> bytes | None:
    """The delimiter that `-d` names. Raises OptionError."""
    if given is None:
        return None
    if given == "spaces":
        return SPACES
    named = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " ", "pipe": "|"}
    text = named.get(given, given)
    if len(text.encode()) != 1 or text in '"\r\n.' or text.isalnum() or text in "+-":
        raise OptionError(
            f"-d {given}: not a delimiter",
            "-d ';' or -d tab or -d spaces: one character that is no letter or digit",
        )
    return text.encode()


def read_comments(given: tuple[str, ...]) -> tuple[str, ...]:
    """The beginnings of comment lines. Raises OptionError."""
    for text in given:
        if not text or "\n" in text or "\r" in text:
            raise OptionError(f"--comment {text!r}: not the beginning of a line", "--comment '#'")
    return given
