"""Which files are meant and which step each is of, by their names: never by their modification times."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from ema_cli.errors import FileTrouble
from ema_cli.io.names import is_pattern, matches, natural_key
from ema_cli.parameters.checkpoints import METADATA_KEY, format_of, open_checkpoint
from ema_cli.parameters.checkpoints.shards import read_index

_STEP = re.compile(r"(?:step|iter|iteration)s?[-_=. ]?(\d+)", re.IGNORECASE)


def expanded(given: Sequence[str]) -> list[str]:
    """The checkpoints that are meant, in the order given; folders and quoted patterns in natural order.

    Raises FileTrouble for a folder or a pattern that holds none.
    """
    found: list[str] = []
    for name in given:
        if Path(name).is_dir():
            found += _in_folder(name)
        elif is_pattern(name):
            there = matches(name)
            if not there:
                raise FileTrouble(name, "matches no file")
            found += there
        else:
            found.append(name)
    return found


def _in_folder(folder: str) -> list[str]:
    names = sorted((str(path) for path in Path(folder).iterdir() if path.is_file()), key=natural_key)
    indexes = [name for name in names if format_of(name) == "index"]
    shards = {str(Path(index).parent / shard) for index in indexes for shard in read_index(index)[0].values()}
    kept = [name for name in names if format_of(name) is not None and name not in shards]
    kept = [name for name in kept if not _made_here(name)]
    kinds = sorted({str(format_of(name)).replace("index", "safetensors") for name in kept})
    if not kept:
        raise FileTrouble(
            folder, "is a folder without checkpoints", "name the files, or the folder they are in"
        )
    if len(kinds) > 1:
        raise FileTrouble(
            folder, f"holds checkpoints of several formats: {', '.join(kinds)}", "name the files"
        )
    return kept


def _made_here(name: str) -> bool:
    """True for an average or a state of this command, which must be named to be folded."""
    if format_of(name) == "torch":
        return False
    with open_checkpoint(name) as checkpoint:
        return METADATA_KEY in checkpoint.metadata


def step_of(name: str) -> int:
    """The step in a checkpoint's name: the number after `step` or `iter`, else the last number.

    The file's own name comes first, then its folder's (`checkpoint-500/model.safetensors`). Raises
    FileTrouble where neither has a number.
    """
    path = Path(name)
    stem = path.name.split(".safetensors")[0] if format_of(name) == "index" else path.stem
    for text in (stem, path.parent.name):
        if found := _STEP.findall(text) or re.findall(r"\d+", text):
            return int(found[-1])
    raise FileTrouble(
        name, "has no step in its name, which --per-step needs", "names such as step_1000.safetensors"
    )


def out_of_order(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two neighbours that numbers in their names would put the other way round."""
    for before, after in itertools.pairwise(names):
        if natural_key(before) > natural_key(after):
            return before, after
    return None
