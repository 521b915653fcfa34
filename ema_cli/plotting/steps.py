"""The horizontal axis `--x` of a picture: cells of text to places on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.errors import DataError
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import Batch, Floats
from ema_cli.times import BadTimeError, to_nanoseconds

HIGHEST = 1e307


class Steps:
    """Reads the axis of one run. dates: it holds times, in nanoseconds since 1970, as the first cell that is
    not empty decided; else numbers. unread: how many rows have none."""

    def __init__(self, name: str, comma: bool) -> None:
        self.name, self.comma = name, comma
        self.dates = self.decided = False
        self.unread = 0

    def read(self, batch: Batch) -> Floats:
        """(rows,): where each row stands, NaN where that can't be read.

        Raises DataError where the first cell is neither a number nor a time.
        """
        (cells,) = batch.extra
        texts = pc.trim(_texts(cells), " \t")
        if not self.decided:
            self._decide(texts, batch)
        out = self._times(texts) if self.dates else self._numbers(texts)
        self.unread += int(np.count_nonzero(np.isnan(out)))
        return out

    def _decide(self, texts: Any, batch: Batch) -> None:
        for row, text in enumerate(texts.to_pylist()):
            if not text:
                continue
            self.decided = True
            if math.isnan(_number(text, self.comma)):
                self.dates = not math.isnan(_time(text))
                if not self.dates:
                    problem = f"--x {self.name}: {text!r} is neither a number nor a time"
                    raise DataError(problem, batch.place(row, None), "--x with a column of steps or times")
            return

    def _numbers(self, texts: Any) -> Floats:
        try:
            if self.comma:
                raise pa.ArrowInvalid
            out: Floats = pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False).astype(float)
        except pa.ArrowInvalid:
            out = np.array([_number(text or "", self.comma) for text in texts.to_pylist()], float)
        out[~np.isfinite(out)] = math.nan
        return np.clip(out, -HIGHEST, HIGHEST)

    def _times(self, texts: Any) -> Floats:
        try:
            return to_nanoseconds(texts, None).astype(float)
        except BadTimeError:
            return np.array([_time(text or "") for text in texts.to_pylist()], float)


def _texts(cells: Any) -> Any:
    try:
        return pc.cast(pa.array(cells), pa.string())
    except pa.ArrowInvalid:  # not UTF-8, and so no number either
        return pa.array([(cell or b"").decode("utf-8", "replace") for cell in cells.to_pylist()])


def _number(text: str, comma: bool) -> float:
    if "_" in text or (comma and "." in text):
        return math.nan
    try:
        return float(text.replace(",", ".", 1) if comma else text)
    except ValueError:
        return math.nan


def _time(text: str) -> float:
    try:
        return float(to_nanoseconds(pa.array([text]), None)[0])
    except BadTimeError:
        return math.nan
