"""`ema-weights` on folders as trainers leave them, and into folders that loaders take."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ema_cli import ParameterEMA
from ema_cli.errors import FileTrouble
from ema_cli.parameters.checkpoints import open_checkpoint
from ema_cli.parameters.checkpoints.outputs import parse_size
from tests.conftest import Run
from tests.parameters.test_checkpoints import Exploding, read, same, save_file
from tests.test_weights_cli import FULL


def model(step: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(step)
    arrays = {f"layer.{k}.w": rng.normal(size=(20, 10 + k)).astype(np.float32) for k in range(4)}
    return {**arrays, "count": np.array([step])}


def write_run(folder: Path, steps: tuple[int, ...] = (500, 1000, 1500)) -> None:
    for step in steps:
        inside = folder / f"checkpoint-{step}"
        inside.mkdir(parents=True)
        save_file(model(step), inside / "model.safetensors", {"format": "pt"})
        (inside / "config.json").write_text('{"model_type": "mine"}')
        (inside / "trainer_state.json").write_text("{}")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt"):
            (inside / name).write_bytes(b"no weights, and not even torch's")
    (folder / "logs").mkdir()


def names(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def checkpoints(done: Any) -> list[str]:
    return [line.split()[-1] for line in done.out.splitlines()[1:]]


BY_NUMBER = [f"run/checkpoint-{step}/model.safetensors" for step in (500, 1000, 1500)]


def test_a_training_run_goes_by_number(run: Run) -> None:
    write_run(Path("run"))
    for given in ("run", "run/", "run/checkpoint-*"):
        done = run(given, "--decay", "0.5", "--dry-run")
        assert (done.code, checkpoints(done)) == (0, BY_NUMBER)
    assert checkpoints(run("run/checkpoint-500", "--decay", "0.5", "--dry-run")) == BY_NUMBER[:1]
    steps = run("run", "--decay", "0.999", "--per-step", "--dry-run")
    assert [line.split()[1] for line in steps.out.splitlines()[1:]] == ["500", "1000", "1500"]


def test_what_lies_beside_the_checkpoints_is_left_out_with_a_note(run: Run) -> None:
    write_run(Path("run"))
    shutil.copy(BY_NUMBER[2], "run/model.safetensors")
    shutil.copytree("run/checkpoint-500", "run/best")
    done = run("run", "--decay", "0.5", "--dry-run")
    assert checkpoints(done) == BY_NUMBER
    assert done.err.count("is left out: the folders with a number are the checkpoints") == 2
    assert "run/best/model.safetensors is left out" in done.err
    assert checkpoints(run("run/best", "--decay", "0.5", "--dry-run")) == ["run/best/model.safetensors"]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["pytorch_model.bin", "optimizer.bin", "random_states_0.pkl"], "pytorch_model.bin"),
        (["adapter_model.safetensors", "optimizer.pt"], "adapter_model.safetensors"),
        (["unet.safetensors", "optimizer.safetensors"], "unet.safetensors"),
    ],
)
def test_the_models_weights_in_a_folder(run: Run, files: list[str], found: str) -> None:
    import torch

    for step in (2, 10):
        folder = Path(f"out/step_{step}")
        folder.mkdir(parents=True)
        for name in files:
            if name.endswith("safetensors"):
                save_file(model(step), folder / name)
            else:
                torch.save(
                    {name: torch.from_numpy(array) for name, array in model(step).items()}, folder / name
                )
    done = run("out", "--decay", "0.5", "--dry-run")
    assert checkpoints(done) == [f"out/step_2/{found}", f"out/step_10/{found}"], done.err


def test_folders_without_a_model_say_so(run: Run) -> None:
    write_run(Path("run"))
    Path("run/checkpoint-2000").mkdir()
    assert checkpoints(run("run", "--decay", "0.5", "--dry-run")) == BY_NUMBER, "not yet written"
    done = run("run/checkpoint-*", "--decay", "0.5", "--dry-run")
    assert done.err == (
        "ema-weights: run/checkpoint-2000: is a folder without a model's weights\n"
        "  try: name the file: run/checkpoint-2000/FILE\n"
    )
    assert "is a folder without checkpoints" in run("run/logs", "--decay", "0.5", "--dry-run").err
    assert "matches no file and no folder" in run("walk/*", "--decay", "0.5", "--dry-run").err


# Into folders


def test_shards_and_their_index(run: Run) -> None:
    write_run(Path("run"))
    assert run("run", "--decay", "0.5", "-o", "one.safetensors").code == 0
    assert run("run", "--decay", "0.5", "-o", "ema/", "--shard-size", "2kB").code == 0
    index = json.loads(Path("ema/model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    count = len(shards)
    assert count > 1
    assert shards == [f"model-{k:05}-of-{count:05}.safetensors" for k in range(1, count + 1)]
    whole = read(Path("one.safetensors"))
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in whole.values())
    assert names("ema") == ["config.json", *shards, "model.safetensors.index.json"]
    same(read(Path("ema/model.safetensors.index.json")), whole)
    for shard in shards:
        held = sum(array.nbytes for array in read(Path("ema") / shard).values())
        assert held <= 2000
    # Sharded in, sharded out: by an index's name in a folder that is there, and with a state.
    arguments = ("ema", "ema/", "--decay", "0.5", "-o", "two/x.safetensors.index.json", "--resume", "state")
    assert "no such folder\n  try: make it first: mkdir -p two" in run(*arguments).err
    Path("two").mkdir()
    assert run(*arguments, "--shard-size", "3000").code == 0
    same(read(Path("two/x.safetensors.index.json")), whole)
    assert names("two")[:1] == ["config.json"]


def test_a_model_that_fits_is_one_file(run: Run) -> None:
    write_run(Path("run"))
    assert run("run", "--decay", "0.5", "-o", "ema/").code == 0
    assert names("ema") == ["config.json", "model.safetensors"]
    with open_checkpoint("ema/model.safetensors") as checkpoint:
        assert checkpoint.metadata["format"] == "pt"


def test_a_folder_is_replaced_by_one_rename_and_keeps_its_other_files(run: Run) -> None:
    write_run(Path("run"))
    assert run("run", "--decay", "0.5", "-o", "ema/", "--shard-size", "3kB").code == 0
    Path("ema/notes.txt").write_text("mine")
    Path("ema/config.json").write_text("my own")
    before = names("ema")
    refused = run("run", "--decay", "0.9", "-o", "ema/", "--shard-size", "3kB")
    assert (refused.code, names("ema")) == (1, before)
    assert "ema/model.safetensors.index.json: exists\n  try: --force" in refused.err
    for size, decay in (("3kB", "0.9"), ("1kB", "0.2"), ("1GB", "0.3"), ("3kB", "0.4")):
        assert run("run", "--decay", decay, "-o", "ema", "--shard-size", size, "--force").code == 0
        assert run("run", "--decay", decay, "-o", "one.safetensors", "--force").code == 0
        found = run("ema", "--decay", "0", "--dry-run")
        assert len(checkpoints(found)) == 1
        same(read(Path(checkpoints(found)[0])), read(Path("one.safetensors")))
        named = {"notes.txt", "config.json", Path(checkpoints(found)[0]).name}
        if size != "1GB":
            index = json.loads(Path("ema/model.safetensors.index.json").read_text())
            named |= set(index["weight_map"].values())
        assert set(names("ema")) == named, "nothing of the old model is left"
    assert Path("ema/notes.txt").read_text() == "mine"
    assert Path("ema/config.json").read_text() == "my own"


def test_an_average_in_the_run_s_folder_is_no_checkpoint(run: Run) -> None:
    write_run(Path("run"))
    for output in ("run/checkpoint-9999/", "run/"):
        assert run("run", "--decay", "0.5", "-o", output).code == 0
        done = run("run", "--decay", "0.5", "--dry-run")
        assert (checkpoints(done), "left out" in done.err) == (BY_NUMBER, False)


@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_a_folder_as_it_was(run: Run, there: bool) -> None:
    write_run(Path("run"))
    if there:
        assert run("run", "--decay", "0.5", "-o", "ema/", "--shard-size", "2kB").code == 0
    bad = model(3)
    bad["layer.3.w"][5, 5] = np.nan
    save_file(bad, "bad.safetensors")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    arguments = ("run", "bad.safetensors", "--decay", "0.5", "--force", "--resume", "state")
    done = run(*arguments, "-o", "ema/", "--shard-size", "2kB")
    assert (done.code, "'layer.3.w' holds NaN" in done.err) == (1, True)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert Path("ema").exists() == there


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on file sizes stands in for a full disk")
def test_a_full_disk_leaves_no_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--decay", "0.5", "-o", str(tmp_path / "ema/") + "/"]
    full = [sys.executable, "-c", FULL, "1000", *arguments, "--shard-size", "2kB"]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    assert (done.returncode, "file too large" in done.stderr) == (1, True)
    assert names(tmp_path) == ["run"]


SLOW = """
import sys, time, ema_cli.parameters.slices as slices
from ema_cli.weights_cli import command, NAME
from ema_cli.console import run_command
slices._Arithmetic.fold = lambda *_: time.sleep(600)
run_command(command, NAME, sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")
@pytest.mark.parametrize("there", [False, True])
def test_sigterm_leaves_no_folder(tmp_path: Path, there: bool) -> None:
    write_run(tmp_path / "run")
    out = tmp_path / "ema"
    if there:
        out.mkdir()
    arguments = [str(tmp_path / "run"), "--decay", "0.5", "-o", f"{out}/"]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *arguments], start_new_session=True)
    while not [*tmp_path.glob(".*.part"), *out.glob(".*.part")]:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert names(tmp_path) == (["ema", "run"] if there else ["run"])
    assert not there or names(out) == []


