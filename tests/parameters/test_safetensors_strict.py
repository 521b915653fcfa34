"""safetensors headers: refused wherever the library refuses them, and read alike wherever it does not."""

from __future__ import annotations

import json
import os
import random
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ema_cli.errors import EmaError, FileTrouble
from ema_cli.parameters.checkpoints.safetensors import SafetensorsFile
from ema_cli.parameters.fold import Places, fold
from ema_cli.parameters.lengths import make_lengths
from ema_cli.parameters.plan import FoldOptions
from tests.parameters.test_checkpoints import header, save_file, tensor

safetensors = pytest.importorskip("safetensors", reason="the peer that strictness is held to")
ROUNDS = 20_000 if os.environ.get("EMA_HYPOTHESIS") == "long" else 1_500


def library(content: bytes) -> dict[str, Any] | None:
    """What the library makes of a file; None where it refuses it."""
    try:
        return dict(safetensors.deserialize(content))
    except Exception:
        return None


def ours(path: Path, content: bytes) -> dict[str, bytes] | None:
    path.write_bytes(content)
    try:
        file = SafetensorsFile(str(path))
        return {
            info.name: file.read(info, 0, info.size).tobytes() for info in file.tensors.values()
        } | dict.fromkeys(file.refused, b"")
    except EmaError:
        return None


def two(first: Any = (0, 4), second: Any = (4, 8), values: int = 8, **more: Any) -> bytes:
    said = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": first},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": second},
    }
    return header({**said, **more}, bytes(values))


