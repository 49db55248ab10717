"""A session with an engine that plays its workers."""

import dataclasses
import io
import threading

import pytest

from orchestrator.environments import venvs
from orchestrator.environments.devices import Grant
from orchestrator.planning import plan
from orchestrator.running.engines.base import Ended
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Lines
from orchestrator.running.report import Report
from orchestrator.running.runtimes.venv import VenvRuntime
from orchestrator.running.session import Session, _done


@pytest.fixture
def session(prepare, monkeypatch):
    """Return a session of three shards whose environment is ready."""
    monkeypatch.setattr(venvs, "_CANCELLED", threading.Event())
    prepared = prepare()
    run = prepared.output.new_run()
    placement = Placement(VenvRuntime(), "asked for", Grant((), "asked for"), frozenset())
    session = Session(prepared, placement, run, Report(prepared.plan), Lines(io.StringIO()))
    session._builds = {("torch-cuda", "cpu"): _done()}
    (shard,) = plan.shards(prepared.plan, run.id, 1, {"torch-cuda": {}})
    session._queue.extend(
        dataclasses.replace(shard, id=f"{shard.id}-{item.name[0]}", items=[item]) for item in shard.items
    )
    yield session
    session.close()


class Engine:
    """Two slots, and workers that end when they are asked to. The user interrupts during the first launch."""

    slots = 2

    def __init__(self, session):
        self.session = session
        self.running = []
        self.asked = []
        self.polls = 0

    def free(self):
        return self.slots - len(self.running)

    def busy(self):
        return bool(self.running)

    def launch(self, launch):
        self.session.stop()
        self.running.append(launch)

    def poll(self):
        self.polls += 1
        assert self.polls < 20, "a worker was never asked to end"
        for launch in [one for one in self.running if one in self.asked]:
            self.running.remove(launch)
            yield launch.shard, Ended(75, False, False, launch.log)

    def stop(self, kill=False):
        self.asked += [launch for launch in self.running if launch not in self.asked]


def test_an_interrupt_during_a_launch_reaches_its_worker_and_launches_no_more(session):
    session._engine = engine = Engine(session)
    session.loop()
    assert len(engine.asked) == 1 and session.stops == 1
    assert session._report.interrupted
