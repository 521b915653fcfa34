"""One run: source → trends → sink, batch by batch, and the state at the end."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from ema_cli.average import Average
from ema_cli.engine.arithmetic import Bools
from ema_cli.engine.engine import KeyedRows
from ema_cli.errors import DataError, OptionError
from ema_cli.formats.base import Batch, Floats, Projection, Source
from ema_cli.formats.parts import Parts, check_header
from ema_cli.formats.registry import FORMATS, open_sink, open_source, target_of
from ema_cli.io.atomic import shared_mode
from ema_cli.io.spool import spool
from ema_cli.io.streams import Pushback, open_output, open_raw
from ema_cli.job import Job, Summary
from ema_cli.keys import KeyTable
from ema_cli.process import threads_for
from ema_cli.run.both_ways import BothWays
from ema_cli.run.deferred import Deferred, refuse_pipes
from ema_cli.run.newest_first import NewestFirst
from ema_cli.run.observer import SILENT, Observer
from ema_cli.run.order import Admitted, LateError, admitting, scatter
from ema_cli.run.overlap import Writer, overlapped
from ema_cli.run.row_notes import RowNotes
from ema_cli.run.saved_state import Save, SavedState, open_saved_state, order_of
from ema_cli.run.selection import Selection, check_seen, nothing_to_smooth, select
from ema_cli.run.suspicions import Suspicions


def run(job: Job, observer: Observer = SILENT) -> Summary:
    """Do the job; the observer is told of every step.

    Raises EmaError for whatever a user can mend; then a named output and the state are as they were.
    """
    # The state is renamed after the output, but is complete on the disk before the output is renamed.
    with open_saved_state(job) as memory, memory.saving() as save:
        return run_part(job, memory, save, observer)


def run_part(job: Job, memory: SavedState, save: Save, observer: Observer = SILENT) -> Summary:
    """Do the job, carrying on from `memory`, and leave in it what the next part carries on from.

    save: called with everything to remember, once the output is written but before it is renamed.
    """
    with ExitStack() as stack:
        finds_alphas = job.average.auto and memory.alphas is None
        again = job.newest_first or job.average.centered or finds_alphas
        start = stack.enter_context(rewindable_stdin(job)) if again else 0
        source = open_inputs(job)
        opened = stack.enter_context(ExitStack())
        opened.callback(source.close)
        before = memory.find_columns(source)
        chosen = _choose(job, memory, source, before)
        if chosen is None:
            return pass_through(job, source)
        notes, back, bare = RowNotes(job, chosen), None, replace(chosen.wanted, keep=())
        deferred = chosen.wanted, len(chosen.new), partial(_again, job, chosen, start)
        if job.newest_first:
            back = stack.enter_context(closing(NewestFirst(*deferred, notes)))
            back.read(source, bare)
        if finds_alphas:
            rows = partial(_batches_again, memory.job, chosen, start, back)
            memory.alphas = find_alphas(memory.job, chosen, rows)
        work = Work(job, chosen, memory, notes)
        work.is_first = before is None
        observer = _OfAdmitted(work, observer)
        if job.average.centered:
            both = BothWays(*deferred, job.average, len(chosen.smoothed), newest_first=job.newest_first)
            stack.enter_context(closing(both))
            both.name = source.name
            work.fold_both_ways(both, back, source.batches(bare), observer)
        elif back is not None:
            work.fold_backwards(back, observer)
        if work.deferred is not None:
            source.close()
            source = work.deferred.reopen()
            opened.callback(source.close)
        with _written(source, opened, work, observer if work.deferred is None else SILENT):
            observer.end(work.summary)
            save(chosen, work.trends, work.keys)
        return work.summary


def _choose(job: Job, memory: SavedState, source: Source, before: list[int] | None) -> Selection | None:
    """The columns of the run; None where there are no rows to tell.

    before: the positions of the columns of the run that is carried on. Raises StateError where they differ.
    """
    if memory.header is not None and source.columns and not source.open_ended:
        check_header(source.columns, memory.header, source.name)
    chosen = select(source, job, before, memory.order_is_time)
    if chosen is None:
        return None
    memory.header = source.columns
    memory.check(chosen)
    # Only where times change format does it matter whether they name a zone.
    if FORMATS[target_of(job, source)].module == source.kind or not source.has_naive_times(chosen.wanted):
        return chosen
    return replace(chosen, wanted=replace(chosen.wanted, naive=True))


@contextmanager
def _written(source: Source, opened: ExitStack, work: Work, observer: Observer) -> Iterator[None]:
    """Write everything; the block runs before the output is renamed to its place."""
    job, chosen = work.job, work.chosen
    with open_output(job.output, shared_mode(job.inputs), threads_for(job.processes)) as out:
        sink = open_sink(job, out, source, chosen.wanted, chosen.new)
        reading = chosen.wanted if sink.needs_bodies else replace(chosen.wanted, keep=())
        opened.pop_all()  # from here on, whoever reads the source closes it
        with overlapped(source, reading, sink, job) as (batches, writer):
            for batch in batches:
                observer.saw(batch, work.write(batch, writer))
        sink.finish()
        work.finish(source)
        yield


class Work:
    """What happens to a batch between source and sink."""

    def __init__(self, job: Job, chosen: Selection, memory: SavedState, notes: RowNotes) -> None:
        self.job, self.chosen = job, chosen
        self.trends, self.keys = memory.carry_on(chosen)
        if memory.order is None:
            memory.order = order_of(job, chosen)
        self.order = memory.order
        self.summary = Summary(names=chosen.smoothed, alphas=memory.alphas)
        self.notes = notes
        self.suspicions = Suspicions(job, chosen.columns, chosen.places)
        self.deferred: Deferred | None = None
        self.update: Callable[..., Floats] = self.trends.update
        self.admitted: Admitted | None = None
        self.written, self.is_first = 0, True

    def write(self, batch: Batch, writer: Writer) -> Floats:
        """Write a batch with its new fields, and give these.

        Raises DataError for a bad row, after writing those above it.
        """
        self.written += batch.rows
        self.suspicions.saw(batch)
        if self.deferred is not None:
            return self.deferred.write(batch, writer)
        fields = self.fields(batch)
        if len(fields) < batch.rows:
            writer.write(batch.head(len(fields)), fields)
            raise self.fault(batch, len(fields))
        writer.write(batch, fields)
        return fields

    def fold_backwards(self, back: NewestFirst, observer: Observer) -> None:
        """Compute all new fields before the first row is written. Raises DataError for a bad row."""
        back.fold(self._sound, observer)
        self._count(back)
        self.deferred = back

    def fold_both_ways(
        self, both: BothWays, back: NewestFirst | None, batches: Iterator[Batch], observer: Observer
    ) -> None:
        """The same for the two-sided average. back: what gives the rows, if `batches` does not."""
        self.update = both.forward
        for batch in batches if back is None else (batch for _, batch in back.batches()):
            found, there = self._sound(batch), None if self.admitted is None else self.admitted.there
            kept = found if there is None else found[there]
            both.add(self._admitted(batch), there, batch.rows, kept)
        if back is not None:
            self._count(back)
        self.admitted = None
        both.fold(observer)
        self.deferred = both

    def _sound(self, batch: Batch) -> Floats:
        """The new fields of a batch. Raises DataError for a bad row."""
        found = self.fields(batch)
        if len(found) < batch.rows:
            raise self.fault(batch, len(found))
        return found

    def _count(self, back: NewestFirst) -> None:
        """Count the cells that were no number when the rows were first read."""
        self.summary.invalid += back.invalid
        self.summary.missing -= back.invalid

    def _admitted(self, batch: Batch) -> Batch:
        """The rows of a batch that went into the averages, for observers; it can't be written."""
        admitted = self.admitted
        if admitted is None or admitted.there is None:
            return batch if admitted is None else replace(batch, restarts=admitted.restarts)
        rows, there = admitted.rows, pa.array(admitted.there)
        kept = replace(
            batch,
            rows=rows.count,
            values=rows.values,
            times=rows.times,
            keys=rows.keys,
            restarts=admitted.restarts,
            clock=rows.clock,
        )
        kept.extra = [column.take(there) for column in batch.extra]
        return kept

    def saw(self, batch: Batch, fields: Floats, observer: Observer) -> None:
        """Show an observer the rows that went into the averages."""
        there = None if self.admitted is None else self.admitted.there
        observer.saw(self._admitted(batch), fields if there is None else fields[there])

    def finish(self, source: Source) -> None:
        """Everything has been written. Raises FileTrouble where that can't be all, OptionError for a column
        that no row had."""
        if self.deferred is not None:
            self.deferred.check_all(self.written)
        if self.is_first:
            check_seen(source, self.job)
        self.summary.notes += [*source.notes(), *self.notes.notes(), *self.suspicions.notes]

    def fields(self, batch: Batch) -> Floats:
        """The new fields of a batch's rows; if one is bad, only of those above it."""
        missing = missing_cells(batch.values[:, : len(self.chosen.smoothed)])
        wrong = refused(self.job.average, batch.values)
        if wrong.any():
            batch = batch.head(int(np.flatnonzero(wrong.any(axis=1))[0]))
        try:
            fields = self._fold(batch)
        except LateError as error:
            batch = batch.head(error.row)
            fields = self._fold(batch)
        self.summary.rows += batch.rows
        self.summary.missing += missing - batch.invalid
        self.summary.invalid += batch.invalid
        return fields

    def _fold(self, batch: Batch) -> Floats:
        """The new fields of rows, blank for those left out. Raises LateError, and then folds in nothing."""
        with admitting(self.order, batch, self.keys) as admitted:
            rows = admitted.rows
            given = rows.values, rows.times, admitted.keys, admitted.restarts
            fields = self.update(*given, batch.out if admitted.there is None else None)
        self.admitted = admitted
        self.notes.saw(batch, admitted.late)
        return fields if admitted.there is None else scatter(fields, admitted.there, batch.rows)

    def fault(self, batch: Batch, row: int) -> DataError:
        """The error of the row that `fields` stopped at."""
        wrong = np.flatnonzero(refused(self.job.average, batch.values[row : row + 1]))
        if not wrong.size:
            return self.notes.error(batch, row)
        column = int(wrong[0])
        where = batch.place(row, self.chosen.wanted.values[column])
        if batch.values[row, column] < 0.0:
            return DataError("a negative weight", where, "a weight is 0 or more: how often its row counts")
        empty = np.isnan(batch.values[row, column])
        what = "a missing value" if empty else "a weight of 0, which makes the row a missing one"
        return DataError(what, where, "--missing skip (or decay) to go on without it")