def test_sizes() -> None:
    assert [parse_size(text) for text in ("5GB", "500 MB", "2GiB", "1kib", "7", "1.5k")] == [
        *(5 * 10**9, 5 * 10**8, 2 << 30, 1024, 7, 1500)
    ]


@pytest.mark.parametrize("stem", ["adapter_model", "diffusion_pytorch_model", "other"])
def test_in_a_folder_weights_keep_the_name_that_their_loader_wants(run: Run, stem: str) -> None:
    for step in (1, 2):
        inside = Path(f"run/checkpoint-{step}")
        inside.mkdir(parents=True)
        save_file(model(step), inside / f"{stem}.safetensors")
        (inside / "adapter_config.json").write_text("{}")
    assert run("run", "--uniform", "-o", "mean/").code == 0
    wanted = "model" if stem == "other" else stem
    assert names("mean") == ["adapter_config.json", f"{wanted}.safetensors"]
    assert run("run", "--uniform", "-o", "shards/", "--shard-size", "2kB").code == 0
    assert f"{wanted}.safetensors.index.json" in names("shards")
    assert checkpoints(run("mean", "--uniform", "--dry-run")) == [f"mean/{wanted}.safetensors"]


def test_a_checkpoint_that_is_not_complete_is_left_out_with_a_note(run: Run) -> None:
    write_run(Path("run"))
    Path("run/checkpoint-1500/model.safetensors").unlink()
    done = run("run", "--uniform", "--dry-run")
    assert checkpoints(done) == BY_NUMBER[:2]
    assert "left out, as there is not one model in it: 'run/checkpoint-1500'\n" in done.err


