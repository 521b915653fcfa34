"""`--state`: many runs are one run, and a state file that is not sound is refused and left alone."""

from __future__ import annotations

import json
import random
import subprocess
import time
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ema_cli.average import make_average
from ema_cli.errors import EmaError, StateError
from ema_cli.job import Job
from ema_cli.run.pipeline import run
from ema_cli.run.saved_state import open_saved_state
from ema_cli.run.selection import Selection
from tests.conftest import Workshop

HEADER = "t,key,a,b\n"
PLAIN = {
    "alpha": {"alpha": ["0.1"]},
    "several weights": {"alpha": ["0.1", "0.5", "0.01"]},
    "span": {"span": ["7"]},
    "halflife": {"halflife": ["3.5"]},
    "com": {"com": ["4"]},
    "decay": {"decay": ["0.9"]},
    "copy": {"alpha": ["1"]},
    "still": {"alpha": ["0"]},
    "adjust": {"alpha": ["0.2"], "adjust": True},
    "std": {"alpha": ["0.2"], "std": True},
    "bands": {"alpha": ["0.2"], "bands": "2", "adjust": True},
    "residual": {"alpha": ["0.2"], "residual": True},
    "zero": {"alpha": ["0.2"], "init": "zero"},
    "number": {"alpha": ["0.2"], "init": "3.5"},
    "sma": {"span": ["9"], "init": "sma"},
    "sma, decay": {"span": ["9"], "init": "sma", "missing": "decay"},
    "decay by position": {"alpha": ["0.2"], "missing": "decay"},
    "decay, adjust, std": {"alpha": ["0.2"], "missing": "decay", "adjust": True, "std": True},
    "fill": {"alpha": ["0.2"], "fill": True},
    "fill, std, decay": {"alpha": ["0.2"], "fill": True, "std": True, "missing": "decay"},
    "min periods": {"alpha": ["0.2"], "min_periods": 5},
    "everything": {
        "alpha": ["0.2", "0.02"],
        "adjust": True,
        "missing": "decay",
        "fill": True,
        "std": True,
        "bands": "1.5",
        "residual": True,
        "min_periods": 3,
    },
}
TIMED = {
    "time": {"halflife": ["40s"]},
    "time, several": {"halflife": ["40s", "1h"], "fill": True},
    "time, adjust": {"halflife": ["40s"], "adjust": True},
    "time, std": {"halflife": ["40s"], "std": True, "residual": True},
    "time, adjust, bands": {"halflife": ["40s"], "adjust": True, "bands": "2", "min_periods": 4},
    "time, reset": {"halflife": ["40s"], "reset_gap": "25s", "std": True},
}
MODES = {**{name: (mode, False) for name, mode in PLAIN.items()}, **{n: (m, True) for n, m in TIMED.items()}}


def make_rows(count: int, seed: int) -> list[str]:
    """Rows with gaps, ties in time and keys in any order."""
    chance = random.Random(seed)
    now, rows = 0, []
    for _ in range(count):
        now += chance.choice([0, 0, 1, 7, 30])
        cells = ["" if chance.random() < 0.15 else repr(chance.gauss(5, 3)) for _ in range(2)]
        rows.append(f"{now},{chance.choice('pqrs')},{','.join(cells)}\n")
    return rows


def make_job(mode: dict[str, object], timed: bool, by: bool, **more: object) -> Job:
    options = {"columns": ("a", "b"), "by": ("key",) if by else ()} | more
    if timed:
        options |= {"time": "t", "time_unit": "s"}
    return Job(make_average(mode, timed=timed), **options)  # type: ignore[arg-type]


def through_state(job: Job, folder: Path, pieces: list[str]) -> bytes:
    """The outputs of runs over the pieces, one after another, without their headers."""
    state, out = folder / "state", b""
    state.unlink(missing_ok=True)
    for piece in pieces:
        (folder / "piece.csv").write_text(HEADER + piece)
        part = {
            "inputs": (str(folder / "piece.csv"),),
            "output": str(folder / "out.csv"),
            "state": str(state),
        }
        run(Job(**{**vars(job), **part}))
        out += (folder / "out.csv").read_bytes().partition(b"\n")[2]
    return out