def missing_cells(values: Floats) -> int:
    """How many are NaN. The maximum, which is quicker to find, tells if any is."""
    return int(np.count_nonzero(np.isnan(values))) if np.isnan(values.max(initial=0.0)) else 0


def refused(average: Average, values: Floats) -> Bools:
    """Which cells stop the run: missing ones with `--missing error`, and negative weights."""
    weighted, strict = average.weighted, average.missing == "error"
    cells = np.isnan(values) if strict else np.zeros((len(values), values.shape[1] * weighted), bool)
    if weighted:
        weights = values[:, -1]
        cells[:, -1] |= (weights <= 0.0) if strict else (weights < 0.0)
    return cells


class _OfAdmitted(Observer):
    """An observer that is shown only the rows that went into the averages."""

    def __init__(self, work: Work, observer: Observer) -> None:
        self.work, self.observer = work, observer
        observer.begin(work.chosen)

    def saw(self, batch: Batch, fields: Floats) -> None:
        self.work.saw(batch, fields, self.observer)

    def end(self, summary: Summary) -> None:
        self.observer.end(summary)


def open_inputs(job: Job) -> Source:
    """The rows of all inputs, one after another."""
    opener = partial(open_source, job)
    if len(job.inputs) == 1 and not job.by_file:
        return opener(job.inputs[0])
    return Parts(job.inputs, opener, by_file=job.by_file)


