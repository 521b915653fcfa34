"""Averages in torch tensors, where the parameters are: on any device, and of the local shards of DTensors.

An update goes through the parameters twice: one test for finite values, then the fold. Where parameter and
average are of one dtype the fold is `torch._foreach_lerp_` on whole tensors, as torch's own is. Else it goes
slice by slice through buffers that stay in the cache: a handful of operations on single elements, so that
bytes depend neither on the number of threads nor on where a slice ends. They are written once and run in two
ways: on one large slice by tensor methods, on many small ones by `torch._foreach_*`, which on an accelerator
is one kernel for all of them, and on the CPU leaves the interpreter to the other threads.

Threads on the CPU are our own, each with pieces so small that torch does not share them out. torch's threads
wait for each other after each operation; on a machine that has other work to do, that took ten times as long.
With one operation for a whole tensor it was still four times there, and saved a tenth on a quiet one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from ema_cli.errors import DataError, OptionError, StateError
from ema_cli.parameters.leaves import AVERAGED, Leaf
from ema_cli.parameters.numpy_store import precision_for
from ema_cli.parameters.tensors import is_tensor
from ema_cli.parameters.torch_rounding import PIECE, round_stretch, rounded_to, split, widened

# Pieces that a thread folds at once, in two buffers of 2 MB, and threads that have them.
_TOGETHER, _MOST_THREADS = 8, 8
# Elements that a thread tests or rounds at once, and those of a tensor that is no plain row of values, of
# which a copy is made for each slice. Threads that ask for the interpreter more often wait for each other.
_SLICE = 1 << 20
# Below this many elements more threads cost more than they bring.
_WORTH_THREADS = 1 << 18
# Elements that an accelerator folds at once: two buffers of float64 are 32 MB.
_GROUP = 1 << 21

F = TypeVar("F", bound=Callable[..., Any])


def _plainly(method: F) -> F:
    """Run a method apart from autograd: averages are ordinary tensors, wherever it is called."""

    @functools.wraps(method)
    def run(*args: Any, **named: Any) -> Any:
        with torch.inference_mode(mode=False), torch.no_grad():
            return method(*args, **named)

    return run  # type: ignore[return-value]


class _One:
    """The operations of a fold, on one tensor."""

    copy = staticmethod(torch.Tensor.copy_)
    add = staticmethod(torch.Tensor.add_)
    sub = staticmethod(torch.Tensor.sub_)
    lerp = staticmethod(torch.Tensor.lerp_)


class _Many:
    """The same on lists of tensors."""

    copy = staticmethod(torch._foreach_copy_)
    add = staticmethod(torch._foreach_add_)
    sub = staticmethod(torch._foreach_sub_)
    lerp = staticmethod(torch._foreach_lerp_)


def _fold_one_part(ops: Any, parts: Sequence[Any], values: Any, gain: float, step: Any, _: Any) -> None:
    """average += gain · (values − average), for an average of one part."""
    (average,) = parts
    if gain == 1.0:
        ops.copy(average, values)
    else:
        ops.copy(step, values)
        ops.lerp(average, step, gain)


def _fold_pair(ops: Any, parts: Sequence[Any], values: Any, gain: float, step: Any, wide: Any) -> None:
    """The same for a pair of float32, whose sum and its step float64 holds; rounded to a pair again."""
    high, low = parts
    if gain == 1.0:
        ops.copy(wide, values)
    else:
        ops.copy(wide, high)
        ops.copy(step, low)
        ops.add(wide, step)
        ops.copy(step, values)
        ops.lerp(wide, step, gain)
    ops.copy(high, wide)
    ops.copy(step, high)
    ops.sub(wide, step)
    ops.copy(low, wide)


def _is_alike(average: _Average, values: Any) -> bool:
    kept = average.parts[0][0]
    same = len(average.parts[0]) == 1 and kept.dtype == values.dtype and kept.device == values.device
    return bool(same and values.is_contiguous())


def _fold_alike(pairs: Sequence[tuple[_Average, Any]], gains: Sequence[float]) -> None:
    """Fold averages of the values' own dtype, in one pass without buffers."""
    values = [value.reshape(-1) for _, value in pairs]
    numbers = sum(value.numel() for value in values)
    for which, gain in enumerate(gains):
        both = [(average.parts[which][0], value) for (average, _), value in zip(pairs, values, strict=True)]
        fold = functools.partial(_lerp, gain=gain)
        if values[0].device.type == "cpu":
            cut = [pieces for pair in both for pieces in zip(*(t.split(PIECE) for t in pair), strict=True)]
            _on_threads(cut, fold, numbers)
        else:
            fold(both)