MALFORMED = {
    "overlap": (two((0, 4), (2, 6), 6), "overlaps another"),
    "the same bytes twice": (two((0, 4), (0, 4), 4), "overlaps another"),
    "a hole": (two((0, 4), (8, 12), 12), "4 bytes before 'b' belong to none"),
    "first offset": (two((4, 8), (8, 12), 12), "4 bytes before 'a' belong to none"),
    "left over": (two(values=9), "1 bytes after its last tensor"),
    "no tensors, but bytes": (header({}, b"x"), "1 bytes after its last tensor"),
    "missing": (two(values=7), "cut short: 1 bytes"),
    "byte order mark": (header(b"\xef\xbb\xbf" + json.dumps(tensor()).encode(), bytes(4)), "begin with {"),
    "UTF-16": (header(json.dumps(tensor()).encode("utf-16"), bytes(4)), "header is damaged"),
    "white space before": (header(b" " + json.dumps(tensor()).encode(), bytes(4)), "begin with {"),
    "lone surrogate": (header(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "surrogates"),
    "lone surrogate in metadata": (header(b'{"__metadata__":{"a":"\\udc00"}}'), "surrogates"),
    "name twice": (
        header(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            b"xx",
        ),
        "twice",
    ),
    "key twice": (header(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "twice"),
    "NaN": (header(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,0]}}'), "NaN is no JSON"),
    "a float": (header(tensor(shape=(1.0,)), bytes(4)), "impossible"),
    "a number of 65 bits": (header(tensor("U8", (0, 1 << 64), (0, 0))), "impossible"),
    "overflow before a zero": (header(tensor("U8", (1 << 40, 1 << 40, 0), (0, 0))), "for its shape"),
    "three offsets": (header(tensor(offsets=(0, 4, 8)), bytes(4)), "is no list"),
    "half a byte": (header(tensor("F4", (1,), (0, 1)), bytes(1)), "for its shape"),
    "metadata that is no text": (header({"__metadata__": {"a": {"b": "c"}}}), "__metadata__"),
    "the header is a tensor": (header({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}), "one tensor's"),
}


@pytest.mark.parametrize("kind", list(MALFORMED))
def test_malformed_headers(tmp_path: Path, kind: str) -> None:
    content, said = MALFORMED[kind]
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(FileTrouble, match=said):
        SafetensorsFile(str(tmp_path / "a.safetensors"))
    # A name that is there twice is the one thing in which we are stricter than the library.
    if kind not in ("name twice", "white space before"):
        assert library(content) is None, "the library takes it"


def test_what_the_library_takes_is_taken(tmp_path: Path) -> None:
    for content in (
        header({}),
        header(b"{}" + b" " * 6),
        header(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"more":[1,{"x":null}]}}'),
        header(tensor("U8", (0, 2**40), (0, 0))),
        header({"__metadata__": {"a": "\N{SNOWMAN}"}, **tensor()}, bytes(4)),
        two((4, 8), (0, 4)),
        header({"π\u0000": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, bytes(4)),
    ):
        assert library(content) is not None
        assert ours(tmp_path / "a.safetensors", content) is not None


DTYPES = ("BOOL", "F4", "F6_E2M3", "U8", "F8_E4M3", "F8_E8M0", "I16", "BF16", "F32", "C64", "F64", "F7")
numbers = st.one_of(st.integers(0, 40), st.sampled_from([-1, 1.5, 2**63, 2**64, True, None, "1"]))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Headers that are nearly right: tensors one after the other, and a few things wrong."""
    said: dict[str, Any] = {}
    at = 0
    for name in draw(st.lists(st.text(max_size=3), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        bits = {"F4": 4, "F6_E2M3": 6, "I16": 16, "BF16": 16, "F32": 32, "C64": 64, "F64": 64}.get(dtype, 8)
        size = int(np.prod(shape, dtype=int)) * bits // 8
        said[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    if said and draw(st.booleans()):
        entry = said[draw(st.sampled_from(sorted(said)))]
        key = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        entry[key] = draw(
            st.one_of(numbers, st.lists(numbers, max_size=3), st.sampled_from(DTYPES), st.just(None))
        )
    at = max(0, at + draw(st.sampled_from([0, 0, 0, -1, 1])))
    text = json.dumps(said, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return header(text, bytes(k % 2 for k in range(at)))


@settings(max_examples=ROUNDS // 3, deadline=None)
@given(files())
@example(header(b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'))
def test_nearly_right_headers_are_taken_and_refused_as_the_library_does(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "near.safetensors"
    got, expected = ours(path, content), library(content)
    if expected is None:
        assert got is None
    else:
        assert got is not None
        assert sorted(got) == sorted(expected)


def test_changed_bytes(tmp_path: Path) -> None:
    """A fuzz target over whole files: bytes changed, cut, put in and doubled."""
    rng = random.Random(0)
    path = tmp_path / "a.safetensors"
    save_file(
        {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([1, 2])}, path, {"format": "pt"}
    )
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    taken = 0
    for _ in range(ROUNDS):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(8, end) if rng.random() < 0.8 else rng.randrange(len(content))
            at = min(at, len(content) - 1)
            change = rng.randrange(4)
            if change == 0:
                content[at] = rng.choice(b'0123456789{}[],":\\ \xff\x00eEUFIw')
            elif change == 1:
                content[at:at] = bytes([rng.choice(b'0 1,{}[]"\\-+.eE')])
            elif change == 2:
                del content[at : at + rng.randint(1, 3)]
            else:
                content[at:at] = content[at : at + rng.randint(1, 20)]
        if rng.random() < 0.7:  # the length of the header as it now is
            content[:8] = struct.pack("<Q", max(0, end - 8 + len(content) - len(whole)))
        got, expected = ours(path, bytes(content)), library(bytes(content))
        assert got is None or expected is not None, bytes(content)
        if got is None and expected is not None:  # a name twice, or what NumPy has no room for
            text = bytes(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
            assert b'"w"' in text or b'"n"' in text, bytes(content)
        taken += got is not None
    assert taken > ROUNDS // 100, "some changes leave a sound file"


def test_a_header_of_a_hundred_thousand_tensors_takes_seconds_and_no_more_memory_than_it_needs(
    tmp_path: Path,
) -> None:
    said = {f"layer.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(header(said))
    start = time.process_time()
    SafetensorsFile(str(path))
    assert time.process_time() - start < 10
    tracemalloc.start()
    SafetensorsFile(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000 * 1_500


def test_overlapping_tensors_can_not_unfold_to_more_than_the_file(tmp_path: Path) -> None:
    """A file whose thousand tensors are all of the same bytes unfolded to a thousand times as much."""
    said = {f"t{i}": {"dtype": "U8", "shape": [100_000], "data_offsets": [0, 100_000]} for i in range(1000)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(header(said, bytes(100_000)))
    with pytest.raises(FileTrouble, match="overlaps another"):
        SafetensorsFile(str(path))


def test_empty_tensors_by_the_thousand_are_no_reads_and_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 20_000
    entry = {"dtype": "F32", "shape": [0, 7], "data_offsets": [0, 0]}
    said = json.dumps({f"t{k}": entry for k in range(count)}).encode()
    path = tmp_path / "many.safetensors"
    path.write_bytes(struct.pack("<Q", len(said)) + said)
    opened: list[str] = []
    plain = Path.open

    def counted(self: Path, *arguments: Any, **named: Any) -> Any:
        opened.append(self.name)
        return plain(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", counted)
    options = FoldOptions(make_lengths({"decay": ["0.5"]}))
    tracemalloc.start()
    try:
        fold([str(path)] * 2, options, Places(str(tmp_path / "ema.safetensors")))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(opened) < 20
    assert peak < 4_000 * count, "two files, a plan, and what is written: bytes a tensor"
    assert len(SafetensorsFile(str(tmp_path / "ema.safetensors")).tensors) == count
