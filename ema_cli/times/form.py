"""How times are written, in plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TimeForm:
    """How times are written. unit: of numbers. format: strptime's, or `excel`. zone: what times that name
    none are local to, None for UTC."""

    unit: str | None = None
    format: str | None = None
    zone: str | None = None


# ISO 8601 or what an Arrow type says, and UTC where nothing names a zone.
ISO = TimeForm()
