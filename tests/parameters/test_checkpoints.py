"""Checkpoint files: as their own libraries read and write them, and whatever a hostile one may hold."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ema_cli.errors import EmaError, FileTrouble, OptionError
from ema_cli.io.atomic import atomic_write
from ema_cli.io.names import natural_key
from ema_cli.parameters.checkpoints import open_checkpoint, writer_for
from ema_cli.parameters.checkpoints.naming import expanded, out_of_order, step_of
from ema_cli.parameters.tensors import Array, TensorInfo

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 is of the extra [weights]")
load_file, save_file = (
    getattr(pytest.importorskip("safetensors.numpy", reason="the peer that our files are held to"), name)
    for name in ("load_file", "save_file")
)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
SUFFIXES = [".safetensors", ".npz", pytest.param(".pt", marks=pytest.mark.torch)]


def tensors() -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {
        "wide": rng.normal(size=(7, 5)),
        "file": rng.normal(size=3).astype(np.float32),
        "allow_pickle": rng.normal(size=(2, 2)).astype(np.float16),
        "turned": rng.normal(size=(4, 3)).astype(np.float32).T,
        "every other": rng.normal(size=9).astype(np.float32)[::2],
        "brain": rng.normal(size=(3, 2)).astype(BFLOAT16),
        "tiny": rng.normal(size=5).astype(FLOAT8),
        "scalar": np.array(2.5),
        "nothing": np.zeros((0, 4), np.float32),
        "mask": np.array([True, False, True]),
        "count": np.array(7),
        "näme/π": np.arange(3, dtype=np.uint16),
    }


def write(
    path: Path, arrays: dict[str, Array], metadata: dict[str, str] | None = None, piece: int = 4
) -> Path:
    """Write by pieces of a few elements, as the fold does by slices."""
    infos = [TensorInfo(name, array.dtype, array.shape) for name, array in arrays.items()]
    with atomic_write(path) as out, writer_for(path)(out, str(path), infos, metadata or {}) as writer:
        for info in writer.order:
            flat = np.ascontiguousarray(arrays[info.name]).reshape(-1)
            for start in range(0, max(info.size, 1), piece):
                writer.write(info, flat[start : start + piece])
    return path


def read(path: Path, piece: int = 3) -> dict[str, Array]:
    with open_checkpoint(str(path)) as checkpoint:
        return {
            info.name: np.concatenate(
                [
                    checkpoint.read(info, start, min(start + piece, info.size))
                    for start in range(0, max(info.size, 1), piece)
                ]
            ).reshape(info.shape)
            for info in checkpoint.tensors.values()
        }


def same(left: dict[str, Array], right: dict[str, Array]) -> None:
    assert sorted(left) == sorted(right)
    for name, array in left.items():
        assert (array.dtype, array.shape) == (right[name].dtype, right[name].shape), name
        assert array.tobytes() == right[name].tobytes(), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", tensors(), {"format": "pt"})
    same(read(path), tensors())
    with open_checkpoint(str(path)) as checkpoint:
        assert checkpoint.metadata["format"] == "pt"


def test_the_safetensors_library_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    # The library knows 8-bit floats, its NumPy side does not.
    arrays = {name: array for name, array in tensors().items() if name != "tiny"}
    same(load_file(write(tmp_path / "ours.safetensors", arrays)), arrays)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array.shape != ()}
    save_file(contiguous, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    same(read(tmp_path / "theirs.safetensors"), contiguous)


@pytest.mark.torch
@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_ours(tmp_path: Path, mapped: bool) -> None:
    import torch

    from ema_cli.parameters.checkpoints.pytorch import numpy_from

    metadata = {"format": "pt", "ema_smooth": "{}", "head": "wide", "tail": "not there"}
    found = torch.load(
        write(tmp_path / "ours.pt", tensors(), metadata), weights_only=True, mmap=mapped, map_location="cpu"
    )
    assert list(found) == [*tensors(), "head"]
    assert found["head"].data_ptr() == found["wide"].data_ptr()
    del found["head"]
    assert all(t.is_contiguous() and t.data_ptr() % 64 == 0 for t in found.values())
    same({n: numpy_from(t, tensors()[n].dtype) for n, t in found.items()}, tensors())


class Full(io.BytesIO):
    """A disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("room", [0, 100, 2000, 200_000, 4_180_000])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_is_full_somewhere_on_the_way(suffix: str, room: int) -> None:
    arrays = {"a" * 300: np.zeros(1000, np.float32), "b": np.zeros(1 << 20, np.float32)}
    infos = [TensorInfo(name, array.dtype, array.shape) for name, array in arrays.items()]

    def write_into(out: Any) -> None:
        with writer_for(f"a{suffix}")(out, "a", infos, {"said": "x" * 70_000}) as writer:
            for info in writer.order:
                writer.write(info, arrays[info.name])

    with pytest.raises(FileTrouble, match="no space left on device"):
        write_into(Full(room))
    gc.collect()  # an archive that is not closed would try once more