# torch


@pytest.mark.torch
def test_tied_tensors_are_stored_once(run: Run) -> None:
    import torch

    for step in (1, 2):
        shared = torch.full((3, 2), float(step))
        torch.save({"embed": shared, "head": shared, "bias": torch.ones(2)}, f"step_{step}.bin")
    done = run("step_1.bin", "step_2.bin", "--uniform", "-o", "o.safetensors")
    assert done.err == "ema-weights: head is the same tensor as embed and is stored once\n"
    assert sorted(read(Path("o.safetensors"))) == ["bias", "embed"]
    # What loaders write has the one name only; it is the same model.
    save_file(
        {"embed": np.full((3, 2), 3.0, np.float32), "bias": np.ones(2, np.float32)}, "step_3.safetensors"
    )
    for order in (("step_1.bin", "step_3.safetensors"), ("step_3.safetensors", "step_1.bin")):
        assert run(*order, "--uniform", "-o", "p.safetensors", "--force").code == 0
        assert (read(Path("p.safetensors"))["embed"] == 2).all()
    # Chosen by its other name, it is itself.
    assert run("step_1.bin", "step_2.bin", "--uniform", "--exclude", "embed", "-o", "h.npz").err == ""
    assert sorted(read(Path("h.npz"))) == ["bias", "head"]
    torch.save({"embed": torch.ones(3, 2), "head": torch.zeros(3, 2), "bias": torch.ones(2)}, "untied.bin")
    assert run("step_1.bin", "untied.bin", "--uniform", "-o", "u.npz").err == ""
    assert (read(Path("u.npz"))["head"] == 0.5).all()


