"""The code that runs inside an environment, known by one hash: an image may be older than the plan.

`python -m worker.fingerprint` prints what it is made of; the build of an image keeps that beside the worker.
"""

import hashlib
import json
import os
import sys
import typing as tp


def sha256_of(folders: tp.Iterable[str]) -> str:
    """Return the hash of all Python files in `folders`; host and worker must find the same."""
    total = hashlib.sha256()
    for folder in folders:
        found = [os.path.join(base, file) for base, _, files in os.walk(folder) for file in files]
        names = {os.path.relpath(path, os.path.dirname(folder)).replace(os.sep, "/"): path for path in found}
        for name in sorted(name for name in names if name.endswith(".py")):
            with open(names[name], "rb") as f:
                total.update(name.encode() + b"\0" + f.read() + b"\0")
    return total.hexdigest()


def refuse_other_code(expected: str, modules: tp.Sequence[str], lock: str) -> None:
    """Raise when this process runs other code than its shard was planned for, as an old image would.

    Args:
        expected: the hash that the host has found.
        modules: of the environment, beside the worker; none where nobody has said them.
        lock: hash of the lock that the shard was planned for; an image keeps its own beside the worker.

    Raises:
        ValueError: the code differs.
    """
    own = made_of(modules)
    if own["lock"] not in (None, lock):
        raise ValueError("the packages here are not those that the shard was planned for; build the image again")
    if modules and own["worker"] != expected:
        raise ValueError("the code here is not what the shard was planned for; build the image again")


def made_of(modules: tp.Sequence[str]) -> tp.Dict[str, tp.Optional[str]]:
    """Return the hashes of the lock (none in a virtual environment) and of the code that are here.

    Args:
        modules: of the environment, beside the worker.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    own = os.path.join(os.path.dirname(here), "requirements.lock")
    lock = None
    if os.path.isfile(own):
        with open(own, "rb") as f:
            lock = hashlib.sha256(f.read()).hexdigest()
    folders = [here]
    for module in modules:
        places = [os.path.join(folder, module) for folder in sys.path]
        folders += [place for place in places if os.path.isdir(place)][:1]
    return {"lock": lock, "worker": sha256_of(folders)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(made_of(os.environ.get("CONSORT_MODULES", "").split()), sort_keys=True))
