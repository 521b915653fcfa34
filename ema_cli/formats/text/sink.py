"""CSV and TSV out: what came in, with a text spliced onto every record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import Batch, Floats, Sink, Splicer
from ema_cli.formats.text.dialect import Dialect
from ema_cli.formats.text.fields import quoted, texts_of

# Records to splice at once. Their buffers differ a little in size each time; large ones would leave the heap
# with ever more gaps.
AT_ONCE = 16_384


class TextSink(Sink, Splicer):
    """Writes records and their new fields.

    header: the text of the kept columns' names and the line ending after it, as `Source.header` gives them.
    alone: no column of the input is kept, so there is nothing to put the first delimiter after.
    """

    def __init__(
        self,
        out: BinaryIO,
        header: tuple[bytes, bytes],
        names: Sequence[str],
        dialect: Dialect,
        *,
        digits: int | None = None,
        alone: bool = False,
    ) -> None:
        self.out, self.layout, self.digits, self.alone = out, dialect, digits, alone
        self.dialect, self.splicer = dialect, self
        text, ending = header
        if dialect.header:
            new = [quoted(name.encode("utf-8", "surrogateescape"), dialect) for name in names]
            # Alone, there is no name in `text`, but there may be blank lines.
            parts = [text + dialect.delimiter.join(new)] if alone else [text, *new]
            out.write(dialect.delimiter.join(parts) + ending)
        else:
            out.write(text)

    def write(self, batch: Batch, fields: Floats) -> None:
        self.append(*batch.body.texts(self.dialect), fields)

    def append(self, own: Any, tail: memoryview, fields: Floats) -> None:
        """Append records, their texts as `Body.texts` gives them, with their new fields."""
        for begin in range(0, len(own), AT_ONCE):
            new = texts_of(fields[begin : begin + AT_ONCE], self.dialect, self.digits, self.alone)
            joined = pc.join(own[begin : begin + AT_ONCE], new)
            offsets = np.frombuffer(joined.buffers()[1], np.int32, len(joined) + 1)
            self.out.write(memoryview(joined.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
        self.out.write(tail)

    def finish(self) -> None:
        """A text needs no end."""
