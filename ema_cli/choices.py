"""What an option may be, where that is one of a few words: for the commands, for Python and its types."""

from __future__ import annotations

from typing import Any, Literal, get_args

Missing = Literal["skip", "decay", "error"]
Invalid = Literal["error", "missing"]
Late = Literal["error", "skip", "restart"]
TimeUnit = Literal["s", "ms", "us", "ns", "min", "h", "d"]


def words_of(choice: Any) -> tuple[str, ...]:
    """The words that one of these types lists, the usual one first."""
    words: tuple[str, ...] = get_args(choice)
    return words