def _lerp(pairs: Sequence[tuple[Any, Any]], gain: float) -> None:
    averages, values = zip(*pairs, strict=True)
    if gain == 1.0:
        torch._foreach_copy_(averages, values)
    elif gain != 0.0:
        torch._foreach_lerp_(averages, values, gain)


def _fold_infinities(parts: Sequence[Any], values: Any, gain: float, spreading: bool) -> None:
    """The same for a piece with infinities: one that stays is no change, where inf − inf would be NaN.

    Where a constant infinity has become a number, the average begins anew with that.
    """
    wide, values = widened(parts), values.double()
    step = (values - wide).mul_(gain).masked_fill_(values == wide, 0.0)
    new = values if gain == 1.0 else wide + step
    if not spreading:
        new = torch.where(wide.isinf() & values.isfinite(), values, new)
    parts[0].copy_(new)
    if len(parts) == 2:
        parts[1].copy_(torch.where(parts[0].isfinite(), new - parts[0].double(), 0.0))


@dataclass(slots=True)
class _Group:
    """What is folded at once: one large piece, or a list of small ones (`is_many`).

    `parts[k][j]` is part j of average k, a tensor or a list of them as `values` is; `size` counts elements.
    """

    precision: str
    parts: list[list[Any]]
    values: Any
    size: int
    is_many: bool = False

    @classmethod
    def empty(cls, precision: str, parts: Sequence[Sequence[Any]]) -> _Group:
        """For pieces to be added, of averages with so many parts."""
        return cls(precision, [[[] for _ in one] for one in parts], [], 0, is_many=True)

    def add(self, parts: Sequence[Sequence[Any]], values: Any) -> None:
        for ours, given in zip(self.parts, parts, strict=True):
            for our, part in zip(ours, given, strict=True):
                our.append(part)
        self.values.append(values)
        self.size += values.numel()


@dataclass
class _Average:
    """The averages of one leaf, flat: `parts[k][j]` is part j of average k; `shard` a DTensor's layout."""

    precision: str
    shape: tuple[int, ...]
    parts: list[tuple[Any, ...]]
    is_infinite: bool = False
    shard: Any = None

    @property
    def device(self) -> Any:
        return self.parts[0][0].device

    def settle(self, device: Any) -> None:
        """Move to where the parameter has gone."""
        if device != self.device:
            self.parts = [tuple(part.to(device) for part in one) for one in self.parts]


