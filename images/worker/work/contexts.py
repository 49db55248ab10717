"""What many records share, written once under its own hash: parameters, checkpoint, lock, device."""

import json
import os
import platform
import sys
import typing as tp

from worker import regular, schema
from worker.extractor import UNTRAINED, Extractor, beside
from worker.protocol import AUDIO_VERSION, Shard, Task, canonical, digest
from worker.work import store

_PACKAGES = ("numpy", "soundfile", "soxr", "tensorflow", "tensorflow_cpu", "torch", "transformers")
_SUFFIX = ".dist-info"
_FOLDER = ".consort/contexts"  # below the output folder
_LONGEST = 65536  # characters of it


def read(files: tp.Iterable[str]) -> tp.Dict[str, tp.Any]:
    """Return what is said of weights in files beside them; that they were never trained outdoes all else.

    Raises:
        ValueError: one is damaged. Weights of unknown origin must not pass for others.
    """
    every: tp.List[tp.Dict[str, tp.Any]] = []
    for name in sorted({name for path in files for name in beside(path)}, key=lambda name: (len(name), name)):
        try:
            with os.fdopen(regular.open_file(os.path.realpath(name)), encoding="utf-8") as f:
                found = json.loads(f.read(_LONGEST), object_pairs_hook=_once)
        except FileNotFoundError:
            if os.path.islink(name):
                raise ValueError("{}: leads nowhere; mend it or remove it".format(os.path.basename(name))) from None
            continue
        except ValueError as error:
            words = "{}: not valid JSON; mend it or take the weights away"
            raise ValueError(words.format(os.path.basename(name))) from error
        if not isinstance(found, dict):
            raise ValueError("{}: holds no mapping; mend it or take the weights away".format(os.path.basename(name)))
        every.append(found)
    return {key: one[key] for one in sorted(every, key=lambda one: len(flags(one))) for key in one}


def _once(pairs: tp.Sequence[tp.Tuple[str, tp.Any]]) -> tp.Dict[str, tp.Any]:
    """Refuse what says a thing twice, and maybe another thing."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def flags(said: tp.Mapping[str, tp.Any]) -> tp.Tuple[str, ...]:
    """Return `random_weights` for weights that were never trained, in whichever words that is said."""
    word = "-".join(str(said.get("weights", "")).lower().replace("_", " ").replace("-", " ").split())
    return ("random_weights",) if word in UNTRAINED or said.get("synthetic") is True else ()


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
