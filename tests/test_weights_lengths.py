"""`ema-weights`: the plain mean, given weights, lengths after the fact, several averages in one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli import ParameterEMA
from ema_cli.parameters.checkpoints import open_checkpoint
from ema_cli.parameters.fold import Places, fold
from ema_cli.parameters.lengths import make_lengths
from ema_cli.parameters.plan import FoldOptions
from tests.conftest import Run
from tests.parameters.test_checkpoints import read, save_file, write
from tests.test_weights_cli import write_models

pytest.importorskip("safetensors")


def values(name: str) -> Any:
    return read(Path(name))["w"]


def write_steps(count: int, size: int = 7, start: int = 1) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(start)
    arrays = [rng.normal(size=size) for _ in range(count)]
    for number, array in enumerate(arrays, start):
        write(Path(f"step_{number}.npz"), {"w": array, "n": np.array(number)})
    return arrays


def test_the_plain_mean(run: Run) -> None:
    arrays = write_steps(5)
    done = run(".", "--uniform", "-o", "mean.npz", "-v")
    assert (done.code, done.err) == (0, "ema-weights: plain mean; tensors: 1 averaged, 1 copied\n")
    np.testing.assert_allclose(values("mean.npz"), np.mean(arrays, axis=0), rtol=1e-14)
    run("step_1.npz", "step_2.npz", "--uniform", "-o", "part.npz", "--resume", "s")
    run("step_3.npz", "step_4.npz", "step_5.npz", "--uniform", "-o", "part.npz", "--resume", "s", "--force")
    assert (values("part.npz") == values("mean.npz")).all()


def test_weights_as_given(run: Run) -> None:
    arrays = write_steps(3)
    files = ("step_1.npz", "step_2.npz", "step_3.npz")
    for given_weights, weights in {
        "0.5,0.3,0.2": [0.5, 0.3, 0.2],
        "1/3, 1/3, 1/3": [1 / 3] * 3,
        "1,-1,1": [1, -1, 1],
        "0,0.25,0.75": [0, 0.25, 0.75],
    }.items():
        done = run(*files, "--weights", given_weights, "-o", "o.npz", "--force")
        assert (done.code, done.err) == (0, "")
        expected = sum(weight * array for weight, array in zip(weights, arrays, strict=True))
        np.testing.assert_allclose(values("o.npz"), expected, rtol=1e-12, atol=1e-15)
    done = run(*files, "--weights", "2,1,1", "-o", "sum.npz")
    assert "add up to 4, not to 1; they are used as they are given" in done.err
    np.testing.assert_allclose(values("sum.npz"), 2 * arrays[0] + arrays[1] + arrays[2], rtol=1e-12)


def test_given_weights_go_on_bit_for_bit(run: Run) -> None:
    write_steps(4)
    files = [f"step_{k}.npz" for k in range(1, 5)]
    assert run(*files, "--weights", "0.1,0.2,0.3,0.4", "-o", "whole.npz").code == 0
    assert run(*files[:1], "--weights", "0.1", "-o", "p.npz", "--resume", "s").code == 0
    assert run(*files[1:], "--weights", "0.2,0.3,0.4", "-o", "p.npz", "--resume", "s", "--force").code == 0
    assert (values("p.npz") == values("whole.npz")).all()
    assert (
        "was made with --weights, not --decay 0.5"
        in run(*files[:1], "--decay", "0.5", "-o", "q.npz", "--resume", "s").err
    )


@pytest.mark.parametrize("family", ["--decay", "--alpha"])
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_several_lengths_are_those_of_single_runs_bit_for_bit(
    run: Run,
    family: str,
    suffix: str,
) -> None:
    write_models("a1.npz", "a2.npz", "a3.npz", "a4.npz")
    several = [part for value in ("0.5", "0.9", "0.25") for part in (family, value)]
    out, state = f"o-{{}}.{suffix}", "s-{}"
    assert run("a1.npz", "a2.npz", *several, "-o", out, "--resume", state).code == 0
    assert run("a3.npz", "a4.npz", *several, "-o", out, "--resume", state, "--force").code == 0
    for value in ("0.5", "0.9", "0.25"):
        assert run(".", family, value, "-o", f"one.{suffix}", "--force").code == 0, "o-* are averages"
        assert Path(f"one.{suffix}").read_bytes() == Path(f"o-{value}.{suffix}").read_bytes()


def test_names_reach_the_terminal_without_control_characters(run: Run) -> None:
    for step in (1, 2):
        write(Path(f"a\x1b[31m\u202e{step}.npz"), {"w": np.ones(2)})
    done = run("a*", "--uniform", "--dry-run")
    assert (done.code, "\x1b" in done.out, "\u202e" in done.out) == (0, False, False)
    assert len(done.out.splitlines()) == 3


def test_lengths_in_one_table(run: Run) -> None:
    write_steps(2)
    assert run(".", "--decay", "0.5", "--decay", "0", "--dry-run").out == (
        "     0.5         0  checkpoint\n0.333333  0.000000  step_1.npz\n0.666667  1.000000  step_2.npz\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--decay", "0.5", "--decay", "0.9", "-o", "o.npz"), "several lengths need an output each"),
        (
            ("--decay", "0.5", "--decay", "0.9", "-o", "o-{}.npz", "--resume", "s"),
            "several lengths need a state each",
        ),
        (("--decay", "0.5", "--decay", "0.5", "-o", "o-{}.npz"), "--decay 0.5 is given twice"),
        (("--decay", "0.5", "--uniform", "-o", "o.npz"), "--decay and --uniform exclude each other"),
        (("--uniform", "--init", "first", "-o", "o.npz"), "--init first is for a decay"),
        (("--uniform", "--per-step", "-o", "o.npz"), "--per-step is for a decay"),
        (("--weights", "1,x", "-o", "o.npz"), "'x' is no number"),
        (("--weights", "1,1/0", "-o", "o.npz"), "'1/0' is no number"),
        (("--weights", "1", "-o", "o.npz"), "1 weights for 2 checkpoints"),
        (("--weights", "0,0", "-o", "o.npz"), "add up to nothing"),
        (("--sigma-rel", "0.3", "-o", "o.npz"), "at most 0.2887"),
        (("--sigma-rel", "-1", "-o", "o.npz"), "must be a number above 0"),
        (("--half-life-at-end", "0", "-o", "o.npz"), "must be a number above 0"),
        (("--half-life-at-end", "99", "-o", "o.npz"), "the longest is 1"),
        (("--sigma-rel", "0.1", "-o", "o.npz", "--resume", "s"), "takes all snapshots at once"),
        (("--decay", "0.5", "-o", "o.npz", "--shard-size", "1GB"), "o.npz is one file"),
        (("--decay", "0.5", "-o", "o/", "--shard-size", "much"), "no size in bytes"),
        (("--sigma-rel", "0.1", "--dry-run", "--plot", "a.gif"), "pictures are .png, .svg, .pdf"),
    ],
)
def test_what_users_get_wrong(run: Run, arguments: tuple[str, ...], said: str) -> None:
    write_steps(2)
    before = sorted(path.name for path in Path().iterdir())
    done = run("step_1.npz", "step_2.npz", *arguments)
    assert (done.code, said in done.err) == (2, True), done.err
    assert sorted(path.name for path in Path().iterdir()) == before


# After the fact


def train(folder: Path, suffix: str, dtype: Any = np.float64) -> dict[float, Any]:
    """Snapshots of two widths, and averages of three other widths kept along the run."""
    rng = np.random.default_rng(3)
    params = {"w": np.zeros(300, dtype), "half": np.ones(5, np.float16), "n": np.array(0)}
    powers = ParameterEMA(params, power=[0.05, 0.1])
    others = ParameterEMA(params, power=[0.07, 0.12, 0.2], dtype="float64")
    for step in range(1, 1201):
        params["w"] += rng.normal(size=300).astype(dtype) - np.asarray(0.01 * params["w"], dtype)
        params["n"] += 1
        powers.update(params)
        others.update(params)
        if step % 50 == 0:
            powers.snapshot(folder / f"snap-{step}.{suffix}")
    return {width: others.ema[width] for width in (0.07, 0.12, 0.2)}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_averages_from_snapshots_are_those_kept_along_the_run(run: Run, suffix: str) -> None:
    kept = train(Path(), suffix)
    lengths = [part for width in kept for part in ("--sigma-rel", str(width))]
    done = run(".", *lengths, "-o", "ema-{}.safetensors")
    assert (done.code, done.err) == (0, "")
    for width, expected in kept.items():
        got = read(Path(f"ema-{width}.safetensors"))
        error = np.linalg.norm(got["w"] - expected["w"]) / np.linalg.norm(expected["w"])
        assert error < 2e-3
        assert (got["half"] == 1).all(), "what never moved is itself"
        assert (got["half"].dtype, got["n"]) == (np.float16, 1200), "in the parameters' own dtypes"
    with open_checkpoint("ema-0.12.safetensors") as checkpoint:
        said = json.loads(checkpoint.metadata["ema_smooth"])
    assert said["fit"]["sigma_rel"] == pytest.approx(0.12)
    assert sum(file["weight"] for file in said["files"]) == pytest.approx(1)


def test_a_dry_run_says_weights_and_closeness_and_draws_them(run: Run) -> None:
    train(Path(), "npz")
    pytest.importorskip("matplotlib")
    done = run(".", "--sigma-rel", "0.1", "--sigma-rel", "0.2", "--dry-run", "--plot", "a.svg")
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["0.1", "0.2", "step", "checkpoint"]
    assert len(rows) == 49
    assert float(rows[-1][0]) == pytest.approx(1.0, abs=1e-4), "this width is there"
    assert "--sigma-rel 0.2: sigma-rel 0.2, gamma 1.82621, half-life 294.1" in done.err
    picture = Path("a.svg").read_text()
    assert "weight up to a step" in picture or picture.count("<path") > 10
    run(".", "--sigma-rel", "0.1", "--sigma-rel", "0.2", "--dry-run", "--plot", "b.svg")
    assert Path("b.svg").read_bytes() == Path("a.svg").read_bytes()


def test_plain_checkpoints_say_how_far_off_they_are(run: Run) -> None:
    write_steps(5)
    done = run(".", "--half-life-at-end", "2", "-o", "o.npz")
    assert done.code == 0
    assert "weight lies" in done.err
    one = run("step_5.npz", "step_1.npz", "step_3.npz", "--half-life-at-end", "1", "--dry-run")
    assert [line.split()[-1] for line in one.out.splitlines()[1:]] == [
        "step_1.npz",
        "step_3.npz",
        "step_5.npz",
    ]


def test_folding_snapshots_by_a_decay_is_remarked_on(run: Run) -> None:
    ema = ParameterEMA({"w": np.ones(2)}, power=0.1)
    ema.update({"w": np.ones(2)})
    ema.snapshot("snap-1.npz")
    assert "an average of averages" in run("snap-1.npz", "--decay", "0.5", "--dry-run").err
    write_steps(1, size=2)
    mixed = run("snap-1.npz", "step_1.npz", "--sigma-rel", "0.1", "--keys", "intersection", "--dry-run")
    assert (mixed.code, "some are not" in mixed.err) == (1, True)


# The arithmetic, against plain sums


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-2, 2), min_size=1, max_size=5).filter(lambda w: abs(sum(w)) > 0.1),
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 5),
)
def test_any_weights_are_the_plain_sum(
    tmp_path_factory: pytest.TempPathFactory, weights: list[float], dtype: Any, size: int
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    rng = np.random.default_rng(size)
    arrays = [rng.normal(size=size).astype(dtype) for _ in weights]
    names = [str(write(folder / f"{k}.npz", {"w": array})) for k, array in enumerate(arrays)]
    lengths = make_lengths({"weights": [",".join(map(repr, weights))]})
    fold(names, FoldOptions(lengths, dtype="float64"), Places(str(folder / "o.npz")))
    expected = np.sum([w * a.astype(float) for w, a in zip(weights, arrays, strict=True)], axis=0)
    np.testing.assert_allclose(read(folder / "o.npz")["w"], expected, rtol=1e-11, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e30, 1e30), st.lists(st.sampled_from([0.2, -0.5, 0.7, 1.5]), min_size=1, max_size=5))
def test_a_constant_stays_that_constant(
    tmp_path_factory: pytest.TempPathFactory, value: float, weights: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("constant")
    weights = [*weights, 1 - sum(weights)]
    names = [str(write(folder / f"s{k}.npz", {"w": np.full(3, value)})) for k in range(len(weights))]
    for given_lengths in (
        {"weights": [",".join(map(repr, weights))]},
        {"decay": ["0.9", "0.1"]},
        {"uniform": True},
        {"sigma-rel": ["0.1"]},
    ):
        lengths = make_lengths(given_lengths)  # type: ignore[arg-type]
        fold(names, FoldOptions(lengths), Places(str(folder / "o-{}.safetensors"), force=True))
        for length in lengths:
            assert (read(folder / f"o-{length.text}.safetensors")["w"] == value).all()


def test_the_worked_example(run: Run) -> None:
    p = np.array([1.0, 2.0, 3.0])
    save_file({"p": 0 * p}, "step_0.safetensors")
    for step in range(1, 11):
        p = p - [0.1, 0.2, 0.3]
        save_file({"p": p}, f"step_{step}.safetensors")
    assert run(".", "--alpha", "0.9", "--init", "first", "-o", "o.safetensors").code == 0
    assert f"{read(Path('o.safetensors'))['p'] @ [4, 5, 6]:.11f}" == "0.35555555232"
