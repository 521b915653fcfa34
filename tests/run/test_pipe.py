"""Live pipes and closed ones, with real processes."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import SAMPLES, Workshop


def talk(process: subprocess.Popen[bytes], text: bytes, lines: int) -> list[bytes]:
    """Write to a running command and wait for so many lines in answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text)
    process.stdin.flush()
    return [process.stdout.readline() for _ in range(lines)]


def test_each_line_is_answered_before_the_next(shop: Workshop) -> None:
    waits = []
    with shop.start("--alpha", "0.5", "--residual") as process:
        assert talk(process, b"v\n1\n", 2) == [b"v,v_ema,v_residual\n", b"1,1.0,0.0\n"]
        for k in range(200):
            begin = time.perf_counter()
            assert talk(process, b"%d\n" % k, 1)[0].startswith(b"%d," % k)
            waits.append(time.perf_counter() - begin)
    # Not a speed claim: a block that waits to be filled would never answer at all.
    assert statistics.median(waits) < 0.05


def test_half_a_line_waits_for_its_end(shop: Workshop) -> None:
    with shop.start("--alpha", "0.5") as process:
        talk(process, b"v,w\n1,", 0)
        time.sleep(0.05)
        assert talk(process, b"x\n3", 2) == [b"v,w,v_ema\n", b"1,x,1.0\n"]
        time.sleep(0.05)
        assert talk(process, b"0,y\n", 1) == [b"30,y,15.5\n"]
    assert process.returncode == 0


def test_a_closed_pipe_ends_it_as_it_ends_cat(shop: Workshop) -> None:
    shop.write("long.csv", "v\n" + "1\n" * 2_000_000)
    with shop.start("long.csv", "--alpha", "0.1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"v,v_ema\n"
        process.stdout.close()
        assert process.wait(20) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_pipe_and_file_give_the_same_bytes(shop: Workshop) -> None:
    data = (SAMPLES / "weather.csv").read_bytes()
    options = ["--alpha", "0.1", "--adjust", "--std", "--by", "location"]
    assert shop.run(SAMPLES / "weather.csv", *options).out == shop.run(*options, stdin=data).out


def test_shell_pipeline(shop: Workshop) -> None:
    line = f"cat {SAMPLES / 'co2.csv.gz'} | {sys.executable} -m ema_cli --span 52 | tail -n 1"
    out = subprocess.run(line, shell=True, capture_output=True, env=shop.environment, check=True).stdout
    assert out.startswith(b"2001-12-29,371.5,")


def test_ctrl_c(shop: Workshop) -> None:
    with shop.start("--alpha", "0.5", "-o", "out.csv", "-v") as process:
        assert process.stderr is not None
        talk(process, b"v\n1\n", 0)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == b""
    assert list(shop.folder.iterdir()) == []


def test_full_device(shop: Workshop) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            shop.command(SAMPLES / "co2.csv", "--alpha", "0.1", "--state", "s.ema"),
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=shop.folder,
            env=shop.environment,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"ema-smooth: stdout: no space left on device\n")
    assert list(shop.folder.iterdir()) == []
