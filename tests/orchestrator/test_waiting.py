"""Which of the waiting shards starts next."""

import io

import pytest

from orchestrator.environments.devices import Gpu, Grant
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.job.spec import JobSpec
from orchestrator.running import waiting as module
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Lines
from orchestrator.running.runtimes.base import MISSING, READY
from orchestrator.running.runtimes.venv import VenvRuntime
from orchestrator.running.waiting import Waiting
from worker.protocol import Shard

ROOM = {"cpu": True, "cuda": True}


class Half(VenvRuntime):
    """Everything is ready but `tf-cuda`, which cannot be made."""

    def state(self, environment, variant):
        return MISSING if environment.name == "tf-cuda" else READY

    def build(self, environment, variant, say):
        raise EnvironmentUnavailable("no wheels")


@pytest.fixture
def placement():
    gpus = (Gpu(0, "GPU-a", "GPU", 1),)
    return Placement(Half(), "asked for", Grant(gpus, "auto"), frozenset({"torch-cuda"}))


@pytest.fixture
def waiting(placement):
    made = Waiting(JobSpec("audio", "output", []), placement, 2, Lines(io.StringIO()))
    made.build(["torch-cuda", "legacy-py37", "tf-cuda"])
    yield made
    made.close(wait=True)


def shard(name, environment="torch-cuda", device="cuda"):
    return Shard(name, 1, environment, [], [], device=device, variant="cuda" if environment == "torch-cuda" else "cpu")


def taken(waiting, room=ROOM):
    found = waiting.take(room)
    return found and found[0].id


def test_shards_start_in_order_where_there_is_room_for_their_device(waiting):
    waiting.add([shard("a"), shard("b", "legacy-py37", "cpu"), shard("c")])
    assert taken(waiting, {"cpu": False, "cuda": False}) is None
    assert taken(waiting, {"cpu": True, "cuda": False}) == "b"
    waiting.add_first([shard("d"), shard("e")])
    assert [taken(waiting) for _ in range(5)] == ["d", "e", "a", "c", None] and not waiting


def test_one_that_waits_for_its_time_lets_others_pass(waiting, monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    monkeypatch.setattr(module, "time", clock := Clock())
    waiting.add([shard("b")])
    waiting.add_first([shard("a")], 2.0)
    assert (taken(waiting), taken(waiting), bool(waiting)) == ("b", None, True)
    clock.now += 2.0
    assert taken(waiting) == "a"


def test_one_whose_environment_cannot_be_made_comes_with_the_reason(waiting):
    waiting.add([shard("a", "tf-cuda", "cpu")])
    waiting.close(wait=True)
    found, error = waiting.take(ROOM)
    assert found.id == "a" and str(error) == "no wheels"


def test_all_move_to_the_cpu_with_their_environment(waiting, placement):
    waiting.add([shard("a"), shard("b", device="cpu")])
    placement.give_up("GPU-a", "broken")
    waiting.move()
    moved = [waiting.take(ROOM)[0] for _ in range(2)]
    assert [(one.id, one.device, one.variant, one.flags) for one in moved] == [
        (name, "cpu", "cpu", ["cpu_fallback"]) for name in "ab"
    ]


def test_nothing_starts_once_the_queue_is_cleared(waiting):
    waiting.add([shard("a")])
    waiting.clear()
    assert not waiting and taken(waiting) is None
