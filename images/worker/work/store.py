"""Write arrays so that a file is either complete or absent.

A file is written beside its final place, synced, renamed, and only then named in a record. Arrays are
committed in small groups, because one sync of a record line per array would cost more than the array.
"""

import errno
import hashlib
import os
import stat
import typing as tp

import numpy as np

from worker import regular
from worker.errors import ArrayError, NotFiniteError, OutputError
from worker.extractor import Output
from worker.formats import FORMATS


class Stored(tp.NamedTuple):
    """A file that waits for its commit."""

    partial: str
    final: str
    sha256: str
    bytes: int


def relative_path(model: str, output: str, primary: bool, name: str, fmt: str) -> str:
    """Return the path of an array below the output folder, POSIX style."""
    folder = model if primary else "{}.{}".format(model, output)
    return "{}/{}{}".format(folder, name, FORMATS[fmt].suffix)


def name_window(name: str, number: int) -> str:
    """Return the name of one window's array, `<name>_frag<number>`."""
    return "{}_frag{}".format(name, number)


def check(output: Output, values: np.ndarray, pooled: bool, audible: bool) -> None:
    """Hold `values` against its declaration.

    Args:
        output: the declaration.
        values: the array to be written.
        pooled: the axis "time" is gone, and the last axis may have grown.
        audible: the audio was not silent, so that `output.varies` means something.

    Raises:
        ArrayError: wrong type, shape or axes, or suspiciously equal values.
        NotFiniteError: NaN or infinity.
    """
    axes = [a for a in output.axes if not (pooled and a == "time")]
    if values.ndim != max(len(axes), 1 if pooled else 0):
        raise ArrayError("{} has shape {}, declared axes {}".format(output.name, values.shape, list(axes)))
    if not pooled:
        for size, declared in zip(values.shape, output.shape):
            if declared is not None and size != declared:
                raise ArrayError("{} has shape {}, declared {}".format(output.name, values.shape, output.shape))
    if values.size == 0 and not output.events:
        raise ArrayError("{} is empty".format(output.name))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise NotFiniteError("{} has values that are not finite".format(output.name))
    if output.varies and audible and values.size > 1 and (values == values.flat[0]).all():
        raise ArrayError("{} has the same value everywhere although the audio is audible".format(output.name))


def encode(values: np.ndarray, fmt: str) -> bytes:
    """Return the bytes of a file: C order, no pickle; the same array gives the same bytes."""
    values = np.ascontiguousarray(values)
    if values.dtype.hasobject:
        raise ArrayError("an array of Python objects cannot be written")
    return FORMATS[fmt].encode(values)


def write(root: str, path: str, data: bytes, tag: str) -> Stored:
    """Write `data` beside `root/path` under a name that nobody can foretell, synced but not renamed.

    Args:
        root: the output folder.
        path: of the array, as `relative_path` gives it.
        data: the whole file.
        tag: `<attempt>-<number>`, by which a sweep knows what was left half-written.

    Raises:
        OutputError: the folder cannot be written; nothing half-written stays.
    """
    final = os.path.join(root, *path.split("/"))
    partial = os.path.join(os.path.dirname(final), ".{}.{}.part".format(tag, regular.random_part()))
    try:
        _refuse_links(root, path)
        os.makedirs(os.path.dirname(final), exist_ok=True)
        _refuse_impossible(final)
        with os.fdopen(regular.create_file(partial), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
    except OSError as error:
        _remove(partial)
        raise OutputError(error.errno, "cannot write {}: {}".format(path, error.strerror or error)) from error
    return Stored(partial, final, hashlib.sha256(data).hexdigest(), len(data))


def commit(stored: tp.Sequence[Stored]) -> None:
    """Rename finished files to their final names, and make the renames durable.

    Raises:
        OutputError: a rename failed; the remaining temporary files are removed.
    """
    try:
        for entry in stored:
            os.replace(entry.partial, entry.final)
        for folder in sorted({os.path.dirname(entry.final) for entry in stored}):
            _sync_folder(folder)
    except OSError as error:
        discard(stored)
        raise OutputError(error.errno, "cannot finish an array: {}".format(error.strerror or error)) from error


def discard(stored: tp.Sequence[Stored]) -> None:
    """Remove temporary files that will not be committed."""
    for entry in stored:
        _remove(entry.partial)


def _refuse_links(root: str, path: str) -> None:
    """Below the output folder no link may lead a file elsewhere, be it within."""
    folders = path.split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        if os.path.islink(os.path.join(root, *folders[:depth])):
            raise OSError(None, "{} is a link, and none is followed there".format("/".join(folders[:depth])))


def _refuse_impossible(final: str) -> None:
    """A name that is too long, or a folder's, must fail here: at its commit it would take others along."""
    try:
        mode = os.lstat(final).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "a folder has its name")


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
