"""The local engine with workers that are a few lines of Python."""

import sys
import time
from pathlib import Path

import pytest

from orchestrator.job.spec import JobSpec
from orchestrator.output.folder import OutputDir
from orchestrator.running.engines.base import Ended, Job, Site
from orchestrator.running.engines.local import LocalEngine
from orchestrator.running.runtimes.base import Cause, Command
from orchestrator.running.runtimes.venv import VenvRuntime
from orchestrator.weights.store import Weights
from worker import protocol, schema
from worker.protocol import Event, Shard

EMIT = """
import os, sys, time
def emit(text, end="\\n"):
    with open(sys.argv[1], "a") as f:
        f.write(text + end)
"""
STEP = 'emit(\'{"kind":"opened"}\')\n'  # from here on it is not loading any more
FINISHED = 'emit(\'{"kind":"finished"}\')\n'
DEADLINE = 20  # seconds after which a test of this file has failed


class Scripts(VenvRuntime):
    """Runs a few lines of Python in the place of a worker."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.scripts = {}

    def command(self, shard, mounts, file, events, resources):
        argv = [sys.executable, "-S", "-c", EMIT + self.scripts[shard.id], str(events)]
        return Command(argv, {"NAME": shard.id}, str(self.folder))


@pytest.fixture
def make(tmp_path):
    """Return a maker of engines over one output folder; what a failed test left is ended."""
    runtime, output = Scripts(tmp_path), OutputDir(tmp_path / "out")
    output.create()
    run = output.new_run()
    engines = []

    def make(workers=2, limits=(600.0, 30.0), **keys):
        job = JobSpec(str(tmp_path), str(output.root), [], workers=workers, **keys)
        engine = LocalEngine(Site(job, runtime, output, run, str(tmp_path), Weights(tmp_path / "cache")), limits)
        engine.runtime, engine.run = runtime, run
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
        while engine.busy():
            list(engine.poll())


@pytest.fixture
def start(make):
    """Return a function that submits a script."""

    def submit(script, engine=None, name="s"):
        engine = engine or make()
        engine.runtime.scripts[name] = script
        engine.submit([Job(Shard(name, 1, "env", [], []))])
        return engine

    return submit


def log_of(engine, name="s"):
    return engine.run.log(f"{name}.1")


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


def test_finished_and_code_0_is_success(start):
    engine = start('emit(\'{"kind":"hello"}\')\n' + FINISHED + "print('said', file=sys.stderr)")
    *events, end = drain(engine)
    assert [event.kind for event in events] == ["hello", "finished"]
    assert end == Ended(0, True, False, log_of(engine)) and end.ok
    assert log_of(engine).read_text() == "said\n"


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
    engine.cancel()
    engine.cancel()
    happened = drain(engine)
    assert happened[0].kind == "wrote" and happened[-1].code == 75 and not happened[-1].hung


def test_a_hang_is_killed_with_all_its_children(start, tmp_path, make):
    script = "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nopen('pid', 'w').write(str(child.pid))\n"
    end = drain(start(STEP + script + "time.sleep(60)", make(1, (0.5, 0))))[-1]
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


def test_heartbeats_are_no_progress(start, make):
    script = STEP + 'while True: emit(\'{"kind":"heartbeat"}\'); time.sleep(0.05)'
    assert drain(start(script, make(1, (0.5, 0))))[-1].hung


def test_progress_moves_the_time_limit(start, make):
    script = STEP + 'for _ in range(5): emit(\'{"kind":"wrote"}\'); time.sleep(0.2)\n' + FINISHED
    assert drain(start(script, make(1, (0.8, 0))))[-1].ok


def test_loading_has_a_time_limit_of_its_own(start, make):
    script = 'emit(\'{"kind":"loading"}\')\ntime.sleep(0.8)\nemit(\'{"kind":"loaded"}\')\n' + FINISHED
    assert drain(start(script, make(1, (0.4, 0))))[-1].ok


def test_long_audio_has_more_time(start, make):
    script = (
        'emit(\'{"kind":"decoded","item":"a","seconds":100}\')\n'
        'emit(\'{"kind":"opened","item":"a","model":"m"}\')\ntime.sleep(1.0)\n' + FINISHED
    )
    assert drain(start(script, make(1, (0.4, 0.1)), "long"))[-1].ok
    assert drain(start(script, make(1, (0.4, 0.0)), "short"))[-1].hung


@pytest.mark.parametrize(
    "other", ['{"kind":"opened","item":"b"}', '{"kind":"wrote","item":"b","model":"m"}', '{"kind":"failed","item":"b"}']
)
def test_what_is_said_of_other_items_takes_no_time_from_long_audio(start, other, make):
    script = (
        'emit(\'{"kind":"decoded","item":"a","seconds":100}\')\n'
        'emit(\'{"kind":"opened","item":"a","model":"m"}\')\n'
        f"emit('{other}')\ntime.sleep(1.0)\n" + FINISHED
    )
    assert drain(start(script, make(1, (0.4, 0.1))))[-1].ok


def test_slots_are_counted_and_freed(start, make):
    engine = make(2)
    assert (engine.takes(gpu=False), engine.busy()) == (True, False)
    start(FINISHED, engine, "one")
    assert engine.takes(gpu=False)
    start(FINISHED, engine, "two")
    assert (engine.takes(gpu=False), engine.takes(gpu=True), engine.busy()) == (False, True, True)
    assert sorted(end.log.name for end in drain(engine) if isinstance(end, Ended)) == ["one.1.log", "two.1.log"]
    assert (engine.takes(gpu=False), engine.busy()) == (True, False)


def test_a_limit_of_the_job_holds_whatever_the_audio(start, make):
    script = STEP + 'emit(\'{"kind":"decoded","item":"a","seconds":100}\')\ntime.sleep(30)\n'
    assert drain(start(script, make(1, timeout_per_item=0.5)))[-1].hung


def test_an_end_is_complete_and_leaves_no_scratch(start, make, monkeypatch):
    engine = make()
    monkeypatch.setattr(engine.runtime, "end", lambda name, code, log: Cause(True, f"{name}: {code}"))
    end = drain(start("sys.exit(7)", engine))[-1]
    assert (end.out_of_memory, end.problem) == (True, "s.1: 7")
    assert list((engine.run.root.parents[1] / "scratch").iterdir()) == []


def test_the_shard_that_is_run_is_the_job_s_byte_for_byte(start, make):
    engine = make()
    drain(start(FINISHED, engine))
    written = (engine.run.shards / "s.1.json").read_text()
    assert written == protocol.canonical(schema.dump(Shard("s", 1, "env", [], [])))


def test_a_worker_sees_only_the_environment_it_is_given(start):
    engine = start("print(sorted(set(os.environ) - {'LC_CTYPE'}))")
    drain(engine)
    assert log_of(engine).read_text() == "['NAME']\n"


def test_killing_does_not_wait(start):
    engine = start("import signal; signal.signal(15, signal.SIG_IGN); sys.stdin.read(); time.sleep(60)")
    engine.cancel()
    engine.cancel(kill=True)
    assert drain(engine)[-1].code == -9  # 0 after its minute


def test_the_clock_knows_every_kind_of_event_and_refuses_a_new_one(start, monkeypatch):
    for kind in protocol.KINDS:
        assert drain(start(f'emit(\'{{"kind":"{kind}"}}\')', name=kind))[0].kind == kind
    new = Event("loaded")
    object.__setattr__(new, "kind", "news")
    monkeypatch.setattr(protocol, "decode", lambda line: new)
    with pytest.raises(AssertionError, match="events of kind 'news'"):
        drain(start("emit('')", name="news"))
