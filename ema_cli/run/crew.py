"""More processors for one input: other processes read its blocks, and write its text.

The process that was asked hands blocks of the input out: of a file the place of each, which the helper reads
by itself, of a pipe the text. A helper finds the records of a block, reads values, times and keys, and hands
these back. Here they are folded, in the order of the input, as ever; that is a seventh of the work. The new
fields are put where the helper that has the block finds them, which makes text of them and writes it: at its
place in a file, or in turn to stdout. So all that depends on order is in
one place, with every option, every key and every message, and the bytes can be no others. While there is
nothing to fold and all helpers have enough to do, this process does a block itself.

A block is cut after a line end, unread; a helper says where that was no end of a record, or where something
is wrong with the block. Then the input goes on from there as with one process, which knows what to say.

What can't be cut unread (Parquet, Arrow) is read here, and its text is made and written by helpers. Small
inputs have none, nor has what is written in another format than plain text.
"""

from __future__ import annotations

import os
import pickle
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ema_cli.errors import EmaError, FileTrouble, Place
from ema_cli.formats.arrow_types import offsets_and_bytes
from ema_cli.formats.base import Batch, Body, Divisible, Floats, Layout, Projection, Sink, Source, Splicer
from ema_cli.io.output import Output, Texts
from ema_cli.io.signals import PROMPT, uninterrupted
from ema_cli.io.temporary import at_interrupt
from ema_cli.process import helpers_for, is_one_of_many

if TYPE_CHECKING:  # only large inputs need them
    from ema_cli.io.streams import SharedFile
    from ema_cli.run.helper import Helper, Region

STDOUT = 1
# Bytes of a block at least, and the rows that it had better have: as few as are folded nearly as quickly as
# more, since a helper has three under way.
LEAST_BLOCK, GOOD_ROWS = 1 << 20, 40_000
# A block, or rows, that are worth being handed over.
LEAST_BYTES, LEAST_ROWS = 1 << 18, 8192
# Blocks read here, and texts made here, that may wait for their turn.
WAITING = 1
# Blocks that had to be put back, from which on none is handed out any more.
PATIENCE = 3


@dataclass(eq=False)
class Block:
    """A block that was taken from the input.

    length: its bytes. data: these, if they have been read; file, begin: else where they are. size: bytes of
    the input read so far. settled: it was read; batches: what was, None where it has to be put
    back. line: the one that it begins on, of `lines`. unwritten: texts of it that are not written yet; over:
    there will be no more.
    """

    length: int
    data: bytes | memoryview
    size: int
    file: SharedFile | None = None
    begin: int = 0
    region: Region | None = None
    helper: Helper | None = None
    settled: bool = False
    batches: list[Batch] | None = None
    lines: int = 0
    line: int = 1
    unwritten: int = 0
    over: bool = False

    def text(self) -> bytes:
        return bytes(self.data) if self.file is None else self.file.read(self.begin, self.length)


@dataclass(eq=False)
class Piece:
    """A text on its way.

    number: what its helper calls it. texts: where it was made here. size: its bytes, once known. asked: the
    helper has been told to write.
    """

    number: int
    block: Block | None = None
    texts: Texts | None = None
    size: int | None = None
    asked: bool = False


@dataclass(frozen=True)
class Elsewhere(Body):
    """A batch that a helper has. What is asked of it here is read here, once more, which is seldom."""

    source: Divisible
    wanted: Projection
    block: Block
    number: int

    def here(self) -> Batch:
        found = self.source.read_block(self.block.text(), self.wanted, self.block.line)
        if found is None or len(found[0]) <= self.number:
            raise FileTrouble(self.source.name, "was changed while it was read")
        return found[0][self.number]

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        return self.here().body.texts(layout)

    def arrow(self) -> Any:
        return self.here().body.arrow()

    def head(self, rows: int) -> Body:
        return self.here().body.head(rows)

    def batch(self, read: Batch) -> Batch:
        """The batch as it was read, without knowing on which line it stands."""
        clock = read.clock.saying(self._text)
        batch = replace(read, body=read.body or self, clock=clock, size=self.block.size)
        batch.place = self._place
        batch.cells = None if read.cells is None else self._cells
        return batch

    def _place(self, row: int, column: int | None = None) -> Place:
        return self.here().place(row, column)

    def _text(self, row: int) -> str:
        return self.here().clock.text(row)

    def _cells(self, column: int, first: int, count: int) -> Any:
        cells = self.here().cells
        return None if cells is None else cells(column, first, count)