@pytest.mark.parametrize("by", [False, True], ids=["one series", "by key"])
@pytest.mark.parametrize("name", MODES)
def test_pieces_through_a_state_are_one_run(name: str, by: bool, tmp_path: Path) -> None:
    mode, timed = MODES[name]
    seed = sum(name.encode()) + by
    chance, rows = random.Random(seed), make_rows(400, seed)
    job = make_job(mode, timed, by)
    whole = through_state(job, tmp_path, ["".join(rows)])
    state = (tmp_path / "state").read_bytes()
    # Cuts may fall together: a piece without rows changes nothing.
    cuts = sorted([0, 1, *chance.choices(range(400), k=4), 400])
    pieces = ["".join(rows[a:b]) for a, b in pairwise(cuts)]
    assert through_state(job, tmp_path, pieces) == whole
    assert (tmp_path / "state").read_bytes() == state


def test_alpha_auto_keeps_the_weight_it_found(shop: Workshop) -> None:
    rows = make_rows(300, 1)
    shop.write("first.csv", HEADER + "".join(rows[:200]))
    shop.write("second.csv", HEADER + "".join(rows[200:]))
    first = shop.run("first.csv", "-c", "a", "-c", "b", "--alpha", "auto", "--state", "s")
    second = shop.run("second.csv", "-c", "a", "-c", "b", "--alpha", "auto", "--state", "s")
    assert first.err == second.err
    assert "--alpha 0." in first.err


def test_parquet_in_pieces_is_one_run(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = np.random.default_rng(5)
    table = pa.table({"k": chance.choice(["x", "y"], 500), "v": chance.normal(size=500)})
    job = Job(make_average({"alpha": ["0.1"], "std": True}), by=("k",), state=str(tmp_path / "s"))
    outputs = []
    for number, (a, b) in enumerate([(0, 500), (0, 3), (3, 3), (3, 290), (290, 500)]):
        pq.write_table(table.slice(a, b - a), tmp_path / "piece.parquet")
        out = str(tmp_path / f"{number}.parquet")
        part = {
            "inputs": (str(tmp_path / "piece.parquet"),),
            "output": out,
            "state": job.state if number else None,
        }
        run(Job(**{**vars(job), "columns": ("v",), **part}))
        outputs.append(pq.read_table(out))
    assert pa.concat_tables(outputs[1:]).equals(outputs[0])


def test_columns_are_remembered_by_name_and_place(shop: Workshop) -> None:
    """The column that was chosen by default, one of two with its name, is found again without -c."""
    rows = ["x,1\n", "y,2\n", "z,3\n"]
    whole = shop.run("--alpha", "0.5", "--state", "one", stdin=("v,v\n" + "".join(rows)).encode()).out
    first = shop.run("--alpha", "0.5", "--state", "s", stdin=("v,v\n" + rows[0]).encode()).out
    rest = shop.run("--alpha", "0.5", "--state", "s", stdin=("v,v\n" + "".join(rows[1:])).encode()).out
    assert first + rest.partition(b"\n")[2] == whole
    # And it may have moved.
    assert shop.run("--alpha", "0.5", "--state", "s", "-c", "2", stdin=b"v,v,new\na,1,b\n").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--alpha", "0.2"], "alpha was 0.1, is 0.2"),
        (["--span", "19"], "alpha was 0.1, is not given; span was not given, is 19"),
        (["--alpha", "0.1", "--alpha", "0.2"], "alpha was 0.1, is 0.1, 0.2"),
        (["--alpha", "0.1", "--adjust"], "adjust was False, is True"),
        (["--alpha", "0.1", "--init", "zero"], "init was first, is 0"),
        (["--alpha", "0.1", "--missing", "decay"], "missing was skip, is decay"),
        (["--alpha", "0.1", "--fill"], "fill was False, is True"),
        (["--alpha", "0.1", "--min-periods", "2"], "min-periods was 0, is 2"),
        (["--alpha", "0.1", "--std"], "std was False, is True"),
        (["--alpha", "0.1", "--bands", "2"], "bands was not given, is 2"),
        (["--alpha", "0.1", "--residual"], "residual was False, is True"),
        (["--alpha", "0.1", "--by", "key"], "by was not given, is key"),
        (["--halflife", "1min", "--time", "t", "--time-unit", "s"], "time was not given, is t"),
        (["--alpha", "0.1", "-c", "a"], "columns was a, b, is a"),
        (["--alpha", "0.1", "--weights", "key"], "made with other options: weights was not given, is key\n"),
    ],
)
def test_other_options_are_named_and_the_state_stays(shop: Workshop, options: list[str], said: str) -> None:
    shop.write("in.csv", HEADER + "".join(make_rows(20, 3)))
    columns = [] if "-c" in options else ["-c", "a", "-c", "b"]
    shop.run("in.csv", "--alpha", "0.1", "-c", "a", "-c", "b", "--state", "s")
    before = shop.read("s")
    result = shop.run("in.csv", *options, *columns, "--state", "s", "-o", "out.csv", code=1)
    assert said in result.err
    assert shop.read("s") == before
    assert shop.names() == ["in.csv", "s"]


