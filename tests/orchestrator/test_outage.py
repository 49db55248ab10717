"""What a run waits for, and for how long; a clock that is set stands in for the real one."""

import io
import types

import pytest

from orchestrator.running import outage
from orchestrator.running.outage import Outage
from orchestrator.running.progress import Lines
from worker.protocol import Shard

SHARD = Shard("s-0", 1, "torch-cuda", [], [])


@pytest.fixture
def away(monkeypatch):
    """Return an outage, with the reason that its runtime gives, how often it was asked, and the time."""
    state = types.SimpleNamespace(why="no engine; start it", looks=0, now=100.0, out=io.StringIO())

    def reason(environment, variant):
        state.looks += 1
        return state.why

    monkeypatch.setattr(outage, "time", types.SimpleNamespace(monotonic=lambda: state.now))
    state.outage = Outage(types.SimpleNamespace(outage=reason), Lines(state.out))
    return state


def looks_until(away, end):
    """Return the seconds at which the runtime was asked, with a call eight times a second."""
    found = []
    while away.now < 100 + end:
        away.now += 0.125
        before = away.looks
        away.outage.lasts()
        found += [round(away.now - 100)] * (away.looks - before)
    return found


def test_it_is_said_once_and_looked_at_less_and_less_often(away):
    assert not away.outage.lasts() and away.looks == 0
    assert away.outage.begins(SHARD) and away.outage.begins(SHARD)
    assert away.looks == 1, "the second worker ended with the first"
    assert looks_until(away, 32) == [1, 3, 7, 15, 23, 31]
    away.why = None
    assert looks_until(away, 40) == [39] and not away.outage.lasts()
    assert away.outage.given_up is None
    said = [line.partition(" ")[2] for line in away.out.getvalue().splitlines()]
    assert said == ["no engine; start it; waits up to 60 s for it", "goes on after 39 s"]


def test_it_is_given_up_after_the_time_that_an_upgrade_takes(away):
    away.outage.begins(SHARD)
    looks_until(away, 59)
    assert away.outage.given_up is None
    looks_until(away, 70)
    assert away.outage.given_up == "no engine; start it" and away.outage.lasts()


def test_a_worker_that_ended_for_another_reason_begins_none(away):
    away.why = None
    assert not away.outage.begins(SHARD) and not away.outage.lasts() and not away.out.getvalue()