@pytest.mark.torch
def test_refused_kinds_can_be_left_out(run: Run) -> None:
    import torch

    torch.save({"w": torch.ones(2), "s": torch.eye(2).to_sparse(), "c": torch.ones(2) * 1j}, "a.pt")
    said = run("a.pt", "--uniform", "-o", "o.npz").err
    assert "tensor 's' is sparse" in said or "'c' holds complex64" in said
    assert "--exclude" in said
    assert run("a.pt", "--uniform", "--exclude", "[sc]", "-o", "o.npz").code == 0


@pytest.mark.torch
def test_dicts_in_a_torch_file_are_said(run: Run) -> None:
    import torch

    for step in (1, 2):
        inside = {"w": torch.ones(2)}
        torch.save({"model": inside, "ema": {"w": torch.zeros(2)}}, f"step_{step}.pt")
        torch.save(inside, f"plain_{step}.pt")
    done = run("step_*.pt", "--uniform", "--dry-run")
    said = "step_2.pt holds; --key model or --key ema takes one without that"
    assert (done.code, said in done.err) == (0, True), done.err
    for quiet in (("step_*.pt", "--key", "model"), ("plain_*.pt",)):
        assert "--key" not in run(*quiet, "--uniform", "--dry-run").err


@pytest.mark.torch
def test_sharded_torch_files(run: Run) -> None:
    import torch

    for step in (1, 2):
        folder = Path(f"run/checkpoint-{step}")
        folder.mkdir(parents=True)
        places = {}
        for k, (name, array) in enumerate(model(step).items()):
            places[name] = f"pytorch_model-{k}.bin"
            torch.save({name: torch.from_numpy(array)}, folder / places[name])
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
        save_file(model(step), f"s{step}.safetensors")
    assert run("run", "--decay", "0.5", "-o", "a.safetensors").code == 0
    assert run("s1.safetensors", "s2.safetensors", "--decay", "0.5", "-o", "b.safetensors").code == 0
    same(read(Path("a.safetensors")), read(Path("b.safetensors")))


def save_distributed(state: Any, folder: str) -> None:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder)


@pytest.mark.torch
def test_folders_of_torch_distributed_checkpoint(run: Run) -> None:
    import torch

    for step in (1, 2):
        state = {name: torch.from_numpy(array) for name, array in model(step).items()}
        state |= {
            "turned": torch.from_numpy(model(step)["layer.0.w"]).T,
            "brain": torch.full((3,), float(step), dtype=torch.bfloat16),
            "none": torch.zeros(0, 2),
        }
        save_distributed({"model": state, "step": step, "lr": 0.1}, f"run/step_{step}")
        save_file(model(step), f"s{step}.safetensors")
    mixed = run("run", "--decay", "0.5", "--dry-run")
    assert (mixed.code, "--key model" in mixed.err) == (1, True)
    assert run("run", "--key", "model", "--decay", "0.5", "-o", "a.npz").code == 0
    got = read(Path("a.npz"))
    assert run("s1.safetensors", "s2.safetensors", "--decay", "0.5", "-o", "b.npz").code == 0
    same({name: got[name] for name in model(1)}, read(Path("b.npz")))
    assert (got["turned"] == got["layer.0.w"].T).all()
    assert got["brain"].astype(float).tolist() == [pytest.approx(5 / 3, rel=2**-8)] * 3