def test_a_column_that_is_gone_is_named(shop: Workshop) -> None:
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n")
    before = shop.read("s")
    result = shop.run("--alpha", "0.1", "--state", "s", stdin=b"w\n1\n", code=1)
    assert "'v'" in result.err
    assert shop.read("s") == before


def foreign_states(sound: bytes) -> dict[str, bytes]:
    """Files that are no sound state."""
    return {
        "empty": b"",
        "text": b"hello\n",
        "cut": sound[: len(sound) // 2],
        "cut at the end": sound[:-3],
        "zeros": bytes(len(sound)),
        "pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.",
        "parquet": b"PAR1" + bytes(100) + b"PAR1",
        "csv": b"a,b\n1,2\n",
    }


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)


def test_foreign_and_damaged_files_are_refused_and_left_alone(shop: Workshop) -> None:
    job = Job(
        make_average({"alpha": ["0.1"]}), (str(shop.write("in.csv", "v\n1\n2\n")),), str(shop.folder / "o")
    )
    job = Job(**{**vars(job), "state": str(shop.folder / "s")})
    run(job)
    sound = shop.read("s")
    for name, data in foreign_states(sound).items():
        shop.write("s", data)
        with pytest.raises(StateError, match=r"not a state file|damaged"):
            run(job)
        assert shop.read("s") == data, name
    assert shop.read("o") == b"v,v_ema\n1,1.0\n2,1.1\n"


def test_every_damaged_byte_is_an_error_or_makes_no_difference(shop: Workshop) -> None:
    base = Job(make_average({"alpha": ["0.1"]}), (str(shop.write("in.csv", "v,k\n1,a\n2,b\n")),), by=("k",))
    job = replace(base, state=str(shop.folder / "s"), output=str(shop.folder / "o"))
    run(job)
    sound = shop.read("s")
    run(job)
    right = shop.read("o")
    chance = random.Random(4)
    for _ in range(300):
        at = chance.randrange(len(sound))
        shop.write("s", sound[:at] + bytes([sound[at] ^ chance.randrange(1, 256)]) + sound[at + 1 :])
        try:
            run(job)
        except EmaError:
            continue
        assert shop.read("o") == right, f"byte {at}"


@pytest.mark.parametrize(
    "about",
    [
        [],
        {},
        {"format": "another"},
        {"format": "ema-smooth state", "version": "1"},
        {"format": "ema-smooth state", "version": 1},
        {"version": 1, "columns": 3},
        {"version": 99},
        {"keys": -1},
        {"keys": 10**15},
        {"keys": "many"},
        {"places": [0, 1]},
        {"places": ["x"]},
        {"alphas": ["x"]},
        {"alphas": [2.0]},
        {"options": None},
        {"columns": []},
    ],
    ids=str,
)
def test_a_crafted_description_is_refused(about: object, shop: Workshop) -> None:
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n")
    with zipfile.ZipFile(shop.folder / "s") as file:
        members = {name: file.read(name) for name in file.namelist()}
    if isinstance(about, dict) and "format" not in about and about:
        about = json.loads(members["state.json"]) | about
    archive(shop.folder / "s", members | {"state.json": json.dumps(about).encode()})
    before = shop.read("s")
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n", code=1)
    assert shop.read("s") == before


