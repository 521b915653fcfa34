"""`ema-weights` as its users meet it: numbers, messages, exit codes, memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ema_cli.parameters import slices
from ema_cli.parameters.checkpoints import open_checkpoint
from tests.conftest import Run
from tests.parameters.test_checkpoints import BFLOAT16, load_file, read, same, save_file, write


def model(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(40, 25)).astype(np.float32),
        "half": rng.normal(size=7).astype(np.float16),
        "brain": rng.normal(size=(3, 2)).astype(BFLOAT16),
        "count": np.array(seed),
        "mask": rng.normal(size=5) > 0,
    }


def write_models(*names: str) -> None:
    for seed, name in enumerate(names):
        write(Path(name), model(seed), {"format": "pt"}, piece=1000)


def by_hand(models: list[dict[str, Any]], weights: list[float]) -> dict[str, Any]:
    """Σ weight·tensor, in float64."""
    total = sum(weights)
    return {
        name: sum(m[name].astype(float) * (w / total) for m, w in zip(models, weights, strict=True))
        for name in models[0]
    }


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        (("--decay", "0.9"), [0.81, 0.9, 1]),
        (("--alpha", "0.1"), [0.81, 0.9, 1]),
        (("--halflife", "2"), [0.5, 0.5**0.5, 1]),
        (("--decay", "0.9", "--init", "first"), [0.81, 0.09, 0.1]),
        (("--decay", "1"), [1, 1, 1]),
        (("--decay", "0"), [0, 0, 1]),
        (("--decay", "0.9", "--per-step"), [0.9**3, 0.9**2, 1]),
        (("--decay", "0.9", "--per-step", "--init", "first"), [0.9**3, 0.1 * 0.9**2, 1 - 0.9**2]),
    ],
)
def test_the_average_is_the_weighted_sum(run: Run, options: tuple[str, ...], weights: list[float]) -> None:
    names = ("step_1.npz", "step_2.safetensors", "step_4.npz")
    write_models(*names)
    assert run(*names, *options, "-o", "ema.safetensors")[:2] == (0, "")
    got, expected = read(Path("ema.safetensors")), by_hand([model(i) for i in range(3)], weights)
    np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got["half"].astype(float), expected["half"], rtol=2**-11, atol=1e-7)
    np.testing.assert_allclose(got["brain"].astype(float), expected["brain"], rtol=2**-8)
    assert {name: array.dtype for name, array in got.items()} == {n: a.dtype for n, a in model(0).items()}
    assert got["count"] == 2
    assert (got["mask"] == model(2)["mask"]).all()
    table = run(*names, *options, "--dry-run").out.splitlines()[1:]
    assert [float(line.split()[0]) for line in table] == pytest.approx(
        [w / sum(weights) for w in weights], abs=1e-6
    )


@pytest.mark.parametrize("out", ["safetensors", "npz"])
@pytest.mark.parametrize("state", ["safetensors", "npz"])
@pytest.mark.parametrize("options", [(), ("--init", "first"), ("--per-step",), ("--keys", "intersection")])
def test_resume_is_the_same_fold_bit_for_bit(
    run: Run, out: str, state: str, options: tuple[str, ...]
) -> None:
    write_models("s1.npz", "s2.npz", "s4.npz", "s9.npz")
    common = ("--decay", "0.7", *options)
    assert run("s1.npz", "s2.npz", "s4.npz", "s9.npz", *common, "-o", f"whole.{out}").code == 0
    carried = (*common, "--resume", f"fold.{state}", "--force", "-o", f"parts.{out}")
    assert run("s1.npz", "s2.npz", *carried).code == 0
    assert run("s4.npz", *carried).code == 0
    assert run("s9.npz", *carried).code == 0
    assert Path(f"parts.{out}").read_bytes() == Path(f"whole.{out}").read_bytes()
    assert len(run("s9.npz", *common[:2], "--dry-run").out.splitlines()) == 2


def test_dry_run_of_a_resumed_fold_shows_every_file(run: Run) -> None:
    write_models("a1.npz", "a2.npz", "a3.npz")
    run("a1.npz", "a2.npz", "--decay", "0.5", "-o", "o.npz", "--resume", "s.npz")
    before = Path("s.npz").read_bytes()
    result = run("a3.npz", "--decay", "0.5", "--resume", "s.npz", "--dry-run")
    assert result.out == "  weight  checkpoint\n0.142857  a1.npz\n0.285714  a2.npz\n0.571429  a3.npz\n"
    assert Path("s.npz").read_bytes() == before
    assert (
        "a2.npz is in the saved fold already"
        in run("a2.npz", "--decay", "0.5", "--resume", "s.npz", "--dry-run").err
    )


def test_dry_run_reads_no_values(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_models("a1.safetensors", "a2.safetensors")
    monkeypatch.setattr("ema_cli.parameters.checkpoints.safetensors.SafetensorsFile.read", None)
    result = run("a1.safetensors", "a2.safetensors", "--decay", "0.95", "--dry-run")
    assert result.code == 0
    assert "decay 0.95, alpha 0.05, half-life 13.51 checkpoints, bias-corrected" in result.err
    assert "tensors: 3 averaged, 2 copied" in result.err


def test_provenance_and_the_newest_files_own_metadata(run: Run) -> None:
    write_models("a1.npz", "a2.safetensors")
    run("a1.npz", "a2.safetensors", "--decay", "0.5", "-o", "o.safetensors")
    with pytest.importorskip("safetensors").safe_open("o.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    said = json.loads(metadata["ema_smooth"])
    assert [f["name"] for f in said["files"]] == ["a1.npz", "a2.safetensors"]
    assert [f["weight"] for f in said["files"]] == pytest.approx([1 / 3, 2 / 3])
    assert said["options"]["decay"] == 0.5


def test_dtype(run: Run) -> None:
    write_models("a.npz", "b.npz")
    for given, dtype in {"bf16": BFLOAT16, "float64": np.float64}.items():
        assert run("a.npz", "b.npz", "--decay", "0.5", "--dtype", given, "-o", f"{given}.npz").code == 0
        got = read(Path(f"{given}.npz"))
        assert {got[name].dtype for name in ("w", "half", "brain")} == {np.dtype(dtype)}
        assert got["count"].dtype == np.int64
    write(Path("big.npz"), {"w": np.array([1e6])})
    result = run("big.npz", "--decay", "0.5", "--dtype", "fp16", "-o", "o.npz")
    assert (result.code, result.err) == (
        1,
        "ema-weights: tensor 'w' has values that float16 can't hold\n  try: --dtype float32\n",
    )
    assert not Path("o.npz").exists()


def test_choosing_and_renaming(run: Run) -> None:
    write(Path("a.npz"), {"module.w": np.ones(2), "module.b": np.ones(1), "opt": np.ones(1) * 1j})
    write(Path("b.npz"), {"w": np.full(2, 4.0), "b": np.ones(3)})
    options = ("--decay", "0.5", "--strip-prefix", "module.", "--exclude", "opt", "--include", "[wo]*")
    assert run("a.npz", "b.npz", *options, "-o", "o.npz").code == 0
    assert {name: array.tolist() for name, array in read(Path("o.npz")).items()} == {"w": [3.0, 3.0]}
    assert (
        run("b.npz", "a.npz", *options, "-o", "newest_has_prefix.npz", "--resume", "s.safetensors").code == 0
    )
    assert {name: array.tolist() for name, array in read(Path("newest_has_prefix.npz")).items()} == {
        "w": [2.0, 2.0]
    }
    assert run("a.npz", "--decay", "0.5", "--include", "x*", "-o", "p.npz").err == (
        "ema-weights: a.npz: no tensor is chosen of those it has: 'module.b', 'module.w', 'opt'\n"
    )
    assert "holds complex128" in run("a.npz", "--decay", "0.5", "-o", "p.npz").err


def test_tensors_that_differ_are_listed(run: Run) -> None:
    write(Path("a.npz"), {"w": np.ones(2), "b": np.ones(1), "n": np.ones(1)})
    write(Path("b.npz"), {"w": np.ones(2), "c": np.ones(1), "n": np.ones(1, int), "v": np.ones(2)})
    write(Path("c.npz"), {"w": np.ones(2), "c": np.ones(1), "n": np.ones(1, int), "v": np.ones(3)})
    result = run("a.npz", "b.npz", "c.npz", "--decay", "0.5", "-o", "o.npz")
    assert (result.code, result.err) == (
        1,
        "ema-weights: the checkpoints do not hold the same tensors:\n"
        "  'c' is missing in a.npz\n"
        "  'n' is float64 in a.npz, int64 in c.npz\n"
        "  'v' is missing in a.npz\n"
        "  'b' is missing in c.npz\n"
        "  'v' is [2] in b.npz, [3] in c.npz\n"
        "  try: --keys intersection folds what they share\n",
    )
    shared = run("a.npz", "b.npz", "c.npz", "--decay", "0.5", "--keys", "intersection", "-o", "o.npz")
    assert shared == (0, "", "ema-weights: 4 tensors left out, not alike in all: b, c, n, v\n")
    assert list(read(Path("o.npz"))) == ["w"]
    write(Path("d.npz"), {"x": np.ones(1)})
    assert (
        "share no tensor"
        in run("a.npz", "d.npz", "--decay", "0.5", "--keys", "intersection", "-o", "p.npz").err
    )


def test_a_prefix_that_some_have_is_found(run: Run) -> None:
    write(Path("a.npz"), {"w": np.ones(2), "head.w": np.ones(1)})
    write(Path("b.npz"), {"module.w": np.ones(2), "module.head.w": np.ones(1)})
    found = "  try: --strip-prefix module. takes it off their names\n"
    for names in (("a.npz", "b.npz"), ("b.npz", "a.npz")):
        assert run(*names, "--uniform", "--dry-run").err.endswith(found)
        assert run(*names, "--uniform", "--dry-run", "--keys", "intersection").err.endswith(found)
        assert run(*names, "--uniform", "--dry-run", "--strip-prefix", "module.").code == 0


def zipped(member: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo(member), b"content")  # no clock in the names of tests
    return made.getvalue()


TORCHS, SAFE = zipped("model/data.pkl"), b"\x08" + bytes(7) + b'{"a":{}}'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.safetensors",
            POINTER,
            "is a pointer of Git LFS, not the file it stands for\n  try: git lfs pull",
        ),
        ("a.npz", POINTER, "is a pointer of Git LFS"),
        ("a.npz", b"\n<!DOCTYPE html><title>Not found", "is a web page, no checkpoint\n"),
        ("a.safetensors", b"<?xml version='1.0'?><Error/>", "is a web page, no checkpoint\n"),
        (
            "a.safetensors",
            gzip.compress(SAFE, mtime=0),
            "by gzip\n  try: gzip -dc a.safetensors > a-plain.safetensors",
        ),
        ("a.safetensors", TORCHS, "is a .pt file by its content\n  try: a name that ends in .pt"),
        ("a.npz", TORCHS, "is a .pt file by its content"),
        ("a.npz", SAFE, "is a .safetensors file by its content"),
        ("a.safetensors", zipped("w.npy"), "is a .npz file by its content"),
        ("a.safetensors", b"PK\x03\x04 no archive", "is no safetensors file"),
        ("a.npz", zipped("notes.txt"), "holds no arrays: 'notes.txt'"),
        ("a.safetensors", b"something else", "is no safetensors file, or is cut short"),
        ("a.txt", b"something else", "is no checkpoint by its suffix"),
    ],
)
def test_a_file_of_another_kind_is_named(run: Run, name: str, content: bytes, said: str) -> None:
    Path(name).write_bytes(content)
    result = run(name, "--uniform", "-o", "o.npz")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"ema-weights: {name}: ")
    assert said in result.err


def test_all_tensors_that_are_refused_are_listed(run: Run) -> None:
    np.savez("a.npz", w=np.ones(2), c=np.ones(2, complex), t=np.array(["x"]), o=np.array([None, 1]))
    assert run("a.npz", "--uniform", "--dry-run") == (
        1,
        "",
        "ema-weights: a.npz: 3 tensors can be neither averaged nor copied:\n"
        "  tensor 'c' holds complex128; floats are averaged, integers and bools copied, nothing else\n"
        "  tensor 't' holds text; floats are averaged, integers and bools copied, nothing else\n"
        "  tensor 'o' holds pickled Python objects, which are not loaded as they can run code; "
        "arrays of numbers are averaged\n"
        "  try: --exclude c --exclude t --exclude o leaves them out\n",
    )
    excluded = ("--exclude", "c", "--exclude", "t", "--exclude", "o")
    assert run("a.npz", "--uniform", "--dry-run", *excluded).code == 0


def test_a_picture_that_has_no_place_stops_it_before_the_work(run: Run) -> None:
    write_models("a.npz")
    result = run("a.npz", "--uniform", "-o", "o.npz", "--plot", "no/p.svg")
    assert (result.code, "make the folder first: mkdir -p no" in result.err) == (1, True)
    assert sorted(path.name for path in Path().iterdir()) == ["a.npz"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_an_error_that_names_file_and_tensor(run: Run, bad: float) -> None:
    write(Path("a.npz"), {"w": np.ones(2), "v": np.ones(2)})
    write(Path("b.npz"), {"w": np.array([1, bad]), "v": np.ones(2)})
    Path("o.npz").write_text("old")
    run("a.npz", "--decay", "0.5", "-o", "first.npz", "--resume", "s.npz")
    state = Path("s.npz").read_bytes()
    result = run("b.npz", "--decay", "0.5", "-o", "o.npz", "--force", "--resume", "s.npz")
    assert result.code == 1
    assert "b.npz: tensor 'w' holds NaN or infinity" in result.err
    assert Path("o.npz").read_text() == "old"
    assert Path("s.npz").read_bytes() == state
    assert sorted(p.name for p in Path().iterdir()) == ["a.npz", "b.npz", "first.npz", "o.npz", "s.npz"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "no weight given"),
        (("--decay", "0.5"), 2, "no output given"),
        (("--decay", "0.5", "-o", "o.npz"), 2, "no checkpoint given"),
        (("a.npz", "--decay", "0.5", "--alpha", "0.5", "-o", "o.npz"), 2, "--decay and --alpha say the same"),
        (("a.npz", "--decay", "1.5", "-o", "o.npz"), 2, "between 0 and 1"),
        (("a.npz", "--decay", "x", "-o", "o.npz"), 2, "not a number"),
        (("a.npz", "--alpha", "auto", "-o", "o.npz"), 2, "needs a series"),
        (("a.npz", "--halflife", "0", "-o", "o.npz"), 2, "a number of checkpoints above 0"),
        (("a.npz", "--halflife", "5min", "-o", "o.npz"), 2, "checkpoints have no times"),
        (("a.npz", "--decay", "0.5", "--init", "sma", "-o", "o.npz"), 2, "'sma' is not one of"),
        (("a.npz", "--decay", "0.5", "-o", "o.txt"), 2, "written as .safetensors, .npz or .pt"),
        (("a.npz", "--decay", "0.5", "--key", "m", "-o", "o.npz"), 2, "a.npz is none"),
        (("a.npz", "--decay", "0.5", "-o", "a.npz"), 1, "a.npz: exists\n  try: --force"),
        (("a.npz", "--decay", "0.5", "-o", "no/o.npz"), 1, "make the folder first: mkdir -p"),
        (("b.npz", "--decay", "0.5", "-o", "o.npz"), 1, "b.npz: no such file"),
        (("a.txt", "--decay", "0.5", "-o", "o.npz"), 1, "a.txt: no such file"),
        (("a.npz", "--decay", "0.8,0.9", "-o", "o.npz"), 2, "try: --decay 0.8 --decay 0.9\n"),
        (("a.npz", "--decay", "0.5", "-o", "o.npz", "--plot", "p.gif"), 2, "pictures are .png, .svg, .pdf"),
        (("a.npz", "--decay", "0.5", "-o", "o.npz", "--resume", "o.npz"), 2, "is the output, too"),
        (
            ("a.npz", "--decay", "0.5", "-o", "o.npz", "--resume", "a.npz"),
            1,
            "a.npz: is no ema-weights state",
        ),
        (("a.npz", "--decay", "0.5", "--per-step", "-o", "o.npz"), 1, "no step in its name"),
        (("a.npz", "--frob"), 2, "ema-weights --help"),
    ],
)
def test_what_users_get_wrong(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    write_models("a.npz")
    result = run(*arguments)
    assert result.code == code
    assert result.err.startswith("ema-weights: ")
    assert said in result.err
    assert sorted(p.name for p in Path().iterdir()) == ["a.npz"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--decay", "0.6"), "was made with --decay 0.5 (--alpha 0.5), not --decay 0.6 (--alpha 0.4)"),
        (("--decay", "0.5", "--init", "first"), "was made with --init corrected, not --init first"),
        (("--decay", "0.5", "--per-step"), "was made with no --per-step, not --per-step"),
        (("--decay", "0.5", "--exclude", "b"), "was made with no --exclude, not --exclude b"),
    ],
)
def test_resuming_with_other_options(run: Run, changed: tuple[str, ...], said: str) -> None:
    write_models("a1.npz", "a2.npz")
    run("a1.npz", "--decay", "0.5", "-o", "o.npz", "--resume", "s.npz")
    before = Path("s.npz").read_bytes()
    result = run("a2.npz", *changed, "-o", "p.npz", "--resume", "s.npz")
    assert (result.code, said in result.err) == (1, True), result.err
    assert Path("s.npz").read_bytes() == before
    assert not Path("p.npz").exists()
    assert "--resume s.npz carries it on" in run("s.npz", "--decay", "0.5", "-o", "p.npz").err


def test_steps_must_grow(run: Run) -> None:
    write_models("s10.npz", "s9.npz")
    result = run("s10.npz", "s9.npz", "--decay", "0.5", "--per-step", "-o", "o.npz")
    assert (result.code, "step 9 comes after step 10" in result.err) == (1, True)
    assert "the order given is kept" in run("s10.npz", "s9.npz", "--decay", "0.5", "-o", "o.npz").err


def test_a_first_file_that_outweighs_the_rest_is_pointed_out(run: Run) -> None:
    write_models(*(f"s{i}.npz" for i in range(5)))
    result = run(".", "--decay", "0.95", "--init", "first", "--dry-run")
    assert [line.split()[0][:4] for line in result.out.splitlines()[1:]] == [
        "0.81",
        "0.04",
        "0.04",
        "0.04",
        "0.05",
    ]
    assert "s0.npz, the oldest, has 81% of the weight" in result.err
    plain = run(".", "--decay", "0.95", "--dry-run")
    assert [line.split()[0][:4] for line in plain.out.splitlines()[1:]] == [
        "0.18",
        "0.18",
        "0.19",
        "0.20",
        "0.22",
    ]
    assert "outweighs" not in plain.err


@pytest.mark.torch
def test_torch_checkpoints_and_shards_make_the_same_average(run: Run) -> None:
    import torch

    for step in (1, 2):
        arrays = {f"l{i}": model(10 * step + i)["w"] for i in range(3)}
        save_file(arrays, f"m{step}.safetensors")
        named = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save({"model": named, "epoch": 1}, f"m{step}.pt")
        for shard, name in enumerate(arrays):
            save_file({name: arrays[name]}, f"x{step}-{shard}.safetensors")
        weight_map = {name: f"x{step}-{shard}.safetensors" for shard, name in enumerate(arrays)}
        Path(f"x{step}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for index, names in enumerate(
        [("m1.safetensors", "m2.safetensors"), ("x1.safetensors.index.json", "x2.safetensors.index.json")]
    ):
        assert run(*names, "--decay", "0.9", "-o", f"o{index}.safetensors").code == 0
    assert run("m1.pt", "m2.pt", "--key", "model", "--decay", "0.9", "-o", "o2.safetensors").code == 0
    same(load_file("o0.safetensors"), load_file("o1.safetensors"))
    same(load_file("o0.safetensors"), load_file("o2.safetensors"))
    mixed = run("m1.pt", "--decay", "0.9", "-o", "o3.npz")
    assert mixed.err == "ema-weights: m1.pt: holds more than tensors: 'epoch'\n  try: --key model\n"
    some = ("--include", "model.*", "--strip-prefix", "model.")
    assert run("m1.pt", "m2.pt", *some[:2], "--decay", "0.9", "-o", "o3.npz").code == 0
    assert run("m1.pt", "m2.pt", "--exclude", "epoch", *some[2:], "--decay", "0.9", "-o", "o4.npz").code == 0
    same(read(Path("o4.npz")), load_file("o0.safetensors"))


def test_slices_make_no_difference(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_models("a.npz", "b.safetensors")
    run("a.npz", "b.safetensors", "--decay", "0.9", "-o", "whole.safetensors", "--resume", "s.safetensors")
    monkeypatch.setattr(slices, "_SLICE", 3)
    run("a.npz", "b.safetensors", "--decay", "0.9", "-o", "sliced.safetensors", "--resume", "t.safetensors")
    assert Path("whole.safetensors").read_bytes() == Path("sliced.safetensors").read_bytes()
    assert Path("s.safetensors").read_bytes() == Path("t.safetensors").read_bytes()
    run("a.npz", "b.safetensors", "--decay", "0.9", "-o", "sliced.npz", "--resume", "t.npz")
    same(read(Path("sliced.npz")), read(Path("whole.safetensors")))
    same(read(Path("t.npz")), read(Path("s.safetensors")))


def test_slices_make_no_difference_to_lengths_after_the_fact(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"step_{step}.safetensors" for step in range(1, 12)]
    write_models(*names)
    widths = [part for width in ("0.05", "0.1", "0.2") for part in ("--sigma-rel", width)]
    run(*names, *widths, "-o", "whole-{}.safetensors")
    monkeypatch.setattr(slices, "_SLICE", 3)
    monkeypatch.setattr(slices, "_CACHED", 5 * 8 * 8)  # tiles of two elements for three averages
    run(*names, *widths, "-o", "sliced-{}.safetensors")
    run(*names, *widths[:2], "-o", "alone-{}.safetensors")
    for width in widths[1::2]:
        whole = Path(f"whole-{width}.safetensors").read_bytes()
        assert Path(f"sliced-{width}.safetensors").read_bytes() == whole
    assert Path("alone-0.05.safetensors").read_bytes() == Path("whole-0.05.safetensors").read_bytes()


def test_the_output_may_be_an_input(run: Run) -> None:
    write_models("a.npz", "b.npz")
    run("a.npz", "b.npz", "--decay", "0.9", "-o", "o.npz")
    run("a.npz", "b.npz", "--decay", "0.9", "-o", "b.npz", "--force")
    assert Path("o.npz").read_bytes() == Path("b.npz").read_bytes()


def test_hostile_checkpoints_end_with_a_message(run: Run) -> None:
    write_models("a.npz", "a.safetensors")
    for suffix in ("npz", "safetensors", "pt"):
        for content in (b"", b"\x80\x04junk", bytes(5000), Path("a.safetensors").read_bytes()[:-1]):
            Path(f"bad.{suffix}").write_bytes(content)
            result = run(f"bad.{suffix}", "--decay", "0.5", "-o", "o.npz")
            assert result.code == 1
            assert result.err.startswith(f"ema-weights: bad.{suffix}: ")


# Real processes


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ema_cli.weights_cli", *arguments]


def test_help_loads_no_numpy() -> None:
    program = (
        "import sys; from ema_cli.weights_cli import command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    names = [str(write(tmp_path / "a.safetensors", {"w": np.ones(2)}))] * 5000
    process = subprocess.Popen(
        command(*names, "--decay", "0.5", "--dry-run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(), "Traceback" in err, "rror" in err) == (-signal.SIGPIPE, False, False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a fifo to hold the command where it is")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"w": np.ones(2)})
    # Writing into a fifo that nobody reads, the command waits for as long as we like.
    os.mkfifo(tmp_path / "o.safetensors")
    arguments = (str(path), "--decay", "0.5", "-o", str(tmp_path / "o.safetensors"))
    process = subprocess.Popen(
        command(*arguments, "--resume", str(tmp_path / "s.npz")),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not list(tmp_path.glob(".s.npz.*.part")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.decode()) == (130, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "o.safetensors"]


PEAK = """
import sys, ema_cli.weights_cli as c
c.command.main(sys.argv[1:], standalone_mode=False)
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"): print(line.split()[1])
"""


def peak_mb(folder: Path, suffix: str, state: str) -> float:
    arguments = [
        str(folder),
        "--decay",
        "0.9",
        "-o",
        str(folder / f"o{suffix}"),
        "--resume",
        str(folder / state),
    ]
    done = subprocess.run([sys.executable, "-c", PEAK, *arguments], check=True, capture_output=True)
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_memory_does_not_follow_the_model(tmp_path: Path, suffix: str) -> None:
    peaks = []
    for name, size in {"small": 1000, "large": 8_000_000}.items():
        folder = tmp_path / name
        folder.mkdir()
        for step in range(3):
            arrays = {f"w{i}": np.full(size, step + i, np.float32) for i in range(2)}
            write(folder / f"s{step}{suffix}", arrays, piece=size)
        peaks.append(peak_mb(folder, suffix, f"state{suffix}"))
    # Three models of 64 MB, one tensor 32 MB, 64 MB in float64: a slice of it is what there is at a time.
    assert peaks[1] - peaks[0] < 20


def test_a_large_tensor_keeps_its_values(tmp_path: Path) -> None:
    values = np.arange(3 * slices._SLICE + 5, dtype=np.float32)
    write(tmp_path / "a.npz", {"w": values}, piece=len(values))
    write(tmp_path / "b.npz", {"w": values + 2}, piece=len(values))
    subprocess.run(
        command(str(tmp_path), "--decay", "1", "-o", str(tmp_path / "o.npz")), check=True, capture_output=True
    )
    with open_checkpoint(str(tmp_path / "o.npz")) as checkpoint:
        info = checkpoint.tensors["w"]
        assert (checkpoint.read(info, 0, info.size) == values + 1).all()


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from ema_cli.weights_cli import command, NAME
from ema_cli.console import run_command
run_command(command, NAME, sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on file sizes stands in for a full disk")
@pytest.mark.parametrize("limit", [1000, 60_000], ids=["output", "state"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_full_disk_changes_neither_output_nor_state(tmp_path: Path, limit: int, suffix: str) -> None:
    for step in (1, 2):
        write(tmp_path / f"m{step}.npz", {"w": np.full(10_000, step, np.float32)}, piece=10_000)
    state, out = str(tmp_path / f"s{suffix}"), str(tmp_path / f"o{suffix}")
    options = ("--decay", "0.5", "--resume", state, "--force", "-o", out)
    subprocess.run(command(str(tmp_path / "m1.npz"), *options), check=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    full = [sys.executable, "-c", FULL, str(limit), str(tmp_path / "m2.npz"), *options]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    # With 1,000 bytes it depends on the headers which is full first.
    name = out if limit == 1000 and out in done.stderr else state
    assert (done.returncode, done.stderr) == (1, f"ema-weights: {name}: file too large\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_does_not_stand_for_its_own_average(run: Run) -> None:
    for step in (1, 2):
        write(Path(f"step_{step}.npz"), {"w": np.full(3, float(step))}, {})
    for _ in range(2):
        done = run(".", "--alpha", "0.5", "-o", "ema.npz", "--resume", "state.npz", "--force")
        assert done.code == 0, done.err
        Path("state.npz").unlink()
        assert read(Path("ema.npz"))["w"][0] == pytest.approx(5 / 3)


def test_many_dimensions(run: Run) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1] * 101, "data_offsets": [0, 4]}}).encode()
    Path("a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    done = run("a.safetensors", "--alpha", "0.5", "-o", "o.npz")
    assert done.code == 1
    assert "a.safetensors: is damaged: tensor 'w'" in done.err
