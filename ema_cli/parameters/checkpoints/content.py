"""What a file that is no checkpoint of its suffix is instead, by its first bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

from ema_cli.errors import typeable
from ema_cli.io.names import MAGIC

_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
_LFS = b"version https://git-lfs"


class Content(NamedTuple):
    """What is in a file, and what to do about it. format: as `format_of` has it; None for no checkpoint."""

    format: str | None
    said: str
    hint: str


def content_of(name: str) -> Content | None:
    """What the file's first bytes say; None where they say nothing, or it can't be read."""
    try:
        with Path(name).open("rb") as file:
            head, size = file.read(512), os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if head.startswith(b"PK\x03\x04"):
        return _archive(name)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return _checkpoint("safetensors")
    return _no_checkpoint(name, head)


def _checkpoint(kind: str) -> Content:
    suffix = ".pt" if kind == "torch" else f".{kind}"
    return Content(kind, f"is a {suffix} file by its content", f"a name that ends in {suffix}")


def _no_checkpoint(name: str, head: bytes) -> Content | None:
    if head.startswith(_LFS):
        return Content(None, "is a pointer of Git LFS, not the file it stands for", "git lfs pull")
    if head.lstrip().lower().startswith(_PAGES):
        return Content(None, "is a web page, no checkpoint", "download it again; the page may say more")
    for magic, program in MAGIC.items():
        if head.startswith(magic):
            plain = typeable(str(Path(name).with_stem(f"{Path(name).stem}-plain")))
            return Content(None, f"is compressed by {program}", f"{program} -dc {typeable(name)} > {plain}")
    return None


def _archive(name: str) -> Content | None:
    try:
        with zipfile.ZipFile(name) as archive:
            members = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    if any(member.endswith("/data.pkl") for member in members):
        return _checkpoint("torch")
    return _checkpoint("npz") if any(member.endswith(".npy") for member in members) else None
