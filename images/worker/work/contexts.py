"""What many records share, written once under its own hash: parameters, checkpoint, lock, device."""

import json
import os
import platform
import sys
import typing as tp

from worker import schema
from worker.extractor import PROVENANCE, Extractor
from worker.protocol import AUDIO_VERSION, Shard, Task, canonical, digest
from worker.work import store

_PACKAGES = ("numpy", "soundfile", "soxr", "tensorflow", "tensorflow_cpu", "torch", "transformers")
_SUFFIX = ".dist-info"
_FOLDER = ".consort/contexts"  # below the output folder
_LONGEST = 65536  # characters of it


def read(files: tp.Iterable[str]) -> tp.Dict[str, tp.Any]:
    """Return what `PROVENANCE.json` beside any of the weights says; empty where there is none.

    Raises:
        ValueError: it is damaged. Weights of unknown origin must not pass for others.
    """
    said: tp.Dict[str, tp.Any] = {}
    for folder in sorted({os.path.dirname(path) for path in files}):
        try:
            with open(os.path.join(folder, PROVENANCE), encoding="utf-8") as f:
                found = json.loads(f.read(_LONGEST))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise ValueError("{}: not valid JSON; mend it or take the weights away".format(PROVENANCE)) from error
        if not isinstance(found, dict):
            raise ValueError("{}: holds no mapping; mend it or take the weights away".format(PROVENANCE))
        said.update(found)
    return said


def flags(said: tp.Mapping[str, tp.Any]) -> tp.Tuple[str, ...]:
    """Return `random_weights` for weights that were never trained."""
    return ("random_weights",) if said.get("weights") == "random-init" else ()


def context_of(
    shard: Shard,
    task: Task,
    extractor: Extractor,
    output: str,
    said: tp.Optional[tp.Mapping[str, tp.Any]] = None,
    device: str = "cpu",
) -> str:
    """Write the context of `task` below the folder `output` and return its name, a sha256.

    It holds nothing that changes from run to run on one machine: no time, no host, no path.

    `said` is what `read` found beside the weights, and `device` what the model computes on: "cpu", or "cuda" and
    the name of the kind of GPU.

    Raises:
        OutputError: the folder cannot be written, or is a link.
    """
    context = {
        "model": task.name,
        "extractor": task.extractor,
        "version": extractor.version,
        "audio_version": AUDIO_VERSION,
        "params": schema.dump(extractor),
        "window": task.window,
        "pooling": task.pooling,
        "dtype": task.dtype,
        "checkpoint": task.checkpoint,
        "provenance": dict(said or {}),
        "environment": shard.environment,
        "lock": shard.lock,
        "worker": shard.worker,
        "python": platform.python_version(),
        "packages": packages(),
        "device": device,
        "details": extractor.describe(),
    }
    name = digest(context)
    path = "{}/{}.json".format(_FOLDER, name)
    if not os.path.exists(os.path.join(output, path)):
        text = json.dumps(json.loads(canonical(context)), indent=1, sort_keys=True) + "\n"
        store.commit([store.write(output, path, text.encode("ascii"), "{}.{}-0".format(shard.id, shard.attempt))])
    return name


def packages() -> tp.Dict[str, str]:
    """Return the versions of the packages of this environment whose numbers matter.

    Installed ones, not imported ones: those depend on the models that were loaded before.
    """
    found: tp.Dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for entry in os.listdir(folder):
            name, _, version = entry[: -len(_SUFFIX)].partition("-")
            if entry.endswith(_SUFFIX) and name.lower() in _PACKAGES:
                found.setdefault(name.lower(), version)
    return found