class TorchStore:
    """The averages of some leaves, several of each where several decays are asked for.

    precision: "float64", "float32x2" (a pair of float32, together about 48 bits), "float32"; None for
    float64 on the CPU and float32x2 elsewhere. device: where averages are kept; None for where their
    parameters are. spreading: infinities go on as they come; else one that was there from the start is a
    constant.
    """

    def __init__(self, precision: str | None, device: str | None, count: int, spreading: bool) -> None:
        self.precision = precision
        self._device = _checked_device(device)
        self._count = count
        self._spreading = spreading
        self._averages: dict[str, _Average] = {}
        self._copies: dict[str, Any] = {}

    @_plainly
    def begin(self, leaf: Leaf, zeros: bool) -> None:
        """Keep an average of the leaf from now on, beginning with its value or with zeros."""
        value = _local(leaf.value)
        if leaf.kind != AVERAGED:
            self._copies[leaf.name] = value.clone()
            return
        device = self._home(value)
        wide = torch.empty(
            value.numel(), dtype=torch.float64, device=device if device.type != "mps" else "cpu"
        )
        wide.view(value.shape).copy_(value)
        if zeros:
            wide[wide.isfinite()] = 0.0  # a constant infinity is one from the start
        precision = self._precision(leaf, device)
        parts = [tuple(self._kept(part) for part in split(wide, precision)) for _ in range(self._count)]
        self._keep(leaf, _Average(precision, tuple(value.shape), parts, shard=_shard(leaf.value)))

    def _home(self, value: Any) -> Any:
        """Where a parameter's average is kept. Metal has no float64, and so no fold."""
        if self._device is not None:
            return self._device
        return torch.device("cpu") if value.device.type == "mps" else value.device

    def _precision(self, leaf: Leaf, device: Any) -> str:
        on_cpu = device.type == "cpu"
        wanted = self.precision or ("float64" if on_cpu else "float32x2")
        return precision_for(leaf.dtype, wanted, on_cpu=on_cpu)

    def _kept(self, part: Any) -> Any:
        """A tensor to keep; in pinned memory where an accelerator's averages are kept on the host."""
        pinned = self._device is not None and self._device.type == "cpu" and torch.cuda.is_available()
        return part.pin_memory() if pinned else part.clone()

    def _keep(self, leaf: Leaf, average: _Average) -> None:
        average.is_infinite = not bool(average.parts[0][0].isfinite().all())
        self._averages[leaf.name] = average

    def drop(self, name: str) -> None:
        """Keep the average no longer."""
        self._averages.pop(name, None)
        self._copies.pop(name, None)

    # Checking

    @_plainly
    def unsound(self, leaves: Sequence[Leaf]) -> list[str]:
        """The names of leaves that hold a NaN or an infinity that was not there before, on any process."""
        flags = []
        for device, some in _by_device(leaves).items():
            plain = [leaf for leaf in some if not self._is_infinite(leaf)]
            found = _sums(plain, device) + [self._constant(leaf) for leaf in some if self._is_infinite(leaf)]
            if found:
                flags.append(torch.stack(found).isfinite().all())
        # One answer for all devices, and for all processes that hold shards: none may go on alone.
        if _agreed(flags, leaves):
            return []
        # A sum that overflows is no infinity in the parameters: look at each.
        names = [leaf.name for leaf in leaves if not self._is_sound(leaf)]
        if _meshes(leaves) and not names and not _agreed([True], leaves):
            return ["a shard of another process"]
        if _meshes(leaves) and names:
            _agreed([False], leaves)
        return names

    def _is_infinite(self, leaf: Leaf) -> bool:
        return leaf.name in self._averages and self._averages[leaf.name].is_infinite

    def _constant(self, leaf: Leaf) -> Any:
        """0 where the leaf's infinities are those that it had; NaN where there is another."""
        value = _local(leaf.value)
        before = self._averages[leaf.name].parts[0][0].view(value.shape).to(value.device)
        fine = value.isfinite() | (value == before)
        return torch.where(fine.all(), 0.0, float("nan"))

    def _is_sound(self, leaf: Leaf) -> bool:
        if self._is_infinite(leaf):
            return bool(self._constant(leaf) == 0.0)
        return all(bool(_plain(piece).isfinite().all()) for _, piece in _pieces(_local(leaf.value), _SLICE))

    # Folding

    @_plainly
    def fold(self, leaves: Sequence[Leaf], gains: Sequence[float]) -> None:
        """average += gain · (value − average), one gain for each average of a leaf."""
        simple = []
        for leaf in leaves:
            average = self._averages[leaf.name]
            average.shard = _shard(leaf.value)
            value = _local(leaf.value)
            if self._device is None:
                average.settle(self._home(value))
            if self._spreading or average.is_infinite:
                self._fold_carefully(average, value, gains)
            elif value.numel():
                simple.append((average, value))
        alike = [pair for pair in simple if _is_alike(*pair)]
        for some in _grouped(alike, lambda pair: (pair[1].device, pair[1].dtype)).values():
            _fold_alike(some, gains)
        self._fold_in_pieces([pair for pair in simple if not _is_alike(*pair)], gains)

    def _fold_in_pieces(self, pairs: Sequence[tuple[_Average, Any]], gains: Sequence[float]) -> None:
        for (device, source), some in _grouped(pairs, lambda pair: (pair[0].device, pair[1].device)).items():
            if device.type != "cpu":
                _fold_groups(_groups(some, _GROUP), gains, device, _GROUP)
            elif source.type == "cpu":
                _fold_on_threads([pair for pair in some if pair[1].is_contiguous()], gains)
                rest = [pair for pair in some if not pair[1].is_contiguous()]
                if rest:
                    _fold_groups(_groups(rest, _SLICE), gains, device, _SLICE)
            else:
                for staged in _staged(some, source):
                    _fold_on_threads(staged, gains)

    def _fold_carefully(self, average: _Average, value: Any, gains: Sequence[float]) -> None:
        for start, piece in _pieces(value, _SLICE):
            here = piece.to(average.device)
            for parts, gain in zip(average.parts, gains, strict=True):
                if gain != 0.0:
                    some = [part[start : start + piece.numel()] for part in parts]
                    _fold_infinities(some, here, gain, self._spreading)

    @_plainly
    def copy(self, leaves: Sequence[Leaf]) -> None:
        """Keep the newest values of leaves that are not averaged."""
        for leaf in leaves:
            value, kept = _local(leaf.value), self._copies[leaf.name]
            if kept.device != value.device or kept.dtype != value.dtype:
                self._copies[leaf.name] = value.clone()
            else:
                kept.copy_(value)

    # Handing out

    @_plainly
    def rounded(self, leaf: Leaf, which: int) -> Any:
        """A new tensor of an average (or copy), each value rounded once to the leaf's dtype."""
        if leaf.name in self._copies:
            return self._copies[leaf.name].clone()
        average = self._averages[leaf.name]
        new = torch.empty(average.shape, dtype=getattr(torch, leaf.dtype), device=average.device)
        _write([(average.parts[which], new)])
        return _sharded(new, average.shard)

    @_plainly
    def write(self, leaves: Sequence[Leaf], which: int) -> None:
        """Put averages where the leaves' values lie."""
        pairs = []
        for leaf in leaves:
            target = _local(leaf.value)
            if leaf.name in self._copies:
                _written_once(target).copy_(_written_once(self._copies[leaf.name], target))
            elif target.numel():
                pairs.append((self._averages[leaf.name].parts[which], target))
        _write(pairs)

    @_plainly
    def parts(self, name: str, which: int) -> tuple[Any, ...]:
        """What an average is made of, for saving: the very tensors; shards of whole ones as such."""
        if name in self._copies:
            return (self._copies[name],)
        average = self._averages[name]
        return tuple(_sharded(part.view(average.shape), average.shard) for part in average.parts[which])

    @_plainly
    def load(self, leaf: Leaf, parts: Sequence[Sequence[Any]]) -> None:
        """Take on what `parts` gave, for each average of the leaf; copied, to where the average is."""
        now = self._averages.get(leaf.name)
        shard = now.shard if now is not None else _shard(leaf.value)
        ours = [tuple(_part(part, shard) for part in one) for one in parts]
        if leaf.kind != AVERAGED:
            kept = self._copies.get(leaf.name)
            self._copies[leaf.name] = ours[0][0].to(kept.device if kept is not None else "cpu", copy=True)
            return
        precision = "float32x2" if len(ours[0]) == 2 else str(ours[0][0].dtype).removeprefix("torch.")
        device = now.device if now is not None else self._device or torch.device("cpu")
        kept = [tuple(self._kept(part.reshape(-1).to(device)) for part in one) for one in ours]
        self._keep(leaf, _Average(precision, tuple(ours[0][0].shape), kept, shard=shard))


