"""What the tests ask the engine."""

import subprocess
import typing as tp


def docker(*arguments: str) -> str:
    """Return what docker prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def containers(*filters: str) -> tp.List[str]:
    """Return all containers of Consort, in whatever state."""
    words = [word for one in filters for word in ("--filter", one)]
    return docker("ps", "--all", "--quiet", "--filter", "label=consort.output", *words).split()
