"""A folder that is there whole or not at all: temporary folder, fsync, manifest of sha256, rename, fsync.

A crash or a kill at any moment leaves either the old state or the new one, and at most a `.writing-*` folder, which the
next write removes. No pickle anywhere: what is loaded is data, never code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from chainrule.errors import CheckpointError

MANIFEST = "manifest.json"
_WRITING = ".writing-"
Writer = Callable[[Path], None]


def write_folder(target: Path, files: Mapping[str, Writer]) -> None:
    """Make the folder `target`; each file is made by its writer. An older `target` is replaced."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(target.parent)
        writing = target.parent / f"{_WRITING}{target.name}"
        _fill(writing, files)
        if target.exists():
            shutil.rmtree(target)
        os.rename(writing, target)
        _sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target} cannot be written: {error}; what was saved before is untouched") from None


def _fill(folder: Path, files: Mapping[str, Writer]) -> None:
    folder.mkdir()
    for name, write in files.items():
        write(folder / name)
        _open_to_readers(folder / name)
        _sync(folder / name)
    manifest = {name: _digest(folder / name) for name in files}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1))
    _sync(folder)


def _open_to_readers(path: Path) -> None:
    """Give a file the folder's mode, as `open` would: safetensors makes files that only their owner reads."""
    path.chmod(path.parent.stat().st_mode & 0o666)


def write_text(path: Path, text: str) -> None:
    """Write one file so that readers see the old or the new text, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    _sync(partial)
    os.replace(partial, path)


def write_json(data: Any) -> Writer:
    """A writer of `data` as JSON."""
    return lambda path: write_text(path, json.dumps(data, allow_nan=False))


def read_json(path: Path) -> Any:
    """The data of a JSON file. Raises CheckpointError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def verify_folder(folder: Path) -> None:
    """Raise CheckpointError, naming the file, unless every file of the manifest is there with its sha256."""
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} is incomplete: it has no {MANIFEST}")
    for name, expected in read_json(folder / MANIFEST).items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing")
        if _digest(folder / name) != expected:
            raise CheckpointError(f"{folder / name} is damaged: its sha256 is not the one in {MANIFEST}")


def remove_unfinished(parent: Path) -> None:
    """Remove what a killed `write_folder` left."""
    for left in parent.glob(f"{_WRITING}*"):
        shutil.rmtree(left)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file's or a folder's content is on the disk."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)
