"""The manifest of an output folder for its reader: lines that anybody may have written, and the files they name."""

import json
import os
import pathlib
import typing as tp
import warnings

from orchestrator import files
from orchestrator.output.folder import INNER, OutputDir
from orchestrator.text import printable

NAME = "manifest.jsonl"
_NEEDED = ("item", "model", "output", "path", "shape", "dtype", "axes", "frame_rate", "start", "context")

Line = dict[str, tp.Any]


def read(folder: OutputDir) -> list[Line]:
    """Return the lines of a manifest; a last one that was cut short, as of a broken copy, is left out with a warning.

    Raises:
        FileNotFoundError: there is none; the message is one line, and says where one is.
        ValueError: it is damaged.
    """
    try:
        text = files.read_text(folder.manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(_absent(folder.root)) from None
    except UnicodeDecodeError as error:
        raise ValueError(_damaged(folder, "is no text")) from error
    lines, cut = text.splitlines(), bool(text) and not text.endswith("\n")
    if cut and not _whole(lines[-1]):
        warnings.warn(f"{folder.manifest} ends in the middle of line {len(lines)}; run its job again", stacklevel=4)
        lines.pop()
    return [_line(folder, number, line) for number, line in enumerate(lines, start=1)]


def locate(folder: OutputDir, path: str) -> pathlib.Path:
    """Return where an array is; nothing that a manifest, or a link, names outside of its folder is opened.

    Raises:
        FileNotFoundError: the array is gone.
        ValueError: its path leads out of the folder, or to what is no file.
    """
    root, place = os.path.realpath(folder.root), folder.place(path)
    shown = printable(f"{folder.root}/{path}")
    if place is None or not (real := pathlib.Path(os.path.realpath(place))).is_relative_to(root):
        raise ValueError(f"{shown} leads out of the output folder, and is not followed; run its job again")
    if not os.path.lexists(real):
        raise FileNotFoundError(f"{shown} is not there, though the manifest names it; run its job again")
    if not real.is_file():
        raise ValueError(f"{shown} is no file; remove it and run its job again")
    return real


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _line(folder: OutputDir, number: int, text: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise ValueError(_damaged(folder, f"is damaged in line {number}")) from error
    if not isinstance(line, dict) or any(name not in line for name in _NEEDED) or not _is_typed(line):
        raise ValueError(_damaged(folder, f"is damaged in line {number}"))
    return line


def _is_typed(line: Line) -> bool:
    """Return whether the fields that a reader computes with have the types that a worker gives them."""
    texts = all(isinstance(line[name], str) for name in ("item", "model", "output", "path", "dtype", "context"))
    numbers = all(isinstance(line[name], (int, float, type(None))) for name in ("frame_rate", "start"))
    counts = all(isinstance(line.get(name), (int, type(None))) for name in ("window", "windows"))
    shape, axes = line["shape"], line["axes"]
    lists = isinstance(shape, list) and isinstance(axes, list) and all(isinstance(n, int) for n in shape)
    flags = isinstance(line.get("flags", []), list)
    return texts and numbers and counts and lists and flags and line["frame_rate"] != 0


def _damaged(folder: OutputDir, what: str) -> str:
    return f"{folder.manifest} {what}; restore it, or remove it and run its job again"


def _absent(root: pathlib.Path) -> str:
    """Return why there is nothing to load, and what could be loaded."""
    if (root / INNER).is_dir():
        return f"{root}: its run has not come to its end, so there is no {NAME} yet; see `consort status {root}`"
    near = [folder for folder in root.absolute().parents if (folder / NAME).is_file()][:1]
    near += sorted(path.parent for path in root.glob(f"*/{NAME}"))[:3] if root.is_dir() else []
    there = f"{root} holds no run (no {NAME})" if root.exists() else f"there is no {root}"
    return f"{there}; {f'load {near[0]}' if near else 'load the `output` of a job that has run'}"
