"""Times of every kind to int64 nanoseconds since 1970-01-01 UTC, exactly; begin with `read_times`."""

from ema_cli.times.form import TimeForm
from ema_cli.times.grammar import DAY
from ema_cli.times.numbers import NANOSECONDS
from ema_cli.times.reader import BadTimeError, Times, check_form, read_times, text_of, to_nanoseconds

__all__ = [
    "DAY",
    "NANOSECONDS",
    "BadTimeError",
    "TimeForm",
    "Times",
    "check_form",
    "read_times",
    "text_of",
    "to_nanoseconds",
]
