"""Which of the waiting shards starts next."""

import dataclasses
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
from worker.protocol import Item, Shard, Task

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


def serves(shard):
    return True


def taken(waiting, room=ROOM, serves=serves):
    found = waiting.take(room, serves)
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
    found, error = waiting.take(ROOM, serves)
    assert found.id == "a" and str(error) == "no wheels"


def test_all_move_to_the_cpu_with_their_environment(waiting, placement):
    waiting.add([shard("a"), shard("b", device="cpu")])
    placement.refuse("GPU-a", "broken", "torch-cuda")
    waiting.move()
    moved = [waiting.take(ROOM, serves)[0] for _ in range(2)]
    assert [(one.id, one.device, one.variant, one.flags) for one in moved] == [
        (name, "cpu", "cpu", ["cpu_fallback"]) for name in "ab"
    ]


def test_one_for_which_no_gpu_is_free_lets_others_pass(waiting):
    waiting.add([shard("a"), shard("b"), shard("c", device="cpu")])
    assert taken(waiting, serves=lambda one: one.id == "b") == "b"
    assert [taken(waiting, serves=lambda one: False) for _ in range(2)] == ["c", None]


def two_models(name="s"):
    tasks = [Task(model, f"x:{model}", "") for model in ("one", "two")]
    return dataclasses.replace(shard(name), tasks=tasks, items=[Item("i", "i", 1, 1, ["one", "two"])])


def drained(waiting):
    found = []
    while (one := waiting.take(ROOM, serves)) is not None:
        found.append(one[0])
    return [(s.id, s.device, s.variant, s.flags, [t.name for t in s.tasks], s.items[0].tasks) for s in found]


@pytest.mark.parametrize("first", [False, True])
def test_a_model_that_cannot_be_loaded_on_a_gpu_leaves_it_to_the_others(waiting, placement, first):
    if not first:
        waiting.add([two_models()])
    assert not placement.refuse("GPU-a", "GPU GPU-a: no kernel", "torch-cuda", "two")
    waiting.add_first([two_models()] if first else [])
    waiting.move()
    assert placement.devices == "cuda GPU; two on the CPU (GPU GPU-a: no kernel)"
    assert drained(waiting) == [
        ("s-two", "cpu", "cpu", ["cpu_fallback"], ["two"], ["two"]),
        ("s", "cuda", "cuda", [], ["one"], ["one"]),
    ]


def test_a_job_that_insists_has_no_shards_for_the_cpu_in_their_place(waiting, placement):
    placement.grant = dataclasses.replace(placement.grant, strict=True)
    waiting.add([two_models("a"), dataclasses.replace(two_models("b"), device="cpu")])
    placement.refuse("GPU-a", "no kernel", "torch-cuda", "two")
    waiting.move()
    placement.refuse("GPU-a", "broken", "torch-cuda")
    waiting.add_first([two_models("c")])
    waiting.move()
    assert [one[:3] for one in drained(waiting)] == [("b", "cpu", "cpu")]


def test_nothing_starts_once_the_queue_is_cleared(waiting):
    waiting.add([shard("a")])
    waiting.clear()
    assert not waiting and taken(waiting) is None
