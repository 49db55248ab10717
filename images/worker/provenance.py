"""What many records share, written once under its own hash: parameters, checkpoint, lock, device."""

import json
import os
import platform
import sys
import typing as tp

from worker import audio, schema
from worker.extractor import Extractor
from worker.protocol import Shard, Task, canonical, digest

_PACKAGES = ("numpy", "soundfile", "soxr", "tensorflow", "torch", "transformers")


def context_of(shard: Shard, task: Task, extractor: Extractor, output: str) -> str:
    """Write the context of `task` below the folder `output` and return its name, a sha256.

    It holds nothing that changes from run to run on one machine: no time, no host, no path.
    """
    context = {
        "model": task.name,
        "extractor": task.extractor,
        "version": extractor.version,
        "audio_version": audio.VERSION,
        "params": schema.dump(extractor),
        "pooling": task.pooling,
        "dtype": task.dtype,
        "checkpoint": task.checkpoint,
        "environment": shard.environment,
        "lock": shard.lock,
        "worker": shard.worker,
        "python": platform.python_version(),
        "packages": packages(),
        "device": shard.device,
        "details": extractor.describe(),
    }
    name = digest(context)
    folder = os.path.join(output, ".consort", "contexts")
    path = os.path.join(folder, name + ".json")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        partial = "{}.{}.{}.part".format(path, shard.id, shard.attempt)
        with open(partial, "w", encoding="ascii") as f:
            f.write(json.dumps(json.loads(canonical(context)), indent=1, sort_keys=True) + "\n")
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    return name


def packages() -> tp.Dict[str, str]:
    """Return the versions of the packages that this process has loaded and whose numbers matter."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in _PACKAGES}
    return {name: str(version) for name, version in found.items() if version}