def test_a_state_that_would_unpack_to_more_than_itself_is_refused(shop: Workshop) -> None:
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n")
    with zipfile.ZipFile(shop.folder / "s") as file:
        members = {name: file.read(name) for name in file.namelist()}
    archive(shop.folder / "s", members | {"seen.npy": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert "not a state file" in shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n", code=1).err


def test_nothing_is_ever_unpickled(shop: Workshop) -> None:
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n")
    with zipfile.ZipFile(shop.folder / "s") as file:
        members = {name: file.read(name) for name in file.namelist()}
    np.save(shop.folder / "evil.npy", np.array([print], object), allow_pickle=True)
    archive(shop.folder / "s", members | {"seen.npy": shop.read("evil.npy")})
    assert shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n", code=1).out == b""


def test_ordinary_tools_read_it(shop: Workshop) -> None:
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n3\n")
    with zipfile.ZipFile(shop.folder / "s") as file:
        assert json.loads(file.read("state.json"))["options"]["alpha"] == [0.1]
    shop.run("--alpha", "0.1", "--state", "again", stdin=b"v\n1\n3\n")
    assert shop.read("s") == shop.read("again")  # no clock in it
    with np.load(shop.folder / "s", allow_pickle=False) as arrays:
        assert arrays["0.seen"].tolist() == [2]


def test_where_a_state_can_not_be(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n")
    (shop.folder / "link").symlink_to("in.csv")
    (shop.folder / "hard").hardlink_to(shop.folder / "in.csv")
    (shop.folder / "folder").mkdir()
    for name, code in [
        *[
            ("missing/s", 1),
            ("folder", 1),
            ("/dev/null", 1),
            ("in.csv", 2),
            ("link", 2),
            ("hard", 2),
            ("o.csv", 2),
        ],
    ]:
        shop.run("in.csv", "--alpha", "0.1", "--state", name, "-o", "o.csv", code=code)
        assert not (shop.folder / "o.csv").exists(), name
    assert shop.read("in.csv") == b"v\n1\n"
    assert shop.names() == ["folder", "hard", "in.csv", "link"]


def test_a_second_run_on_one_state_is_refused(shop: Workshop) -> None:
    with shop.start("--alpha", "0.1", "--state", "s") as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(b"v\n1\n")
        first.stdin.flush()
        assert first.stdout.readline() == b"v,v_ema\n"
        assert "in use" in shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n", code=1).err
        first.stdin.close()
        assert first.wait(20) == 0
    assert shop.names() == ["s"]
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n")


def test_a_lock_left_by_a_killed_run_does_no_harm(shop: Workshop) -> None:
    shop.write("s.lock", "")
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n")
    assert shop.names() == ["s"]


def test_a_bad_cell_and_a_full_disk_leave_the_state(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n2\n")
    shop.run("in.csv", "--alpha", "0.1", "--state", "s")
    before = shop.read("s")
    shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\nx\n", code=1)
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - handed to the process
        process = subprocess.run(
            shop.command("in.csv", "--alpha", "0.1", "--state", "s"),
            stdout=full, stderr=subprocess.PIPE, cwd=shop.folder, env=shop.environment, check=False,
        )  # fmt: skip
    assert process.returncode == 1
    assert b"no space left" in process.stderr
    assert shop.read("s") == before
    assert shop.names() == ["in.csv", "s"]


def test_a_million_keys_in_seconds(tmp_path: Path) -> None:
    """Loading and saving grow with the keys, not with something worse."""
    keys = 200_000
    rows = "".join(f"{k},{k % 97}\n" for k in range(keys))
    (tmp_path / "in.csv").write_text("key,v\n" + rows)
    average = make_average({"alpha": ["0.1"]})
    job = Job(average, (str(tmp_path / "in.csv"),), "/dev/null", by=("key",), state=str(tmp_path / "s"))
    run(job)
    begin = time.perf_counter()
    with open_saved_state(job) as memory:
        assert memory.about is not None
        memory.carry_on(_chosen())
    with open_saved_state(job) as memory, memory.saving() as save:
        save(_chosen(), *memory.carry_on(_chosen()))
    assert time.perf_counter() - begin < 10  # a fifth of a million; it takes well under a second here


def _chosen() -> Selection:
    from ema_cli.formats.base import Projection

    return Selection(Projection((1,), (0,)), ["v"], ["key"], ["v_ema"])
