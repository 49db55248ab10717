"""What one worker may take of a machine, so that one that goes wrong takes nothing from the others.

These are fences and no reservations: a worker that works as it should never meets them.
"""

import dataclasses

from orchestrator.text import size
from worker.work import memory

_LEAST = 4 << 30  # bytes, which a framework with a model and its batches takes on a machine of many cores and slots
_CPUS = 4  # a worker computes in one thread, decodes ahead in another with a program beside it, and writes behind
_PROCESSES = 512  # and threads: where libraries are told to take one, a worker was seen with 16
_PROCESSES_PER_CPU = 8  # where they may have one for each core: no more of them than that start any
_TMP = 2 << 30  # bytes; libraries unpack code there


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one worker may take.

    Args:
        memory: bytes, those of `/tmp` among them; None: nobody knows how much there is.
        cpus: cores; None: all of them.
        processes: with threads.
        tmp: bytes of `/tmp`, which is memory.
        default: the memory is a share, and not what the job says.
    """

    memory: int | None
    cpus: int | None
    processes: int
    tmp: int
    default: bool = True

    def granted(self, memory: int | None) -> "Limits":
        """Return these limits with the bytes of memory that a job grants to each worker, if it says any."""
        if not memory:
            return self
        return dataclasses.replace(self, memory=memory, tmp=min(_TMP, memory // 2), default=False)

    @property
    def words(self) -> str | None:
        """The limit that nobody has asked for, for people."""
        return f"{size(self.memory)} of memory; `memory:` sets another limit" if self.default and self.memory else None


def share(workers: int, total: int = 0, cpus: int = 0) -> Limits:
    """Return what each of several workers may take: an equal part of what is free now.

    That is never so little memory that no framework fits: not all workers are at their largest at the same time.

    Args:
        workers: that may run at the same time.
        total: bytes of memory of the machine that they run on, which may be a smaller one inside this; 0: unknown.
        cpus: cores of that machine; 0: unknown, or they cannot be limited.
    """
    free = min(filter(None, (memory.available(), total)), default=0)
    part = max(free // workers, min(_LEAST, (total or free) // 2))
    cores = max(_CPUS, -(-cpus // workers))
    return Limits(
        memory=part or None,
        cpus=cores if cores < cpus else None,
        processes=max(_PROCESSES, _PROCESSES_PER_CPU * cpus),
        tmp=min(_TMP, part // 2) if part else _TMP,
    )
