"""The GPUs of one run: which are free, and what becomes of the run when one is of no use."""

import collections
import dataclasses

from orchestrator.environments import devices
from orchestrator.running.attempts import Attempt
from orchestrator.running.engines.base import Ended
from orchestrator.running.placement import Placement
from orchestrator.running.runtimes.base import Runtime


@dataclasses.dataclass(frozen=True)
class Decision:
    """How a run goes on after the loss of a GPU: with others, or the same one asked for in another way, unless ..."""

    text: str = ""  # for people
    gone: bool = False  # there are none any more: with the CPU
    drop: bool = False  # and without the models that use a GPU: the job insists on one


class Gpus:
    """A GPU serves one worker at a time."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._free = [gpu.uuid for gpu in placement.grant.gpus]
        self._broken: collections.Counter[str] = collections.Counter()  # how often each failed in the middle
        self._refusal: str | None = None  # what the engine first said about GPUs

    @property
    def count(self) -> int:
        """How many workers may have one at the same time."""
        return len(self._placement.grant.gpus)

    @property
    def free(self) -> bool:
        """Whether there is one to take."""
        return bool(self._free)

    @property
    def strict(self) -> bool:
        """Whether the job insists on them."""
        return self._placement.grant.strict

    def take(self) -> tuple[str, ...]:
        """Return the UUID of one, which is not free from now on."""
        return (self._free.pop(0),)

    def give_back(self, gpus: tuple[str, ...]) -> None:
        """Take back what a worker had."""
        self._free.extend(gpus)

    def fault(self, attempt: Attempt, ended: Ended) -> str | None:
        """Return why the GPU of an attempt is of no use, if that is what ended it.

        One that fails in the middle of the work gets a second chance: it may have been the item.
        """
        if not attempt.gpus:
            return None
        if attempt.broken:
            self._broken.update(attempt.gpus)
            return attempt.broken if self._broken[attempt.gpus[0]] > 1 else None
        return attempt.device or devices.problem(ended.problem)

    def lose(self, attempt: Attempt, why: str, refused: bool, runtime: Runtime) -> Decision:
        """Ask for the GPU in another way, go on with the others, with the CPU, or not at all: as the job allows.

        Args:
            attempt: which was granted it and has given it back.
            why: it has not got it.
            refused: by the runtime, which may know GPUs by another name.
            runtime: which was asked for it.
        """
        if refused and (attempt.way != runtime.way or runtime.another_way()):
            self._refusal = self._refusal or why
            return Decision()
        why = self._refusal or why  # the first word is the one about the usual way
        (gpu,) = attempt.gpus
        self._free.remove(gpu)
        if self._placement.give_up(gpu, f"GPU {gpu}: {why}"):
            return Decision(f"GPU {gpu} is left out: {why}")
        if self.strict:
            return Decision(f"GPU {gpu}: {why}; {devices.MEND}", gone=True, drop=True)
        return Decision(f"NO GPU: {why}; goes on with the CPU ({devices.MEND})", gone=True)

    def lose_all(self, why: str) -> Decision:
        """Go on with the CPU, whatever GPUs there are."""
        for gpu in self._placement.grant.gpus:
            self._placement.give_up(gpu.uuid, why)
        return Decision(f"NO GPU: {why}; goes on with the CPU", gone=True)
