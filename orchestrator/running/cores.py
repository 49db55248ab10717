"""How many cores this process may use: those that it may run on, and no more than its control groups grant."""

import os
import pathlib
import typing as tp

_GROUPS = pathlib.Path("/sys/fs/cgroup")
_OWN = pathlib.Path("/proc/self/cgroup")


def available(groups: pathlib.Path = _GROUPS, own: pathlib.Path = _OWN) -> int:
    """Return the number of workers that can compute at the same time; at least one.

    Args:
        groups: where the control groups of Linux are mounted.
        own: says which of them this process is in.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(groups, own)])))


def _quotas(groups: pathlib.Path, own: pathlib.Path) -> tp.Iterator[float]:
    """Yield the cores that this process's groups and those around them grant, of both versions of control groups."""
    for line in (_read(own) or "").splitlines():
        _, kinds, path = line.split(":", 2)
        bases = [groups] if not kinds else [groups / "cpu", groups / kinds] if "cpu" in kinds.split(",") else []
        for base in bases:
            place = base / path.strip("/")
            for folder in (place, *place.parents):
                if folder.is_relative_to(base):  # a container may see its own group as the topmost one
                    words = (_read(folder / "cpu.max") or "").split()
                    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    words = words or [quota or "", period or ""]
                    if words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
                        yield int(words[0]) / int(words[1])


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return None
