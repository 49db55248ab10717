"""What one worker may take of a machine."""

import pytest

from orchestrator.running import limits

GB = 1 << 30


@pytest.fixture
def free(monkeypatch):
    """Return a function that says how much memory this machine can give."""
    return lambda amount: monkeypatch.setattr(limits.memory, "available", lambda: amount)


@pytest.mark.parametrize(
    ("available", "total", "workers", "each"),
    [
        (60 * GB, 64 * GB, 4, 15 * GB),
        (60 * GB, 16 * GB, 2, 8 * GB),  # the engine's machine is a smaller one
        (None, 16 * GB, 2, 8 * GB),  # as on macOS
        (60 * GB, 64 * GB, 64, 4 * GB),  # a framework with its model has to fit
        (3 * GB, 4 * GB, 4, 2 * GB),  # and one alone must not take everything
        (3 * GB, 0, 1, 3 * GB),
        (None, 0, 4, None),
    ],
)
def test_each_worker_may_take_its_part_of_what_is_free(free, available, total, workers, each):
    free(available)
    share = limits.share(workers, total)
    assert share.memory == each
    assert share.tmp == min(2 * GB, each // 2 if each else 2 * GB)
    assert (share.words is None) == (each is None)


@pytest.mark.parametrize(
    ("cpus", "workers", "mine", "processes"),
    [(2, 2, None, 512), (8, 8, 4, 512), (64, 4, 16, 512), (64, 1, None, 512), (192, 192, 4, 1536), (0, 4, None, 512)],
)
def test_cores_are_enough_for_a_worker_and_its_helpers(free, cpus, workers, mine, processes):
    free(GB)
    share = limits.share(workers, 0, cpus)
    assert (share.cpus, share.processes) == (mine, processes)


def test_what_a_job_grants_is_no_share(free):
    free(64 * GB)
    granted = limits.share(2).granted(GB)
    assert (granted.memory, granted.tmp, granted.words) == (GB, GB // 2, None)
    assert limits.share(2).granted(None) == limits.share(2)
