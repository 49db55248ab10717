"""What a run does while nothing can be started, as while the container engine is upgraded."""

import time

from orchestrator.environments import definitions
from orchestrator.running.progress import Progress
from orchestrator.running.runtimes.base import Runtime
from worker.protocol import Shard

_PATIENCE = 60.0  # seconds, which an upgrade takes
_PAUSES = (1.0, 8.0)  # seconds between the first two looks, and the longest ones


class Outage:
    """Begins with a worker that ended because of it, and is over, or given up, for all of them at once."""

    def __init__(self, runtime: Runtime, progress: Progress) -> None:
        self.given_up: str | None = None  # why nothing can be started, and what mends it
        self._runtime = runtime
        self._progress = progress
        self._shard: Shard | None = None  # whose worker ended first
        self._began = self._next = self._pause = 0.0

    def begins(self, shard: Shard) -> bool:
        """Return whether the worker of a shard ended for want of what it ran in."""
        if self._shard is None and (why := self._reason(shard)):
            self._shard, self._began, self._pause = shard, time.monotonic(), _PAUSES[0]
            self._next = self._began + self._pause
            self._progress.say(f"{why}; waits up to {_PATIENCE:.0f} s for it")
        return self._shard is not None

    def lasts(self) -> bool:
        """Return whether it goes on, with a look now and then."""
        now = time.monotonic()
        if self._shard is None or now < self._next:
            return self._shard is not None
        why = self._reason(self._shard)
        if why is None:
            self._shard = None
            self._progress.say(f"goes on after {now - self._began:.0f} s")
        elif now - self._began >= _PATIENCE:
            self.given_up = why
        self._pause = min(2 * self._pause, _PAUSES[1])
        self._next = now + self._pause
        return self._shard is not None

    def _reason(self, shard: Shard) -> str | None:
        return self._runtime.outage(definitions.find(shard.environment), shard.variant)
