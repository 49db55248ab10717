"""Files of models: written whole or not at all, and read without running anything that they hold."""

import contextlib
import hashlib
import json
import os
import pickle
import re
import struct
import typing as tp

import torch

_PARTIAL = re.compile(r"\..+\.\d+\.part\Z")


@contextlib.contextmanager
def replacing(path: str) -> tp.Iterator[tp.BinaryIO]:
    """Open a file to write, so that a reader sees the old one or the new one, whatever dies.

    Raises:
        OSError: it cannot be written; nothing half-written stays.
    """
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def sweep(folder: str) -> None:
    """Remove what killed writers have left half-written; nobody may be writing there now."""
    for name in os.listdir(folder):
        if _PARTIAL.match(name):
            os.unlink(os.path.join(folder, name))


def write_json(path: str, value: tp.Any) -> None:
    """Write plain values; equal values give equal bytes."""
    with replacing(path) as f:
        f.write((json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii"))


def write_provenance(folder: str, stage: str, facts: tp.Dict[str, tp.Any]) -> None:
    """Write PROVENANCE.json, whose words are copied into every record that is made with the model."""
    write_json(os.path.join(folder, "PROVENANCE.json"), {stage: {"made by": "consort fit", **facts}})


def read_json(path: str) -> tp.Any:
    """Return plain values.

    Raises:
        ValueError: no JSON, or a number that is not finite.
    """
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"{os.path.basename(path)}: not valid JSON ({error})") from error


def write_tensors(path: str, value: tp.Any) -> str:
    """Write tensors and plain values, and return the sha256; equal values give equal bytes."""
    with replacing(path) as f:
        torch.save(value, f)  # given a path, torch would write its name as well
    return sha256_of(path)


def read_tensors(path: str) -> tp.Any:
    """Return tensors and plain values, on the CPU.

    Raises:
        ValueError: the file holds anything else, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, LookupError, struct.error, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{os.path.basename(path)}: not a file of tensors; it is damaged, or holds Python objects, which are "
            "not loaded"
        ) from error


def sha256_of(path: str) -> str:
    """Return the hash of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _refuse(name: str) -> tp.NoReturn:
    raise ValueError(f"{name} is no number")
