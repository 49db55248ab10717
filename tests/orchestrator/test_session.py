"""A session with an engine that plays its workers."""

import concurrent.futures
import dataclasses
import io
import threading
import time

import pytest

from orchestrator import files
from orchestrator.environments import definitions, processes
from orchestrator.environments.devices import Gpu, Grant
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.planning import shards
from orchestrator.planning.shards import ShardFields
from orchestrator.running.engines.base import Ended, Engine
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Lines
from orchestrator.running.report import Report
from orchestrator.running.runtimes.base import MISSING, READY
from orchestrator.running.runtimes.venv import VenvRuntime
from orchestrator.running.session import Session


class Ready(VenvRuntime):
    """Everything is built, but for what `missing` says."""

    missing = frozenset()

    def state(self, environment, variant):
        return MISSING if variant in self.missing else READY

    def build(self, environment, variant, say):
        raise EnvironmentUnavailable(f"{environment.name}: no {variant} today")


class Playing(Engine):
    """Slots, and workers that do what `act` says: (job) -> events and an end."""

    def __init__(self, slots, act):
        self.slots = slots
        self.act = act
        self.running = []
        self.asked = []
        self.submitted = []
        self.polls = 0

    def takes(self, gpu):
        return len(self.running) < self.slots

    def busy(self):
        return bool(self.running)

    def submit(self, jobs):
        self.submitted += jobs
        self.running += jobs
        for job in jobs:
            self.act(job)

    def poll(self):
        self.polls += 1
        assert self.polls < 20, "a worker was never asked to end"
        for job in [one for one in self.running if one in self.asked]:
            self.running.remove(job)
            yield job, Ended(75, False, False, None)

    def cancel(self, kill=False):
        self.asked += [job for job in self.running if job not in self.asked]


@pytest.fixture
def begin(prepare, monkeypatch):
    """Return a maker of sessions of prosody over three files, begun."""
    monkeypatch.setattr(processes, "cancelled", threading.Event())
    made = []

    def begin(engine, gpus=(), strict=False, missing=()):
        surveyed = prepare()
        grant = Grant(tuple(Gpu(n, uuid, "GPU", 1) for n, uuid in enumerate(gpus)), "asked for", strict)
        runtime = Ready()
        runtime.missing = frozenset(missing)
        placement = Placement(runtime, "asked for", grant, frozenset({"torch-cuda"} if gpus else ()))
        out = io.StringIO()
        session = Session(surveyed, placement, engine, "run", Report(surveyed.plan), Lines(out))
        made.append(session)
        return session, surveyed, placement, out

    yield begin
    for session in made:
        session.close()


def three(surveyed, **shared):
    """Return a shard for each of the three files."""
    (whole,) = shards.cut(surveyed.plan, "run", 1, {"torch-cuda": ShardFields(**shared)})
    return [dataclasses.replace(whole, id=f"{whole.id}-{item.name[0]}", items=[item]) for item in whole.items]


def test_an_interrupt_during_a_submission_reaches_its_worker_and_launches_no_more(begin):
    engine = Playing(2, lambda job: session.stop())
    session, surveyed, *_ = begin(engine)
    session.start(offline=True)
    session.waiting.add(three(surveyed))
    session.loop()
    assert len(engine.asked) == 1 and session.stops == 1


def test_an_environment_that_cannot_be_made_drops_its_models_and_submits_nothing(begin):
    engine = Playing(2, lambda job: None)
    session, _, _, out = begin(engine, missing=["cpu"])
    session.start(offline=True)
    session.loop()
    assert engine.submitted == [] and "prosody: torch-cuda: no cpu today" in out.getvalue()


def test_where_a_gpu_environment_cannot_be_made_auto_goes_on_with_the_cpu(begin, monkeypatch):
    monkeypatch.setattr("worker.extractors.prosody.Prosody.uses_gpu", lambda self: True)
    engine = Playing(2, lambda job: engine.cancel())
    session, _, placement, out = begin(engine, gpus=["GPU-a"], missing=["cuda"])
    session.start(offline=True)
    session.loop()
    assert {job.shard.device for job in engine.submitted} == {"cpu"} == {job.shard.variant for job in engine.submitted}
    assert "NO GPU: torch-cuda: no cuda today; goes on with the CPU" in out.getvalue()
    assert placement.flags("torch-cuda") == ["cpu_fallback"]


@pytest.mark.parametrize("wait_for", ["a slot", "their environment"])
def test_waiting_shards_cost_no_look_at_environments_or_locks(begin, monkeypatch, wait_for):
    """192 shards wait: a hundred looks read no env.yaml and no lock, and take no time worth naming."""
    engine = Playing(1, lambda job: None)
    engine.polls = -1000
    monkeypatch.setattr(engine, "takes", lambda gpu: wait_for != "a slot")
    monkeypatch.setattr(concurrent.futures.Future, "done", lambda self: wait_for != "their environment")
    session, surveyed, *_ = begin(engine)
    session.start(offline=True)
    session.waiting.add(
        dataclasses.replace(shard, id=f"{shard.id}-{n}") for n in range(64) for shard in three(surveyed)
    )

    def read(*arguments):
        raise AssertionError("read")

    for module, name in ((definitions, "find"), (definitions.Environment, "lock_sha256"), (files, "sha256_of")):
        monkeypatch.setattr(module, name, read)
    monkeypatch.setattr("pathlib.Path.read_bytes", read)
    looks = []
    monkeypatch.setattr(time, "sleep", lambda seconds: looks.append(1) or (len(looks) >= 100 and session.stop()))
    began = time.thread_time()
    session.loop()
    assert len(looks) >= 100 and engine.submitted == []
    assert time.thread_time() - began < 0.05  # CPU seconds of this thread
