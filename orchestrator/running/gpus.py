"""The GPUs of one run: which are free, and what becomes of the run when one is of no use."""

import collections
import dataclasses

from orchestrator.environments import definitions, devices
from orchestrator.running.attempts import Attempt
from orchestrator.running.engines.base import Ended
from orchestrator.running.placement import Placement
from orchestrator.running.runtimes.base import Runtime
from worker.protocol import Shard


@dataclasses.dataclass(frozen=True)
class Decision:
    """How a run goes on after the loss of a GPU: with what the placement says by now, unless ..."""

    text: str = ""  # for people
    drop: bool = False  # without the models that have none any more: the job insists on one


class Gpus:
    """A GPU serves one worker at a time."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._free = [gpu.uuid for gpu in placement.grant.gpus]
        self._broken: collections.Counter[tuple[str, str]] = collections.Counter()  # in the middle of the work
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

    def serves(self, shard: Shard) -> bool:
        """Return whether one is free that may serve a shard."""
        return bool(self._fitting(shard))

    def take(self, shard: Shard) -> tuple[str, ...]:
        """Return the UUID of one that may serve a shard; it is not free from now on."""
        gpu = self._fitting(shard)[0]
        self._free.remove(gpu)
        return (gpu,)

    def _fitting(self, shard: Shard) -> list[str]:
        alone = self._placement.alone(shard.environment, [task.name for task in shard.tasks])
        usable = self._placement.gpus(shard.environment, *alone[:1])
        return [gpu for gpu in self._free if gpu in usable]

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
            here = (attempt.shard.environment, attempt.gpus[0])
            self._broken[here] += 1
            return attempt.broken if self._broken[here] > 1 else None
        return attempt.device or devices.problem(ended.problem) or attempt.crashed_on_gpu(ended)

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
        (gpu,), environment, model = attempt.gpus, attempt.shard.environment, attempt.unloadable
        if refused:
            why = self._refusal or why  # the first word is the one about the usual way
            for name in self._placement.gpu_environments:
                self._placement.refuse(gpu, f"GPU {gpu}: {why}", name)
        if self._placement.refuse(gpu, f"GPU {gpu}: {why}", environment, model):
            return Decision(f"{model or environment}: GPU {gpu} is left out: {why}")
        mend = devices.mend(definitions.find(environment))
        if self.strict:
            return Decision(f"GPU {gpu}: {why}; {mend}", drop=True)
        return Decision(f"{model or environment}: NO GPU: {why}; goes on with the CPU ({mend})")

    def lose_all(self, environment: str, why: str) -> Decision:
        """Let an environment go on with the CPU, whatever GPUs there are."""
        for gpu in self._placement.grant.gpus:
            self._placement.refuse(gpu.uuid, why, environment)
        return Decision(f"{environment}: NO GPU: {why}; goes on with the CPU")