def _checked_device(device: str | None) -> Any:
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise OptionError(
            f"device={device!r}: {error}", "device='cpu', or none for where the model is"
        ) from error


def _local(value: Any) -> Any:
    """The tensor that this process holds, without its history; of a DTensor its shard."""
    if not is_tensor(value):
        return torch.as_tensor(value)
    value = value.detach()
    return value.to_local() if hasattr(value, "to_local") else value


def _shard(value: Any) -> Any:
    """How a DTensor is laid out: (mesh, placements, shape, stride); None for any other tensor."""
    if not hasattr(value, "to_local"):
        return None
    return value.device_mesh, value.placements, value.shape, value.stride()


def _sharded(local: Any, shard: Any) -> Any:
    """A local tensor as the shard that it is, which torch.distributed.checkpoint knows to save."""
    if shard is None:
        return local
    from torch.distributed.tensor import DTensor

    mesh, placements, shape, stride = shard
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)


def _part(value: Any, shard: Any) -> Any:
    """A saved part as this process keeps it: its own shard, whatever processes saved it."""
    if not is_tensor(value):
        value = torch.from_numpy(np.array(value))
    if shard is None:
        return value.full_tensor() if hasattr(value, "full_tensor") else value
    from torch.distributed.tensor import DTensor, distribute_tensor

    mesh, placements, *_ = shard
    if not isinstance(value, DTensor):
        value = distribute_tensor(value.to(mesh.device_type), mesh, placements)
    if value.device_mesh != mesh or value.placements != placements:
        value = distribute_tensor(value.full_tensor(), mesh, placements)
    return value.to_local()