class Crew:
    """All processes that are at work on one input. As a context manager it ends with everything written.

    batches: the rows in their order. write: takes each with its new fields, in the same order. processes: how
    many there may be in all, 0: as many as help. size: bytes of the input, if known.
    """

    def __init__(
        self, source: Source, wanted: Projection, splicer: Splicer, processes: int, size: int | None
    ) -> None:
        self.source, self.wanted, self.splicer = source, wanted, splicer
        self.divisible: Divisible | None = None
        self.out = cast(Output, splicer.out)
        self.made = Texts()
        self.target: str | None = None
        self.at: int | None = None
        if self.out.raw.fileno() != STDOUT and self.out.seekable():
            self.target, self.at = str(self.out.raw.name), self.out.tell()
        splicer.out = cast(BinaryIO, self.made)
        self.processes, self.size = processes, size
        self.helpers: list[Helper] = []
        self.stack = ExitStack()
        self.bytes, self.room = LEAST_BLOCK, memoryview(b"")
        self.queue: deque[Block] = deque()
        self.pieces: deque[Piece] = deque()
        self.asked: dict[int, Piece] = {}
        self.numbers = self.put_back = self.width = 0
        # The first block of all is read here, and the last one of each input stays, for whoever looks whether
        # inputs are series of their own looks at them later.
        self.begun, self.last = False, cast("Block | None", None)
        self.lost = False

    # -- helpers

    def _grow(self, size: int) -> None:
        """Have as many helpers as pay, now that so much of the input has been read."""
        if self.processes == 1:
            return
        most = helpers_for(max(size, self.size or 0), self.processes)
        if len(self.helpers) >= most:
            return
        from ema_cli.run.helper import start

        if not self.helpers:
            self.stack.enter_context(at_interrupt(self._kill))
            self.room = memoryview(bytearray(LEAST_BLOCK))
        try:
            while not is_one_of_many() and len(self.helpers) < most:
                with uninterrupted():
                    self.helpers.append(start())
                self.helpers[-1].tell("begin", self._about())
        except OSError:  # there is no memory or process for it
            self.processes = 1
        if is_one_of_many():
            self.processes = 1

    def _about(self) -> bytes:
        splicer = copy(self.splicer)
        splicer.out = cast(BinaryIO, None)
        apart = None if self.divisible is None else self.divisible.detached()
        return pickle.dumps((apart, self.wanted, splicer, self.target, self.out.name), 5)

    def _free(self) -> Helper | None:
        """A helper with room for a block: one that has least to do."""
        there = [helper for helper in self.helpers if helper.ready and helper.free]
        return max(there, key=lambda helper: len(helper.free), default=None)

    def _listen(self, *, patient: bool = False) -> None:
        """Take what helpers have to say; patient: wait until one does."""
        if not self.helpers:
            return
        from multiprocessing.connection import wait

        connections = {helper.connection: helper for helper in self.helpers}
        while True:
            heard = wait(list(connections), PROMPT if patient else 0)
            for connection in heard:
                self._hear(connections[cast(Any, connection)])
            if heard or not patient:
                return

    def _hear(self, helper: Helper) -> None:
        try:
            what, *rest = helper.connection.recv()
        except (EOFError, OSError):
            self.lost = True
            problem = "a process that shares the work was killed; is there too little memory?"
            raise EmaError(problem, "-j 1, for one process") from None
        if what == "failed":
            self.lost = True
            raise rest[0]
        getattr(self, f"_{what}")(helper, *rest)

    def _ready(self, helper: Helper) -> None:
        helper.ready = True

    def _looked(self, helper: Helper, number: int, bare: bytes | None, places: Any, lines: int) -> None:
        block: Block = helper.under_way[number]
        block.settled = True
        if bare is None or block.over:
            self._release(block)
            return
        assert block.region is not None
        block.region.used = max((at + size for at, size in places), default=len(block.data))
        self._settle(block, pickle.loads(bare, buffers=block.region.views(places)), lines)

    def _laid_out(self, _: Helper, number: int, size: int) -> None:
        self.asked[number].size = size
        self._flush()

    def _written(self, _: Helper, number: int) -> None:
        piece = self.asked.pop(number)
        if self.pieces and self.pieces[0] is piece:
            self.pieces.popleft()
        assert piece.block is not None
        piece.block.unwritten -= 1
        self._release(piece.block)
        self._flush()

    def _release(self, block: Block) -> None:
        """Let another block have the region, if nothing of this one is needed any more."""
        region, helper = block.region, block.helper
        done = block.over and not block.unwritten and block.settled
        if region is None or helper is None or not (done or (block.settled and block.batches is None)):
            return
        if block.batches is None:  # to be put back
            block.data = bytes(block.data)
        del helper.under_way[region.number]
        helper.free.append(region)
        block.region = None

    # -- reading

    def batches(self) -> Iterator[Batch]:
        return self.source.batches_by(self._read, self.wanted)

    def _read(self, whole: Source, wanted: Projection) -> Iterator[Batch]:
        """The rows of one input."""
        source = self.divisible = whole.divisible()
        for helper in self.helpers:
            helper.tell("begin", self._about())
        if source is None:
            for batch in whole.batches(wanted):
                self._grow(batch.size)
                yield batch
            return
        self.put_back = 0
        yield from self._shared(source)

    def _shared(self, source: Divisible) -> Iterator[Batch]:
        while True:
            self._listen()
            if self.begun:
                self._hand_out(source)
            if self.queue and self.queue[0].settled:
                yield from self._next(source)
            elif self.queue:
                if not self._take_one(source):
                    self._listen(patient=True)
            else:
                # What has been read so far is answered before anybody waits for more.
                if not source.ready:
                    self._drain()
                batches = source.next_batches(self.wanted)
                if batches is None:
                    if self.last is not None:
                        self.last.data, self.last.file = self.last.text(), None
                    return
                self._grow(source.size)
                yield from batches
                self.begun = True

    def _hand_out(self, source: Divisible) -> None:
        """Give blocks that are there to helpers that have room."""
        while self._shares(source) and (helper := self._free()) is not None:
            region = helper.free[-1]
            block = self._taken(source, region.room[: self.bytes])
            if block is None:
                return
            block.region, block.helper = helper.free.pop(), helper
            helper.under_way[region.number] = block
            helper.tell("look", region.number, block.length, None if block.file is None else block.begin)

    def _taken(self, source: Divisible, room: memoryview) -> Block | None:
        """The next block, whose bytes are in this room or in a file; None where there is none."""
        file = source.shared
        begin = 0 if file is None else source.at
        size = source.take(room, LEAST_BYTES)
        if not size:
            return None
        block = Block(size, room[:size] if file is None else b"", source.taken(), file, begin)
        self.queue.append(block)
        return block

    def _shares(self, source: Divisible) -> bool:
        """Whether there may be a block to be handed out."""
        return self.put_back < PATIENCE and not source.ended and source.ready

    def _take_one(self, source: Divisible) -> bool:
        """Read a block here, as all helpers have enough to do; says whether there was one."""
        own = sum(block.helper is None for block in self.queue)
        if not self._shares(source) or own + self._waiting() >= WAITING:
            return False
        block = self._taken(source, self.room)
        if block is None:
            return False
        block.settled, block.data = True, bytes(block.data)
        if (found := source.read_block(block.text(), self.wanted)) is not None:
            self._settle(block, *found)
        return True

    def _settle(self, block: Block, read: Sequence[Batch], lines: int) -> None:
        """A block has been read; the next ones are to have as many rows as are folded at once."""
        block.lines = lines
        block.batches = [self._elsewhere(block, k, one) for k, one in enumerate(read)]
        rows = max(1, sum(batch.rows for batch in read))
        most = LEAST_BLOCK if self.divisible is None else self.divisible.most
        self.bytes = min(max(block.length * GOOD_ROWS // rows, LEAST_BLOCK), most)

    def _elsewhere(self, block: Block, number: int, read: Batch) -> Batch:
        assert self.divisible is not None
        return Elsewhere(self.divisible, self.wanted, block, number).batch(read)

    def _next(self, source: Divisible) -> Iterator[Batch]:
        """The rows of the first block in the queue; of all that are left, where it has to be put back."""
        block = self.queue[0]
        if block.batches is None:
            source.put_back(b"".join(bytes(each.data) for each in self.queue), block.begin)
            self.put_back += 1
            for each in self.queue:
                each.over = True
                self._release(each)
            self.queue.clear()
            yield from source.next_batches(self.wanted) or ()
            return
        self.last = self.queue.popleft()
        block.line = source.line
        source.line += block.lines
        self._grow(source.size)
        for batch in block.batches:
            batch.out = self._room_for(block, batch.rows)
            yield batch
        block.over = True
        self._release(block)

    # -- writing

    def _room_for(self, block: Block, rows: int) -> Floats | None:
        """Where a helper finds new fields, so that nobody has to copy them there; None where that isn't."""
        return None if block.region is None or not self.width else block.region.floats(self.width, rows)

    def write(self, batch: Batch, fields: Floats) -> None:
        self.numbers, self.width = self.numbers + 1, fields.shape[1]
        piece = Piece(self.numbers)
        if not (self._lay_out(piece, batch, fields) or self._ship(piece, batch, fields)):
            self.splicer.append(*batch.body.texts(self.splicer.layout), fields)
            piece.texts = self.made.pop_all()
            piece.size = piece.texts.size
        self.pieces.append(piece)
        self._flush()
        while self._waiting() > WAITING:
            self._listen(patient=True)

    def _waiting(self) -> int:
        """How many texts that were made here wait for others."""
        return sum(piece.texts is not None for piece in self.pieces)

    def _lay_out(self, piece: Piece, batch: Batch, fields: Floats) -> bool:
        """Have the helper that has the batch make its text; not where another has it, or there is no room."""
        body = batch.body
        if not isinstance(body, Elsewhere) or body.block.region is None:
            return False
        region = body.block.region
        where = region.where(fields.T) or region.place([fields.T])
        if where is not None:
            self._ask(piece, body.block, "lay_out", body.number, piece.number, *where)
        return where is not None

    def _ship(self, piece: Piece, batch: Batch, fields: Floats) -> bool:
        """Have a helper make text of rows that were read here, if there is one and it pays."""
        if self.divisible is not None or batch.rows < LEAST_ROWS or (helper := self._free()) is None:
            return False
        own, tail = batch.body.texts(self.splicer.layout)
        region = helper.free[-1]
        region.used = 0
        where = region.place([*offsets_and_bytes(own), np.frombuffer(tail, np.uint8), fields.T])
        if where is None:
            return False
        block = Block(0, b"", 0, region=helper.free.pop(), helper=helper, settled=True, batches=[], over=True)
        helper.under_way[region.number] = block
        self._ask(piece, block, "append", piece.number, where[:2], *where[2:])
        return True

    def _ask(self, piece: Piece, block: Block, what: str, *how: Any) -> None:
        assert block.region is not None
        assert block.helper is not None
        piece.block = block
        block.unwritten += 1
        self.asked[piece.number] = piece
        block.helper.tell(what, block.region.number, *how)

    def _flush(self) -> None:
        """Write, or have written, all texts whose turn it is."""
        while self.pieces:
            piece = self.pieces[0]
            if piece.size is None or piece.asked:
                return
            if piece.texts is not None:
                self.lost = True  # if that fails
                piece.texts.write_to(cast(BinaryIO, self.out), self.at)
                self.lost = False
            elif piece.block is not None and piece.block.helper is not None:
                piece.block.helper.tell("write", piece.number, self.at)
                piece.asked = True
                if self.at is None:  # the next one's turn is when this is written
                    return
            self.pieces.popleft()
            self.at = None if self.at is None else self.at + piece.size

    def _drain(self) -> None:
        """Wait until all is written that has been handed over."""
        while self.pieces or self.asked:
            self._listen(patient=True)

    # -- the end

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if not self.lost and (value is None or isinstance(value, Exception)):
                self._drain()
        finally:
            self._kill()
            for helper in self.helpers:
                helper.process.join()
            self.stack.close()
            self.source.close()

    def _kill(self) -> None:
        """End all helpers, which have nothing that would be lost."""
        for helper in self.helpers:
            helper.process.kill()


def crew_for(source: Source, wanted: Projection, sink: Sink, processes: int, size: int | None) -> Crew | None:
    """The processes for an input; None where the output is none that they can write.

    processes: how many there may be; 0: as many as help. size: of the input, if known.
    """
    splicer = sink.splicer
    if splicer is None or not isinstance(splicer.out, Output):
        return None  # a compressor would have to be ended where it is
    file = splicer.out.raw.fileno()
    can_write = file == STDOUT or stat.S_ISREG(os.fstat(file).st_mode)
    return Crew(source, wanted, splicer, processes if can_write else 1, size)