SHARDED = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp, warnings
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
warnings.simplefilter("ignore")
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = torch.arange(35.0).reshape(7, 5)
state = {name: distribute_tensor(whole + k, mesh, [how]) for k, (name, how) in enumerate(
    {"rows": Shard(0), "columns": Shard(1), "all": Replicate()}.items())}
dcp.save(state, checkpoint_id=f"{folder}/run/step_1")
dist.destroy_process_group()
"""


@pytest.mark.torch
def test_tensors_that_two_processes_hold_parts_of(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch.distributed.tensor")
    ranks = [
        subprocess.Popen([sys.executable, "-c", SHARDED, str(rank), str(tmp_path)], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said.decode()
    assert len(list(Path("run/step_1").glob("*.distcp"))) == 2
    assert run("run/step_1", "--uniform", "-o", "o.npz").code == 0
    whole = np.arange(35.0, dtype=np.float32).reshape(7, 5)
    same(read(Path("o.npz")), {"rows": whole, "columns": whole + 1, "all": whole + 2})


@pytest.mark.torch
def test_hostile_folders_of_torch_distributed_checkpoint(run: Run) -> None:
    import torch

    save_distributed({"w": torch.ones(1000), "v": torch.zeros(3)}, "good")
    metadata = Path("good/.metadata").read_bytes()
    data = Path("good/__0_0.distcp").read_bytes()
    hostile = {
        "code": (pickle.dumps(Exploding()), data),
        "a name of torch's that runs": (pickle.dumps(Exploding()).replace(b"posix", b"torch"), data),
        "empty": (b"", data),
        "cut": (metadata[:-40], data),
        "no data": (metadata, b""),
        "less data": (metadata, data[:2000]),
        "elsewhere": (metadata.replace(b"__0_0.distcp", b"../../secret"), data),
    }
    for what, (said, values) in hostile.items():
        shutil.rmtree("bad", ignore_errors=True)
        Path("bad").mkdir()
        Path("bad/.metadata").write_bytes(said)
        Path("bad/__0_0.distcp").write_bytes(values)
        done = run("bad", "--uniform", "-o", "o.npz")
        assert done.code == 1, what
        assert done.err.startswith("ema-weights: bad"), what
        assert not Path("unpickled").exists()
        assert not Path("o.npz").exists()


def test_without_torch_a_distributed_checkpoint_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".metadata").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(FileTrouble, match="needs torch"):
        open_checkpoint(str(tmp_path))


# transformers

TRAIN = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
torch.manual_seed(0)
small = {"vocab_size": 50, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2}
config = GPT2Config(**small, bos_token_id=0, eos_token_id=0)
rows = [{"input_ids": torch.randint(0, 50, (8,)), "labels": torch.randint(0, 50, (8,))} for _ in range(24)]
arguments = TrainingArguments(
    sys.argv[1], per_device_train_batch_size=2, num_train_epochs=1, save_steps=4, report_to=[],
    use_cpu=True, disable_tqdm=True, logging_strategy="no",
)
Trainer(GPT2LMHeadModel(config), arguments, train_dataset=rows).train()
"""
LOAD = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
run, folder = sys.argv[1:]
model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
assert not any(told.values()), told
every = [load_file(f"{run}/checkpoint-{k}/model.safetensors") for k in (4, 8, 12)]
weights = [0.25, 0.5, 1.0]
for name, value in every[-1].items():
    expected = sum(w * each[name].double() for w, each in zip(weights, every)) / sum(weights)
    got = model.state_dict()[name].double()
    assert torch.allclose(got, expected, rtol=1e-6, atol=1e-7), name
