"""The environments of one run, made ready side by side while weights are fetched and other shards run."""

import concurrent.futures
import functools

from orchestrator.environments.definitions import Environment
from orchestrator.running.progress import Progress
from orchestrator.running.runtimes.base import READY, Runtime
from worker.protocol import Shard

_AT_ONCE = 2


class Builds:
    """By environment and variant: a look at a shard asks no disk."""

    def __init__(self, runtime: Runtime, progress: Progress) -> None:
        self._runtime = runtime
        self._progress = progress
        self._pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="build")
        self._under_way: dict[tuple[str, str], concurrent.futures.Future[None]] = {}

    def begin(self, environment: Environment, variant: str) -> None:
        """Begin making an environment ready, unless it is or has begun."""
        key = (environment.name, variant)
        if key in self._under_way:
            return
        if self._runtime.state(environment, variant) == READY:
            self._under_way[key] = concurrent.futures.Future()
            self._under_way[key].set_result(None)
        else:
            say = functools.partial(self._progress.stage, environment.name)
            self._under_way[key] = self._pool.submit(self._runtime.build, environment, variant, say)

    def done(self, shard: Shard) -> bool:
        """Return whether what a shard runs in is ready, or never will be."""
        return self._under_way[shard.environment, shard.variant].done()

    def require(self, shard: Shard) -> None:
        """Return where the environment of a shard is ready.

        Raises:
            ConsortError: it could not be made.
        """
        self._under_way[shard.environment, shard.variant].result()

    def close(self, wait: bool) -> None:
        """Let go of the threads."""
        self._pool.shutdown(wait=wait, cancel_futures=True)