def _by_device(leaves: Iterable[Leaf]) -> dict[Any, list[Leaf]]:
    return _grouped(leaves, lambda leaf: _local(leaf.value).device)


def _grouped(things: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return groups


def _meshes(leaves: Iterable[Leaf]) -> list[Any]:
    found: list[Any] = []
    for leaf in leaves:
        mesh = getattr(leaf.value, "device_mesh", None)
        if mesh is not None and mesh not in found:
            found.append(mesh)
    return found


def _agreed(flags: Sequence[Any], leaves: Sequence[Leaf]) -> bool:
    """True if all flags are, on this process and on all that share the leaves' meshes with it."""
    meshes = _meshes(leaves)
    if not meshes:
        return all(bool(flag) for flag in flags)
    import torch.distributed as dist

    sound = all(bool(flag) for flag in flags)
    for mesh in meshes:
        answer = torch.tensor(int(sound), device=mesh.device_type)
        for dimension in range(mesh.ndim):
            dist.all_reduce(answer, dist.ReduceOp.MIN, group=mesh.get_group(dimension))
        sound = bool(answer)
    return sound


def _pieces(tensor: Any, size: int) -> Iterator[tuple[int, Any]]:
    """(where it begins, values) of a tensor in C order, flat; of views only a piece at a time is copied."""
    if tensor.is_contiguous() or tensor.dim() == 0:
        start = 0
        for piece in tensor.view(-1).split(size):
            yield start, piece
            start += size
        return
    row = tensor[0].numel() if len(tensor) else 0
    step = max(1, size // row) if row else 1
    for start in range(0, len(tensor) if row else 0, step):
        yield start * row, tensor[start : start + step].reshape(-1)


def _plain(tensor: Any) -> Any:
    """The tensor in a dtype that every operation takes: float8 has hardly any."""
    return tensor.float() if tensor.dtype.itemsize == 1 and tensor.is_floating_point() else tensor


def _sums(leaves: Sequence[Leaf], device: Any) -> list[Any]:
    """Numbers that are not finite where a value of the leaves is not: no wait for any of them."""
    # Backwards: the fold begins with what the cache still holds.
    tensors = [tensor for tensor in (_local(leaf.value) for leaf in reversed(leaves)) if tensor.numel()]
    if device.type != "cpu":
        return _norms(tensors, float("inf"))
    # The root of the sum of squares is the quickest way through; float16 would overflow.
    wide = [tensor for tensor in tensors if tensor.dtype.itemsize >= 4 or tensor.dtype == torch.bfloat16]
    quick = [tensor for tensor in wide if tensor.is_contiguous()]
    cut = [piece for tensor in quick for piece in tensor.view(-1).split(_SLICE)]
    found = _on_threads(cut, lambda some: _norms(some, 2), sum(tensor.numel() for tensor in quick))
    seen = {id(tensor) for tensor in quick}
    rest = [tensor for tensor in tensors if id(tensor) not in seen]
    return found + [_sum(piece) for tensor in rest for _, piece in _pieces(tensor, _SLICE)]


def _sum(piece: Any) -> Any:
    # float16 would overflow where nothing is wrong.
    dtype = torch.float32 if piece.dtype == torch.float16 else None
    return _plain(piece).sum(dtype=dtype).float()


def _norms(tensors: Sequence[Any], order: float = float("inf")) -> list[Any]:
    """Norms, NaN where there is one; on an accelerator one kernel for all tensors of a dtype."""
    found: list[Any] = []
    for some in _grouped([_plain(tensor) for tensor in tensors], lambda tensor: tensor.dtype).values():
        found += [norm.float() for norm in torch._foreach_norm(some, order)]
    return found


def _groups(pairs: Iterable[tuple[_Average, Any]], limit: int) -> Iterator[_Group]:
    """The slices of averages and their values, small ones in groups of at most `limit` elements."""
    filling: dict[str, _Group] = {}
    for average, value in pairs:
        precision = average.precision
        for start, piece in _pieces(value, limit):
            size = piece.numel()
            parts = [[part[start : start + size] for part in one] for one in average.parts]
            if size > limit // 2:
                yield _Group(precision, parts, piece, size)
                continue
            group = filling.get(precision)
            if group is not None and group.size + size > limit:
                yield filling.pop(precision)
                group = None
            if group is None:
                group = filling[precision] = _Group.empty(precision, parts)
            group.add(parts, piece)
    yield from filling.values()


def _cut(pairs: Iterable[tuple[_Average, Any]]) -> Iterator[_Group]:
    """The pieces of averages and their values, which are contiguous, some together."""
    for precision, some in _grouped(pairs, lambda pair: pair[0].precision).items():
        values = [piece for _, value in some for piece in value.view(-1).split(PIECE)]
        # parts[k][j] of all averages one after the other
        whole = [
            list(zip(*one, strict=True)) for one in zip(*(average.parts for average, _ in some), strict=True)
        ]
        parts = [[[piece for part in each for piece in part.split(PIECE)] for each in one] for one in whole]
        for start in range(0, len(values), _TOGETHER):
            stop = start + _TOGETHER
            size = sum(value.numel() for value in values[start:stop])
            group = [[each[start:stop] for each in one] for one in parts]
            yield _Group(precision, group, values[start:stop], size, is_many=True)


def _fold_on_threads(pairs: Sequence[tuple[_Average, Any]], gains: Sequence[float]) -> None:
    cpu, limit = torch.device("cpu"), _TOGETHER * PIECE
    elements = sum(value.numel() for _, value in pairs)
    _on_threads(
        list(_cut(pairs)), lambda some: _fold_groups(some, gains, cpu, min(limit, elements)), elements
    )


def _on_threads(things: list[Any], work: Callable[[list[Any]], Any], elements: int) -> list[Any]:
    """`work` on the things, in as many runs as torch has threads; the lists that it gives, joined."""
    threads = min(torch.get_num_threads(), len(things), _MOST_THREADS) if elements >= _WORTH_THREADS else 1
    if threads <= 1:
        return work(things) or []
    # Several shares a thread: one that is held up by another process does not hold up the rest.
    share = -(-len(things) // (4 * threads))
    shares = [things[start : start + share] for start in range(0, len(things), share)]
    with ThreadPoolExecutor(threads) as pool:
        return [found for some in pool.map(_plainly(work), shares) for found in some or []]


def _fold_groups(groups: Iterable[_Group], gains: Sequence[float], device: Any, limit: int) -> None:
    """Fold group after group through two buffers of `limit` elements."""
    doubles = [_room(limit, torch.float64, device) for _ in range(2)]
    singles = [buffer.view(torch.float32) for buffer in doubles]
    for group in groups:
        buffers = singles if group.precision == "float32" else doubles
        step, wide = (buffer[: group.size] for buffer in buffers)
        ops: Any = _One
        if group.is_many:
            ops, sizes = _Many, [values.numel() for values in group.values]
            step, wide = list(step.split(sizes)), list(wide.split(sizes))
        fold = _fold_pair if group.precision == "float32x2" else _fold_one_part
        for parts, gain in zip(group.parts, gains, strict=True):
            if gain != 0.0:
                fold(ops, parts, group.values, gain, step, wide)


def _staged(pairs: Sequence[tuple[_Average, Any]], source: Any) -> Iterator[list[tuple[_Average, Any]]]:
    """The pairs with their values copied to the host, piece after piece, the next while one is folded.

    The copies run on a stream of their own, behind the computation that made the values, and all of them
    are over when the last piece has been folded: the parameters may change again.
    """
    stream = _Stream(source)
    waiting: list[tuple[Any, list[tuple[_Average, Any]]]] = []
    for turn, (average, start, piece) in enumerate(
        (average, start, piece) for average, value in pairs for start, piece in _pieces(value, _GROUP)
    ):
        host = stream.buffer(turn % 2, piece)
        part = _Average(
            average.precision,
            tuple(piece.shape),
            [tuple(kept[start : start + piece.numel()] for kept in one) for one in average.parts],
        )
        waiting.append((stream.copy(host, piece), [(part, host)]))
        if len(waiting) == 2:
            done, staged = waiting.pop(0)
            done()
            yield staged
    for done, staged in waiting:
        done()
        yield staged


class _Stream:
    """Copies from a device to two buffers on the host; on the CPU, where tests run it, plain copies."""

    def __init__(self, source: Any) -> None:
        self._is_cuda = source.type == "cuda"
        self._buffers: dict[tuple[int, Any], Any] = {}
        self._stream = torch.cuda.Stream(source) if self._is_cuda else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(source))

    def buffer(self, turn: int, like: Any) -> Any:
        key = (turn, like.dtype)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(_GROUP, dtype=like.dtype, device="cpu", pin_memory=self._is_cuda)
        return self._buffers[key][: like.numel()]

    def copy(self, host: Any, piece: Any) -> Callable[[], Any]:
        """Begin to copy; what is given back waits for the end of it."""
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            host.copy_(piece, non_blocking=True)
            if self._stream is None:
                return lambda: None
            event = torch.cuda.Event()
            event.record(self._stream)
            wait: Callable[[], Any] = event.synchronize
            return wait


def _write(pairs: Sequence[tuple[Sequence[Any], Any]]) -> None:
    """Round averages into tensors: by stretches on the CPU's threads, at once on an accelerator."""
    jobs = []
    for parts, target in pairs:
        if not target.is_contiguous() or parts[0].device.type != "cpu":
            whole = rounded_to(parts, target.dtype).view(target.shape)
            _written_once(target).copy_(_written_once(whole, target))
            continue
        cut = [part.split(_SLICE) for part in parts]
        jobs += [(some, piece) for *some, piece in zip(*cut, target.view(-1).split(_SLICE), strict=True)]

    def run(some: list[Any]) -> None:
        room = _room(max(len(target) for _, target in some), torch.float32, torch.device("cpu"))
        for parts, target in some:
            round_stretch(parts, target, room)

    if jobs:
        _on_threads(jobs, run, sum(len(target) for _, target in jobs))


def _written_once(tensor: Any, like: Any = None) -> Any:
    """The tensor without the repetitions of an expanded one (`like`), which torch would not write to."""
    for dimension, stride in enumerate((tensor if like is None else like).stride()):
        if stride == 0 and tensor.shape[dimension] > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    return tensor


def check_writable(leaf: Leaf) -> None:
    """Raise DataError where `TorchStore.write` could not write."""
    if is_tensor(leaf.value) and leaf.value.is_inference() and not torch.is_inference_mode_enabled():
        raise DataError(
            f"parameter {leaf.name!r} was made in inference mode and can't be written to outside of it",
            hint="make the model outside torch.inference_mode()",
        )


@_plainly
def holds_nan(leaf: Leaf) -> bool:
    """True where a value is no number."""
    return any(bool(_plain(piece).isnan().any()) for _, piece in _pieces(_local(leaf.value), _GROUP))


@_plainly
def backed_up(leaf: Leaf) -> Any:
    """A copy of the tensor that `put_back` restores to the bit."""
    value = _local(leaf.value)
    return _room(value.numel(), value.dtype, value.device).view(value.shape).copy_(value)


def _room(size: int, dtype: Any, device: Any) -> Any:
    """An empty flat tensor. For NumPy the system gives memory in large pages, which takes half the time."""
    if device.type != "cpu" or not size:
        return torch.empty(size, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(size * dtype.itemsize, np.uint8)).view(dtype)


@_plainly
def put_back(tensor: Any, backup: Any) -> None:
    """Undo `TorchStore.write`, in the tensor that now stands in its place."""
    target = _local(tensor)
    if target.shape != backup.shape:
        raise StateError(f"a parameter of shape {tuple(backup.shape)} now has shape {tuple(target.shape)}")
    _written_once(target).copy_(_written_once(backup, target))