def test_without_torch_its_files_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        FileTrouble, match=r"needs torch to be written\n  try: pip install torch, or write .safet"
    ):
        write(tmp_path / "a.pt", {"w": np.zeros(3)})
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
@pytest.mark.parametrize("said", [b"[" * 100_000, b"\xff", b"[1]", b'{"a": 1, "b": "text"}', b"{}"])
def test_what_others_say_beside_the_tensors(tmp_path: Path, said: bytes) -> None:
    path = write(tmp_path / "a.pt", {"w": np.arange(3.0)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/ema_smooth.json", said)
    with open_checkpoint(str(path)) as checkpoint:
        assert checkpoint.metadata == ({"b": "text"} if b"text" in said else {})
    same(read(path), {"w": np.arange(3.0)})


@pytest.mark.torch
def test_torch_lacks_a_dtype(tmp_path: Path) -> None:
    int4 = np.dtype(ml_dtypes.int4)
    with pytest.raises(FileTrouble, match=r"'w': torch has no dtype int4\n  try: write .safetensors"):
        write(tmp_path / "a.pt", {"w": np.zeros(3, int4)})
    assert not list(tmp_path.iterdir())


def test_numpy_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    arrays = {name: array for name, array in tensors().items() if array.dtype.kind != "V" and name != "file"}
    with np.load(write(tmp_path / "ours.npz", arrays)) as theirs:
        same({name: theirs[name] for name in theirs.files}, arrays)
    del arrays["allow_pickle"]
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "theirs.npz", **arrays)
        same(read(tmp_path / "theirs.npz"), arrays)


def test_fortran_order_and_foreign_bytes(tmp_path: Path) -> None:
    fortran = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    np.savez(tmp_path / "f.npz", a=fortran, b=np.arange(3, dtype=">f4"))
    got = read(tmp_path / "f.npz", piece=5)
    assert (got["a"] == fortran).all()
    assert got["b"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_tensors_are_the_same_bytes_in_every_process(tmp_path: Path, suffix: str) -> None:
    metadata = {"format": "pt", "ema_smooth": "{}", "a": "1", "z": "2"}
    one = write(tmp_path / f"one{suffix}", tensors(), metadata)
    backwards = dict(reversed(tensors().items()))
    two = write(tmp_path / f"two{suffix}", backwards, dict(reversed(metadata.items())), piece=1000)
    if suffix == ".safetensors":
        assert one.read_bytes() == two.read_bytes()
    same(read(one), read(two))
    program = (
        "import sys; from pathlib import Path; from tests.parameters.test_checkpoints import *; "
        f"write(Path(sys.argv[1]), tensors(), {metadata!r})"
    )
    again = tmp_path / f"three{suffix}"
    subprocess.run(
        [sys.executable, "-c", program, again], check=True, env={**os.environ, "PYTHONHASHSEED": "5"}
    )
    assert again.read_bytes() == one.read_bytes()


def test_shards(tmp_path: Path) -> None:
    arrays = tensors()
    names = list(arrays)
    halves = {"m-1.safetensors": names[:5], "m-2.safetensors": names[5:]}
    for shard, held in halves.items():
        write(tmp_path / shard, {name: arrays[name] for name in held}, {"format": "pt"})
    index = tmp_path / "m.safetensors.index.json"
    weight_map = {name: shard for shard, held in halves.items() for name in held}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    same(read(index), arrays)
    assert expanded([str(tmp_path)]).names == [str(index)], "the index stands for its shards"

    index.write_text(json.dumps({"weight_map": {**weight_map, "more": "m-2.safetensors"}}))
    with pytest.raises(FileTrouble, match="lacks tensor 'more'"):
        open_checkpoint(str(index))
    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(FileTrouble, match=r"m-2\.safetensors: no such file"):
        open_checkpoint(str(index))


@pytest.mark.parametrize("shard", ["../m.safetensors", "/etc/m.safetensors", "a/m.safetensors", "passwd", 3])
def test_an_index_reaches_nothing_outside_its_folder(tmp_path: Path, shard: Any) -> None:
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(FileTrouble, match=r"points to|names no files"):
        open_checkpoint(str(index))


# Damaged and hostile files


def header(said: Any, values: bytes = b"") -> bytes:
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text + values


def tensor(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HOSTILE_SAFETENSORS = {
    "empty": (b"", "is empty"),
    "short": (b"\x01\x02", "no safetensors file"),
    "header longer than the file": (struct.pack("<Q", 10**12) + b"{}", "no safetensors file"),
    "foreign": (b"PK\x03\x04" + bytes(100), "no safetensors file"),
    "no JSON": (header(b"{]"), "header is damaged"),
    "not UTF-8": (header(b"\xff\xfe\xfa"), "header is damaged: .utf-8"),
    "deep": (header(b'{"a":' * 100_000), "header is damaged"),
    "a list": (header([]), "does not begin with {"),
    "twice": (header(b'{"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"w":{}}'), "twice"),
    "metadata": (header({"__metadata__": {"a": 1}}), "__metadata__"),
    "entry": (header({"w": 3}), "lacks dtype"),
    "no offsets": (header({"w": {"dtype": "F32", "shape": []}}), "lacks dtype"),
    "dtype": (header(tensor("F7"), bytes(4)), "'F7'"),
    "dtype list": (header(tensor(["F32"]), bytes(4)), "lacks dtype"),
    "negative": (header(tensor(shape=(-1, -1))), "impossible"),
    "bool": (header(tensor(shape=(True,)), bytes(4)), "impossible"),
    "text shape": (header(tensor(shape="1"), bytes(4)), "is no list"),
    "backwards": (header(tensor(offsets=(4, 0)), bytes(4)), "4 bytes before 'w' belong to none"),
    "size": (header(tensor(shape=(2,)), bytes(8)), "4 bytes for its shape"),
    "overflow": (header(tensor(shape=(2**40, 2**40))), "for its shape"),
    "cut": (header(tensor(shape=(1000,), offsets=(0, 4000)), bytes(100)), "cut short: 3900 bytes"),
}


@pytest.mark.parametrize("kind", list(HOSTILE_SAFETENSORS))
def test_hostile_safetensors(tmp_path: Path, kind: str) -> None:
    content, said = HOSTILE_SAFETENSORS[kind]
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileTrouble, match=said):
        open_checkpoint(str(path))


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


class Exploding:
    """Says on being unpickled that it was."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("unpickled",)


HOSTILE_NPZ = {
    "empty": (b"", "is empty|no zip archive"),
    "foreign": (b"hello" * 100, "no zip archive"),
    "cut": (zipped({"w.npy": npy(np.ones(1000))})[:4000], "cut short"),
    "no array": (zipped({"w.npy": b"hello"}), "is no .npy array"),
    "a pickle for an array": (zipped({"w.npy": pickle.dumps(Exploding())}), "is no .npy array"),
    "our metadata, foreign": (
        zipped({"__ema_smooth__.npy": npy(np.array("[]"))}),
        "not what ema-weights writes",
    ),
    "our metadata, an array": (
        zipped({"__ema_smooth__.npy": npy(np.ones(2))}),
        "not what ema-weights writes",
    ),
}


@pytest.mark.parametrize("kind", list(HOSTILE_NPZ))
def test_hostile_npz(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, said = HOSTILE_NPZ[kind]
    Path("w.npz").write_bytes(content)
    with pytest.raises(FileTrouble, match=said):
        open_checkpoint("w.npz")
    assert not Path("unpickled").exists()


def test_arrays_that_can_not_be_averaged_are_named_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = npy(np.array([Exploding()], object), allow_pickle=True)
    members = {"w.npy": npy(np.ones(2)), "p.npy": pickled, "b.npy": npy(np.ones(2, BFLOAT16))}
    Path("w.npz").write_bytes(zipped(members))
    with open_checkpoint("w.npz") as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert "pickled Python objects" in checkpoint.refused["p"]
        assert "NumPy saves bfloat16 that way" in checkpoint.refused["b"]
    assert not Path("unpickled").exists()


def test_npz_values_that_are_missing_or_changed(tmp_path: Path) -> None:
    whole = npy(np.ones(1000))
    path = tmp_path / "w.npz"
    path.write_bytes(zipped({"w.npy": whole[:4000]}))
    with pytest.raises(FileTrouble, match=r"is damaged at 'w': 3872 bytes for its shape \(1000,\)"):
        read(path, piece=1000)
    changed = bytearray(zipped({"w.npy": whole}))
    changed[4000] ^= 1
    path.write_bytes(changed)
    with pytest.raises(FileTrouble, match=r"damaged at 'w'.*CRC"):
        read(path, piece=1000)


def test_every_way_to_cut_a_file_short_is_an_error_of_ours(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".npz"):
        whole = write(tmp_path / f"w{suffix}", tensors()).read_bytes()
        for length in range(0, len(whole) - 1, 37):
            (tmp_path / f"cut{suffix}").write_bytes(whole[:length])
            with pytest.raises(EmaError):
                read(tmp_path / f"cut{suffix}")


def test_a_format_without_such_a_dtype_or_name_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileTrouble, match="safetensors has no dtype complex128"):
        write(tmp_path / "a.safetensors", {"w": np.ones(2) * 1j})
    with pytest.raises(FileTrouble, match="no tensor of that name"):
        write(tmp_path / "a.safetensors", {"__metadata__": np.ones(2)})
    with pytest.raises(FileTrouble, match="can't be a tensor's name"):
        write(tmp_path / "a.npz", {"__ema_smooth__": np.ones(2)})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model.h5").write_bytes(b"something else")
    with pytest.raises(FileTrouble, match="no checkpoint by its suffix"):
        open_checkpoint(str(tmp_path / "model.h5"))
    with pytest.raises(FileTrouble, match="no such file"):
        open_checkpoint("missing.h5")


# Names


def test_natural_order() -> None:
    names = ["step_10", "step_9", "step_9b", "step", "10", "9", "step_010"]
    assert sorted(names, key=natural_key) == ["9", "10", "step", "step_9", "step_9b", "step_010", "step_10"]
    assert out_of_order(["a1", "a9", "a10"]) is None
    assert out_of_order(["a1", "a10", "a9"]) == ("a10", "a9")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step_1000.safetensors", 1000),
        ("run2/model-7.npz", 7),
        ("epoch=3-step=1200.ckpt", 1200),
        ("iter_0005000_v2.pt", 5000),
        ("checkpoint-500/model.safetensors", 500),
        ("checkpoint-500/model.safetensors.index.json", 500),
    ],
)
def test_steps_in_names(name: str, step: int) -> None:
    assert step_of(name) == step


def test_a_name_without_a_step() -> None:
    with pytest.raises(FileTrouble, match="no step in its name"):
        step_of("model.safetensors")


def test_folders_and_patterns_go_by_number_never_by_time(tmp_path: Path) -> None:
    for age, number in enumerate((10, 9, 2)):
        path = write(tmp_path / f"s{number}.npz", {"w": np.ones(1)})
        os.utime(path, (age, age))
    by_number = [str(tmp_path / f"s{number}.npz") for number in (2, 9, 10)]
    (tmp_path / "notes.txt").touch()
    assert expanded([str(tmp_path)]).names == by_number
    assert expanded([str(tmp_path / "s*.npz")]).names == by_number
    assert expanded(by_number[::-1]).names == by_number[::-1], "files keep the order given"
    (tmp_path / "optimizer.pt").touch()
    assert expanded([str(tmp_path)]).names == by_number, "an optimiser is no model"
    (tmp_path / "other.pt").touch()
    with pytest.raises(FileTrouble, match="several formats: npz, torch"):
        expanded([str(tmp_path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileTrouble, match="folder without checkpoints"):
        expanded([str(tmp_path / "empty")])
    with pytest.raises(FileTrouble, match="matches no file"):
        expanded([str(tmp_path / "t*.npz")])


# torch


@pytest.mark.torch
@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_torch_files(tmp_path: Path, old: bool) -> None:
    import torch

    saved = {
        "w": torch.nn.Parameter(torch.arange(12.0).reshape(3, 4).T),
        "brain": torch.randn(3, 5).to(torch.bfloat16),
        "tiny": torch.randn(4).to(torch.float8_e4m3fn),
        "count": torch.tensor(3),
        "nothing": torch.zeros(0, 2),
    }
    if old:
        del saved["tiny"]  # torch itself does not read 8-bit floats back from the old format
    path = tmp_path / "m.pt"
    torch.save({"model": saved, "epoch": 3}, path, _use_new_zipfile_serialization=not old)
    with open_checkpoint(str(path)) as checkpoint:
        assert (checkpoint.keys, checkpoint.others) == (["model"], ["epoch"])
        assert list(checkpoint.tensors) == [f"model.{name}" for name in saved]
    with pytest.raises(OptionError, match="no 'ema' for --key ema, but model, epoch"):
        open_checkpoint(str(path), key="ema")
    with open_checkpoint(str(path), key="model") as checkpoint:
        assert list(checkpoint.tensors) == list(saved)
        for name, value in saved.items():
            info = checkpoint.tensors[name]
            got = checkpoint.read(info, 0, info.size).reshape(info.shape)
            assert (got.astype(float) == value.detach().double().numpy()).all(), name
            assert info.dtype.name == str(value.dtype).removeprefix("torch.")


@pytest.mark.torch
def test_hostile_torch_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({"w": Exploding()}, "code.pt")
    with pytest.raises(FileTrouble, match="can run code"):
        open_checkpoint("code.pt")
    assert not Path("unpickled").exists()
    torch.save({"w": torch.ones(1000)}, "whole.pt")
    for name, content in {
        "empty.pt": b"",
        "foreign.pt": b"hello" * 100,
        "cut.pt": Path("whole.pt").read_bytes()[:2000],
        "zip.pt": zipped({"a": b"b"}),
    }.items():
        Path(name).write_bytes(content)
        with pytest.raises(FileTrouble, match=name):
            open_checkpoint(name)
    torch.save(torch.ones(3), "alone.pt")
    with pytest.raises(FileTrouble, match="holds Tensor, not a dict"):
        open_checkpoint("alone.pt")


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "m.pt").touch()
    with pytest.raises(FileTrouble, match="needs torch") as caught:
        open_checkpoint(str(tmp_path / "m.pt"))
    assert "pip install torch" in caught.value.hint


@pytest.mark.parametrize("shape", [(5, 7), (1, 9), (4, 1, 6), (3, 4, 5, 2), (2, 3, 40), (64, 65)])
@pytest.mark.parametrize("most", [8, 64, 1000])
def test_large_arrays_in_fortran_order_are_turned_by_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], most: int
) -> None:
    monkeypatch.setattr("ema_cli.parameters.checkpoints.turned.MOST_BYTES", most)
    rng = np.random.default_rng(0)
    arrays = {
        "w": np.asfortranarray(rng.normal(size=shape)),
        "h": np.asfortranarray(rng.integers(9, size=shape)),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "f.npz", **arrays)
        same(read(tmp_path / "f.npz", piece=11), arrays)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_a_small_archive_of_a_large_array_in_fortran_order_takes_little_memory(tmp_path: Path) -> None:
    """Finding 16: 1.9 MB took 7.9 GB."""
    large = np.asfortranarray(np.zeros((4000, 8000), np.float32))
    np.savez_compressed(tmp_path / "a.npz", w=large)
    program = (
        "import sys; from ema_cli.weights_cli import command\n"
        "command.main(sys.argv[1:], standalone_mode=False)\n"
        "print([l for l in open('/proc/self/status') if 'VmHWM' in l][0].split()[1])"
    )
    arguments = [str(tmp_path / "a.npz"), "--decay", "0.5", "-o", str(tmp_path / "o.npz")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    assert int(done.stdout) / 1000 < 110, "the array is 128 MB"
