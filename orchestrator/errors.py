"""Every error this package raises on purpose, and the exit code that the command gives it.

The message is one line for the user and says what to do next; only `__main__` prints it.
"""

OK = 0
ITEMS_FAILED = 1
USAGE = 2
UNAVAILABLE = 3
LOST = 4
INTERRUPTED = 130


def exit_code(*, interrupted: bool = False, unavailable: bool, lost: bool, failed: bool) -> int:
    """Return how a run ends that was not given up: the first that applies."""
    if interrupted:  # by the user
        return INTERRUPTED
    if unavailable:  # a model could not run at all
        return UNAVAILABLE
    if lost:  # something is left to do that was meant to be done
        return LOST
    return ITEMS_FAILED if failed else OK  # an item could not be done, now or before


class ConsortError(Exception):
    """Anything the user can be told in one line."""

    exit_code = ITEMS_FAILED


class JobError(ConsortError):
    """The job file, a flag or the audio path is wrong, or no audio was found; nothing was started."""

    exit_code = USAGE


class EnvironmentUnavailable(ConsortError):
    """An interpreter, a device, an index or a checkpoint is not on this machine and could not be brought there."""

    exit_code = UNAVAILABLE


class CheckpointUnavailable(EnvironmentUnavailable):
    """A checkpoint is missing, or is not what it should be."""


class RunFailed(ConsortError):
    """The run could not go on: shards were lost, the output folder is unusable, or another run holds it."""

    exit_code = LOST
