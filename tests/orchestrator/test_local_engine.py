"""The local engine with workers that are a few lines of Python."""

import sys
import time
from pathlib import Path

import pytest

from orchestrator.running.engines.base import Ended, Launch
from orchestrator.running.engines.local import LocalEngine, default_slots
from orchestrator.running.runtimes.base import Command
from worker.protocol import Shard

EMIT = """
import os, sys, time
def emit(text, end="\\n"):
    with open(sys.argv[1], "a") as f:
        f.write(text + end)
"""
STEP = 'emit(\'{"kind":"opened"}\')\n'  # from here on it is not loading any more
FINISHED = 'emit(\'{"kind":"finished"}\')\n'
DEADLINE = 20  # seconds after which a test of this file has failed


@pytest.fixture
def start(tmp_path):
    """Return a function that launches a script, and end what a failed test left."""
    engines = []

    def launch(script, engine=None, name="s"):
        engine = engine or LocalEngine(2)
        engines.append(engine)
        events = tmp_path / f"{name}.jsonl"
        command = Command([sys.executable, "-S", "-c", EMIT + script, str(events)], {"NAME": name}, str(tmp_path))
        engine.launch(Launch(Shard(name, 1, "env", [], []), command, events, tmp_path / f"{name}.log"))
        return engine

    yield launch
    for engine in engines:
        engine.stop(kill=True)
        while engine.busy():
            list(engine.poll())


def drain(engine, until=lambda happened: False):
    happened = []
    deadline = time.monotonic() + DEADLINE
    while engine.busy() and not until(happened):
        assert time.monotonic() < deadline, happened
        happened += [what for _, what in engine.poll()]
        time.sleep(0.01)
    return happened


def kinds(happened):
    return [what if isinstance(what, Ended) else what.kind for what in happened]


def test_finished_and_code_0_is_success(start, tmp_path):
    *events, end = drain(start('emit(\'{"kind":"hello"}\')\n' + FINISHED + "print('said', file=sys.stderr)"))
    assert [event.kind for event in events] == ["hello", "finished"]
    assert end == Ended(0, True, False, tmp_path / "s.log") and end.ok
    assert (tmp_path / "s.log").read_text() == "said\n"


@pytest.mark.parametrize(
    ("script", "code", "finished"),
    [
        ("pass", 0, False),
        ('emit(\'{"kind":"finis\')', 0, False),
        (FINISHED + "sys.exit(3)", 3, True),
        (FINISHED + "os.kill(os.getpid(), 11)", -11, True),
        ("os._exit(75)", 75, False),
    ],
)
def test_anything_else_is_not(start, script, code, finished):
    end = drain(start(script))[-1]
    assert (end.code, end.finished, end.hung, end.ok) == (code, finished, False, False)


def test_half_lines_wait_for_their_other_half(start):
    script = 'emit(\'{"kind":"opened",\', \'\')\ntime.sleep(0.2)\nemit(\'"item":"a.wav"}\')\n'
    *events, end = drain(start(script + "emit('not json')\n" + FINISHED))
    assert [(event.kind, event.item) for event in events] == [("opened", "a.wav"), ("finished", None)]
    assert end.ok


def test_nothing_a_worker_says_last_is_missed(start):
    for number in range(5):
        happened = drain(start('for _ in range(500): emit(\'{"kind":"opened"}\')\n' + FINISHED, name=f"s{number}"))
        assert len(happened) == 502 and happened[-1].ok


def test_closing_stdin_asks_a_worker_to_end(start):
    engine = start('sys.stdin.read(); emit(\'{"kind":"wrote"}\'); sys.exit(75)')
    drain(engine, until=lambda happened: time.sleep(0.2) or True)
    assert engine.busy()
    engine.stop()
    engine.stop()
    happened = drain(engine)
    assert happened[0].kind == "wrote" and happened[-1].code == 75 and not happened[-1].hung


def test_a_hang_is_killed_with_all_its_children(start, tmp_path):
    script = "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nopen('pid', 'w').write(str(child.pid))\n"
    end = drain(start(STEP + script + "time.sleep(60)", LocalEngine(1, seconds=0.5, per_second=0)))[-1]
    assert end.hung and end.code == -9 and not end.ok
    pid = (tmp_path / "pid").read_text()
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child lives")


def test_heartbeats_are_no_progress(start):
    script = STEP + 'while True: emit(\'{"kind":"heartbeat"}\'); time.sleep(0.05)'
    assert drain(start(script, LocalEngine(1, seconds=0.5, per_second=0)))[-1].hung


def test_progress_moves_the_time_limit(start):
    script = STEP + 'for _ in range(5): emit(\'{"kind":"wrote"}\'); time.sleep(0.2)\n' + FINISHED
    assert drain(start(script, LocalEngine(1, seconds=0.8, per_second=0)))[-1].ok


def test_loading_has_a_time_limit_of_its_own(start):
    script = 'emit(\'{"kind":"loading"}\')\ntime.sleep(0.8)\nemit(\'{"kind":"loaded"}\')\n' + FINISHED
    assert drain(start(script, LocalEngine(1, seconds=0.4, per_second=0)))[-1].ok


def test_long_audio_has_more_time(start):
    script = (
        'emit(\'{"kind":"decoded","item":"a","seconds":100}\')\n'
        'emit(\'{"kind":"opened","item":"a","model":"m"}\')\ntime.sleep(1.0)\n' + FINISHED
    )
    assert drain(start(script, LocalEngine(1, seconds=0.4, per_second=0.1), "long"))[-1].ok
    assert drain(start(script, LocalEngine(1, seconds=0.4, per_second=0.0), "short"))[-1].hung


@pytest.mark.parametrize(
    "other", ['{"kind":"opened","item":"b"}', '{"kind":"wrote","item":"b","model":"m"}', '{"kind":"failed","item":"b"}']
)
def test_what_is_said_of_other_items_takes_no_time_from_long_audio(start, other):
    script = (
        'emit(\'{"kind":"decoded","item":"a","seconds":100}\')\n'
        'emit(\'{"kind":"opened","item":"a","model":"m"}\')\n'
        f"emit('{other}')\ntime.sleep(1.0)\n" + FINISHED
    )
    assert drain(start(script, LocalEngine(1, seconds=0.4, per_second=0.1)))[-1].ok


def test_slots_are_counted_and_freed(start):
    engine = LocalEngine(2)
    assert (engine.free(), engine.busy()) == (2, False)
    start(FINISHED, engine, "one")
    start(FINISHED, engine, "two")
    assert (engine.free(), engine.busy()) == (0, True)
    assert sorted(end.log.name for end in drain(engine) if isinstance(end, Ended)) == ["one.log", "two.log"]
    assert (engine.free(), engine.busy()) == (2, False)


def test_a_worker_sees_only_the_environment_it_is_given(start, tmp_path):
    drain(start("print(sorted(set(os.environ) - {'LC_CTYPE'}))"))
    assert (tmp_path / "s.log").read_text() == "['NAME']\n"


def test_killing_does_not_wait(start):
    engine = start("import signal; signal.signal(15, signal.SIG_IGN); sys.stdin.read(); time.sleep(60)")
    engine.stop()
    engine.stop(kill=True)
    assert drain(engine)[-1].code == -9  # 0 after its minute


def test_there_is_a_slot_on_every_machine():
    assert default_slots() >= 1
