"""`Smoother`: averages of a stream, chunk by chunk, that can be saved and carried on elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ema_cli.api.chunks import Chunk, Roles, fold, new_order, read_chunk, row_order
from ema_cli.api.options import Options, read_options
from ema_cli.average import Average
from ema_cli.errors import DataError, OptionError, StateError
from ema_cli.keys import KeyTable
from ema_cli.run.order import RowOrder
from ema_cli.state_options import check_version, defaults_of, differences
from ema_cli.trends import Trends

if TYPE_CHECKING:
    from typing import Unpack

FORMAT, VERSION = "ema_cli.Smoother", 3


class Smoother:
    """An average of rows that come chunk by chunk: N rows, then M, give what N + M give, bit for bit.

    The first chunk decides how many columns there are, their names, and whether rows have keys and weights.

    Parameters
    ----------
    **options
        See `Options`; not `alpha="auto"` and `centered=True`, which need the whole series. With a half-life
        that is a duration, every chunk needs times.

    Raises
    ------
    ValueError
        For options that are out of range or contradict each other; TypeError for an option there is not.

    Examples
    --------
    >>> s = Smoother(alpha=0.5)
    >>> s.update([1.0, 2.0]), s.update(3.0)
    (array([1. , 1.5]), 2.25)
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self._settings = read_options(options)
        if self._settings.average.auto:
            raise OptionError(
                "alpha='auto' needs the whole series, and a Smoother sees it piece by piece",
                "smooth(x, alpha='auto'), or a fixed weight such as alpha=0.1",
            )
        if self._settings.average.centered:
            raise OptionError(
                "centered=True needs the whole series, and a Smoother sees it piece by piece",
                "smooth(x, centered=True)",
            )
        self._keys = KeyTable()
        self._trends: Trends | None = None
        self._order: RowOrder | None = None
        self._labels: list[str] | None = None
        self._keyed = False

    def update(
        self,
        x: Any,
        times: Any = None,
        by: Any = None,
        order: Any = None,
        axis: Any = None,
        weights: Any = None,
    ) -> Any:
        """The averages of further rows.

        Parameters
        ----------
        x, times, by, order, axis, weights
            As for `smooth`, any number of rows; x may be a single number.

        Returns
        -------
        What x is
            As from `smooth`; a float for a single number.

        Raises
        ------
        ValueError
            As from `smooth`, and where columns, times, keys, order or weights are not like those of earlier
            chunks. Then nothing was folded in.
        """
        self._check_times(times is not None)
        self._weigh(weights is not None)
        chunk = read_chunk(x, Roles(times, by, order, axis, weights), self._settings, self._labels or ())
        labels = None if chunk.table.labels is None else [str(label) for label in chunk.table.labels]
        self._check_columns(chunk, labels)
        fresh = row_order(chunk, self._settings)
        trends = self._trends or Trends(self._settings.average, chunk.table.values.shape[1])
        known = self._order or fresh
        self._check_order(chunk, known, fresh)
        # Only times and order can still be at fault, in a later tile after earlier ones were folded in.
        before = (
            (*_copies(trends), _copied(known, fresh)) if chunk.ordered and len(chunk) > chunk.tile else None
        )
        try:
            out = fold(chunk, trends, self._keys, known)
        except DataError:
            if self._trends is None:
                self._keys = KeyTable()
            elif before is not None:
                trends.restore(*before[:2])
                self._order = before[2]
            raise
        if len(chunk) or self._trends is not None:
            self._trends, self._order, self._keyed = trends, known, bool(chunk.keys)
            self._labels = self._labels or labels
        return out

    def _check_times(self, given: bool) -> None:
        timed = self._settings.average.timed
        if timed and not given:
            raise OptionError("a half-life that is a duration needs times", "update(x, times=...)")
        if given and not timed:
            raise OptionError(
                "times need a half-life that is a duration", "Smoother(halflife='5min') (ns us ms s min h d)"
            )

    def _weigh(self, weighted: bool) -> None:
        """The first chunk decides whether rows have weights. Raises OptionError where a later one differs."""
        average = self._settings.average
        if average.weighted == weighted:
            return
        if self._trends is not None or average.auto:
            now, then = ("with", "without") if weighted else ("without", "with")
            hint = "update(x), or weights from the first chunk on" if weighted else "update(x, weights=...)"
            raise OptionError(f"rows {now} weights, where the chunks before were {then}", hint)
        self._settings = replace(self._settings, average=replace(average, weighted=weighted))

    def _check_columns(self, chunk: Chunk, labels: list[str] | None) -> None:
        if self._trends is None:
            return
        width = chunk.table.values.shape[1]
        if width != self._trends.columns:
            raise DataError(f"{width} columns, where the chunks before had {self._trends.columns}")
        if labels is not None and self._labels is not None and labels != self._labels:
            raise DataError(f"columns {labels}, where the chunks before had {self._labels}")
        if bool(chunk.keys) != self._keyed:
            now, then = ("with", "without") if chunk.keys else ("without", "with")
            raise DataError(f"rows {now} keys, where the chunks before were {then}")
        if len(chunk.keys) != self._keys.columns:
            raise DataError(f"keys of {len(chunk.keys)} columns, not of {self._keys.columns}")

    def _check_order(self, chunk: Chunk, known: RowOrder, fresh: RowOrder) -> None:
        """Raise DataError where rows have an order and those before had another kind of one, or none."""
        before = chunk.times is None and bool(len(known.known.last))
        if self._trends is not None and before != (chunk.clock.order is not None):
            now, then = ("without", "with") if before else ("with", "without")
            raise DataError(f"rows {now} an order, where the chunks before were {then}")
        if before and known.known.last.dtype != fresh.known.last.dtype:
            raise DataError("an order of times, where the chunks before had numbers, or the other way round")

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state.

        Returns
        -------
        dict of str to array, str or int
            For pickle, JSON (by `tolist()`), or `numpy.savez(file, **state)` and `dict(numpy.load(file))`.
            `key.…` are the keys, `0.…` the averages, `order.…` the order of rows.
        """
        state: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "options": json.dumps(self._signature()),
            "columns": 0 if self._trends is None else self._trends.columns,
            "labels": json.dumps(self._labels),
            "keyed": self._keyed,
        }
        if self._trends is not None:
            arrays, keys = _copies(self._trends)
            state |= {"series": keys, **arrays}
            state |= {f"key.{name}": array for name, array in self._keys.arrays().items()}
        if self._order is not None and (arrays := self._order.state()):
            state |= {f"order.{name}": np.array(array) for name, array in arrays.items()}
            state["order"] = str(arrays["last"].dtype)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Carry on from a state, forgetting the present one.

        Parameters
        ----------
        state
            What `state_dict` gave; arrays may be lists.

        Raises
        ------
        ValueError
            A StateError, where the state was made with other options, for other columns than this Smoother
            has had, or is damaged. Then nothing changes.
        """
        try:
            if _plain(state["format"]) != FORMAT:
                raise StateError(f"not a state of {FORMAT}")
            check_version(_plain(state["version"]), VERSION, "the state", "smooth the series from its start")
            then, labels = json.loads(_plain(state["options"])), json.loads(_plain(state["labels"]))
            columns, keyed = int(state["columns"]), bool(state["keyed"])
            if self._trends is None:
                self._weigh(bool(dict(then).get("weighted", False)))
            self._check_state(then, columns, labels)
            trends = Trends(self._settings.average, columns) if columns else None
            keys = KeyTable()
            if trends is not None:
                keys.restore({name[4:]: array for name, array in state.items() if name.startswith("key.")})
                trends.restore(_typed(state, trends), int(state["series"]))
                if len(keys) < int(state["series"]) * keyed:
                    raise ValueError("keys are missing")
            order = self._order_in(state)
        except StateError:
            raise
        except (KeyError, ValueError, TypeError) as error:
            raise StateError(f"the state is damaged or incomplete: {error}") from error
        self._trends, self._keys, self._keyed, self._labels = trends, keys, keyed, labels
        self._order = order

    def _order_in(self, state: Mapping[str, Any]) -> RowOrder | None:
        """The order of rows in a state. Raises KeyError or ValueError where it is damaged."""
        given = {name[6:]: array for name, array in state.items() if name.startswith("order.")}
        if not given and "order" not in state:
            return None
        order = new_order(self._settings, of_times=_plain(state["order"]) == "int64")
        kinds = order.known.arrays()
        order.restore({name: np.asarray(given[name], kind.dtype) for name, kind in kinds.items()})
        return order

    def _signature(self) -> dict[str, Any]:
        settings = self._settings
        form = {f"time-{field}": value for field, value in asdict(settings.form).items() if value is not None}
        late = {} if settings.late == "error" else {"late": settings.late}
        return dict(settings.average.signature()) | form | late

    def _check_state(self, then: dict[str, Any], columns: int, labels: list[str] | None) -> None:
        if differ := differences(then, self._signature(), defaults_of(Average)):
            said = "; ".join(str(each._replace(name=each.name.replace("-", "_"))) for each in differ)
            raise StateError(f"the state was made with other options: {said}")
        if self._trends is not None and columns and columns != self._trends.columns:
            raise StateError(f"the state has {columns} columns, this Smoother {self._trends.columns}")
        if self._labels is not None and labels is not None and labels != self._labels:
            raise StateError(f"the state is of columns {labels}, this Smoother of {self._labels}")


def _copies(trends: Trends) -> tuple[dict[str, Any], int]:
    arrays = {name: np.array(array) for name, array in trends.state().items()}
    return arrays, trends.series


def _copied(order: RowOrder, fresh: RowOrder) -> RowOrder:
    """An independent copy of `order`, made of the empty `fresh`."""
    fresh.restore(order.state())
    return fresh


def _plain(value: Any) -> Any:
    """Text and numbers, which NumPy's files give back as arrays without dimensions."""
    return value.item() if isinstance(value, np.ndarray) else value


def _typed(state: Mapping[str, Any], trends: Trends) -> dict[str, Any]:
    """The engine's arrays; lists (from JSON) get the dtype they had."""
    wanted = trends.state()
    return {
        name: np.asarray(state[name], array.dtype) if isinstance(state[name], list) else state[name]
        for name, array in wanted.items()
    }
