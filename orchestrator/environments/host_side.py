"""The host side known by its hashes, as worker/fingerprint.py knows what runs inside an environment.

`python -m orchestrator.environments.host_side` prints what it is made of; the build of its image keeps that.
"""

import hashlib
import json
import re
import sys

from orchestrator.environments.definitions import IMAGES

_ROOT = IMAGES.parent
# Neither in an image nor of it: what .dockerignore leaves out, and wheels that only the build of another one takes.
_BESIDE = re.compile(r"(^|/)(__pycache__|\.[^/]*_cache|local-wheels|images/digests\.lock)(/|$)")


def made_of() -> dict[str, str]:
    """Return the hashes of the lock and of all files of the host side that this runs in: a checkout, or an image."""
    total = hashlib.sha256()
    found = {
        path.relative_to(_ROOT).as_posix(): path
        for base in (IMAGES, _ROOT / "orchestrator")
        for path in base.rglob("*")
    }
    for name in sorted(name for name in found if not _BESIDE.search(name)):
        if found[name].is_file():
            total.update(name.encode() + b"\0" + found[name].read_bytes() + b"\0")
    lock = (_ROOT / "orchestrator" / "requirements.lock").read_bytes()
    return {"lock": hashlib.sha256(lock).hexdigest(), "worker": total.hexdigest()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(made_of(), sort_keys=True))