def pass_through(job: Job, source: Source) -> Summary:
    """Pass on an input without rows as it is. Raises DataError where there are rows."""
    wanted = Projection(())
    has_records = bool(source.columns) or source.open_ended
    batches = list(_until_rows(job, source, source.batches(wanted) if has_records else iter(())))
    with open_output(job.output, shared_mode(job.inputs)) as out:
        sink = open_sink(job, out, source, wanted, [])
        for batch in batches:
            sink.write(batch, batch.values)
        sink.finish()
    what = "no rows" if source.columns else "empty"
    return Summary(notes=[f"{source.name}: {what}, passed on as it is"])


def _until_rows(job: Job, source: Source, batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if batch.rows:
            raise nothing_to_smooth(job, source)
        yield batch


@contextmanager
def rewindable_stdin(job: Job) -> Iterator[int]:
    """Make stdin readable more than once, by a temporary file with its contents if it is a pipe.

    Gives the offset in stdin where the input begins. Raises OptionError for other inputs that are pipes.
    """
    ways = {"--newest-first": job.newest_first, "--centered": job.average.centered, "--alpha auto": True}
    refuse_pipes(job.inputs, next(option for option, asked in ways.items() if asked))
    if job.inputs.count("-") > 1:
        raise OptionError("stdin is named twice", "each input once")
    if "-" not in job.inputs:
        yield 0
        return
    if stat.S_ISREG(os.fstat(0).st_mode):
        yield os.lseek(0, 0, os.SEEK_CUR)
        return
    with spool(Pushback(open_raw("-"), "stdin")) as spooled:
        os.dup2(spooled.fileno(), 0)
        yield os.lseek(0, 0, os.SEEK_SET)


def find_alphas(job: Job, chosen: Selection, batches: Callable[[], Iterator[Batch]]) -> list[float]:
    """The weights that predict each column best. batches: gives all rows, as often as they are asked for."""
    from ema_cli.auto import best_alphas

    def tiles() -> Iterator[tuple[Floats, KeyedRows | None]]:
        keys, order = KeyTable(), order_of(job, chosen)
        for batch in batches():
            try:
                admitted = order.admit(batch, keys)
            except LateError:  # the run itself will stop there, with a message
                return
            admitted.accept()
            if admitted.rows.count:
                yield admitted.rows.values, admitted.keys

    return best_alphas(tiles, job.average, len(chosen.smoothed))


def _again(job: Job, chosen: Selection, start: int) -> Source:
    """The inputs, opened again. start: offset in stdin where the input begins, if stdin is an input."""
    if "-" in job.inputs:
        os.lseek(0, start, os.SEEK_SET)
    source = open_inputs(job)
    for name, key in chosen.further:  # in the same order, so that they get the same indexes
        source.further(name, key)
    return source


def _batches_again(job: Job, chosen: Selection, start: int, back: NewestFirst | None) -> Iterator[Batch]:
    """All rows in the order of smoothing; stdin's position is restored."""
    if back is not None:
        for _, batch in back.batches():
            yield batch
        return
    here = os.lseek(0, 0, os.SEEK_CUR) if "-" in job.inputs else 0
    try:
        with closing(_again(job, chosen, start)) as source:
            yield from source.batches(chosen.wanted)
    finally:
        if "-" in job.inputs:
            os.lseek(0, here, os.SEEK_SET)