model(torch.zeros(1, 4, dtype=torch.long))
print("loaded", len(every[-1]))
"""


@pytest.mark.torch
def test_a_folder_that_transformers_trainer_writes_and_one_that_it_loads(run: Run) -> None:
    pytest.importorskip("transformers", reason="the trainer whose folders are read; 50 MB and torch")
    pytest.importorskip("accelerate")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, "-c", TRAIN, "run"], check=True, env=environment, capture_output=True)
    left = {path.name for path in Path("run/checkpoint-8").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "training_args.bin"} <= left
    for output, size in (("ema", "5GB"), ("shards", "8kB")):
        assert run("run", "--decay", "0.5", "-o", f"{output}/", "--shard-size", size).code == 0
        done = subprocess.run(
            [sys.executable, "-c", LOAD, "run", output],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout[:6]) == (0, "loaded"), done.stderr
    assert Path("shards/model.safetensors.index.json").exists()


@pytest.mark.torch
def test_averages_written_for_torch_are_left_out_of_a_folder(run: Run) -> None:
    import torch

    tied = torch.arange(6.0).reshape(2, 3)
    for step in (1, 2):
        torch.save({"w": tied * step, "head.w": tied * step, "n": torch.tensor(step)}, f"step_{step}.pt")
        torch.save({"w": tied * step}, f"other_{step}.pt")
    folder = Path("run")
    folder.mkdir()
    for step in (1, 2):
        torch.save(torch.load(f"other_{step}.pt"), folder / f"step_{step}.pt")
    assert run("step_1.pt", "step_2.pt", "--uniform", "-o", "run/ema.pt").code == 0
    assert checkpoints(run("run", "--uniform", "--dry-run")) == ["run/step_1.pt", "run/step_2.pt"]
    found = torch.load("run/ema.pt", weights_only=True)
    assert (found["w"].tolist(), found["n"].item()) == ((tied * 1.5).tolist(), 2)


@pytest.mark.torch
def test_a_state_and_snapshots_for_torch(run: Run) -> None:
    params = {"w": np.zeros(3), "n": np.array(1)}
    ema = ParameterEMA(params, power=[0.05, 0.1])
    for step in range(1, 4):
        ema.update({"w": np.full(3, float(step)), "n": np.array(step)})
        ema.snapshot(f"snap-{step}.pt")
    ema.save("state.pt")
    again = ParameterEMA.load("state.pt")
    assert again.ema[0.1]["w"].tolist() == ema.ema[0.1]["w"].tolist()
    done = run("snap-*.pt", "--sigma-rel", "0.05", "-o", "ema.pt")
    assert (done.code, done.err) == (0, "")
    np.testing.assert_allclose(read(Path("ema.pt"))["w"], ema.ema[0.05]["w"], rtol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux says which file a number is")
def test_renames_are_on_the_disk_before_what_relies_on_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def recorded_fsync(number: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{number}").resolve().name))
        fsync(number)

    def recorded_replace(path: Path, to: Path) -> Path:
        done.append(("rename", Path(to).name))
        return replace(path, to)

    def recorded_unlink(path: Path, missing_ok: bool = False) -> None:
        done.append(("remove", path.name))
        unlink(path, missing_ok)

    write_run(Path("run"))
    Path("run/checkpoint-1500/config.json").write_text("{}")
    here = Path.cwd().name
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", recorded_fsync)
        patch.setattr(Path, "replace", recorded_replace)
        patch.setattr(Path, "unlink", recorded_unlink)
        assert run("run", "--uniform", "-o", "ema/", "--shard-size", "1kB").code == 0
        new, done[:] = list(done), []
        assert run("run", "--uniform", "-o", "ema/", "--shard-size", "1kB", "--force").code == 0
    at = new.index(("rename", "ema"))
    assert new[at + 1] == ("sync", here), "the folder's own name"
    assert ("rename", "config.json") in new[:at]
    last = max(k for k, step in enumerate(done) if step == ("rename", "model.safetensors.index.json"))
    assert done[last - 1] == done[last + 1] == ("sync", "ema")
    assert done[last - 2][0] == "rename"
    assert {name for what, name in done[last + 2 :] if what == "remove"} >= {"model.safetensors"}
