import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import worker
from worker import protocol, schema
from worker.protocol import Channel, Event

IMAGES = os.path.dirname(os.path.dirname(os.path.abspath(worker.__file__)))


class Process:
    """`python -m worker` on a job's shard, far from the source tree, with its standard input held open."""

    def __init__(self, job, plugins, events=None, **settings):
        self.job = job
        self.shard = job.folder / "shard.json"
        self.shard.write_text(protocol.canonical(schema.dump(job.shard(plugins=[plugins], **settings))))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.environment = dict(clean, PYTHONPATH=IMAGES, PYTHONDONTWRITEBYTECODE="1")
        for name, root in job.roots._asdict().items():
            self.environment["CONSORT_" + name.upper()] = root
        self.environment["CONSORT_EVENTS"] = events or str(job.folder / "events.jsonl")

    def start(self, arguments=None, **settings):
        """Start it in the scratch folder."""
        command = [sys.executable, "-m", "worker"] + ([str(self.shard)] if arguments is None else arguments)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=self.environment, cwd=self.job.roots.scratch, stdin=pipe, stdout=pipe, stderr=pipe, **settings
        )
        return self.process

    def run(self, **settings):
        """Return the exit code, what came on fd 1, and the log."""
        self.start(**settings)
        return self.end()

    def end(self):
        """Wait for the end with standard input open, as the host does."""
        deadline = threading.Timer(30, self.process.kill)
        deadline.start()
        with self.process as process:
            out, log = process.stdout.read().decode(), process.stderr.read().decode()
            process.wait()
        deadline.cancel()
        return process.returncode, out, log

    def wait_for(self, kind, count):
        """Wait until the worker has told so many events of a kind."""
        began = time.monotonic()
        while not os.path.exists(str(self.job.folder / "events.jsonl")) or len(self.job.events(kind)) < count:
            assert time.monotonic() - began < 30
            time.sleep(0.02)


@pytest.fixture
def start(job, plugins):
    return lambda *arguments, **settings: Process(job, plugins, *arguments, **settings)


@pytest.fixture
def slow(job, start):
    """A worker in the middle of a job that would take it ten seconds."""
    for n in range(8):
        job.add("{}.wav".format(n), loud=True)
        job.add("long{}.wav".format(n), samples=np.full(80000, 0.95))
    job.model("tone", params={"mode": "slow"})
    process = start()
    process.start()
    process.wait_for("wrote", 1)
    return process


def hold_interrupted(job, code):
    assert code == protocol.EXIT_AGAIN
    assert job.files() == sorted(event["record"]["path"] for event in job.events("wrote"))
    assert 0 < len(job.files()) < 16
    assert job.events("finished") == []


def test_whole_shard(job, start):
    job.add("a.wav")
    job.add("b\udcff.wav")  # a byte that is no UTF-8
    (job.folder / "audio/text.wav").write_text("<html>")
    job.expect("text.wav")
    job.model("tone")
    code, out, log = start().run()
    assert (code, out) == (0, ""), log
    assert [w[0] for w in job.wrote()] == ["a.wav", "b\udcff.wav"]
    assert job.failures() == {("text.wav", "tone"): "decode"}
    hello, last = job.events()[0], job.events()[-1]
    assert (hello["kind"], last["kind"]) == ("hello", "finished")
    assert hello["protocol"] == protocol.VERSION
    assert hello["packages"]["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert os.listdir(job.roots.scratch) == []


def test_noise_on_standard_output_corrupts_nothing_and_is_in_the_log(job, start):
    job.add("a.wav", loud=True)
    job.model("tone", params={"mode": "shout"})
    code, out, log = start().run()
    assert (code, out) == (0, "")
    lines = (job.folder / "events.jsonl").read_text().splitlines()
    assert sum(protocol.decode(line).kind == "finished" for line in lines) == 1
    assert log.count('{"kind":"finished"}') == 3  # of Python, of the descriptor, and of a child


def test_closed_standard_input_ends_it(job, slow):
    slow.process.stdin.close()
    hold_interrupted(job, slow.end()[0])


def test_termination_ends_it(job, slow):
    slow.process.send_signal(signal.SIGTERM)
    hold_interrupted(job, slow.end()[0])


def test_standard_input_that_was_never_open_ends_it(job, start):
    job.add("a.wav")
    job.model("tone")
    process = start()
    command = 'exec "$0" -m worker "$1" <&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(process.shard)], env=process.environment, timeout=30
    )
    assert done.returncode == protocol.EXIT_AGAIN


def test_lock_is_held_as_long_as_the_worker_lives(job, slow, start):
    code, _, log = start().run()
    assert (code, "cannot start" in log) == (protocol.EXIT_PERMANENT, True)
    slow.process.kill()
    assert slow.end()[0] == -signal.SIGKILL
    channel = Channel(str(job.folder / "events.jsonl"))
    channel.emit(Event("heartbeat"))
    channel.close()
    assert job.events()[-1]["kind"] == "heartbeat"
    assert job.events("finished") == []


@pytest.mark.parametrize(
    "text,words",
    [
        ("", "Expecting value"),
        ("{}", "shard.id: missing"),
        ('{"id": "s", "itms": []}', "shard.itms: unknown key; did you mean items?"),
        ('{"id": "s\xe4"}', "ascii"),
        (None, "No such file"),
    ],
)
def test_bad_shard_cannot_start(job, start, text, words):
    process = start()
    process.shard.unlink()
    if text is not None:
        process.shard.write_bytes(text.encode("latin-1"))
    code, _, log = process.run()
    assert code == protocol.EXIT_PERMANENT
    assert log.startswith("worker: cannot start: ")
    assert words in log
    assert log.count("\n") == 1
    assert not (job.folder / "events.jsonl").exists()


def test_other_protocol_missing_shard_and_missing_roots_cannot_start(job, start):
    code, _, log = start(protocol=99).run()
    assert (code, "protocol 99" in log) == (protocol.EXIT_PERMANENT, True)
    assert start().run(arguments=[])[0] == protocol.EXIT_PERMANENT
    process = start()
    del process.environment["CONSORT_SCRATCH"]
    code, _, log = process.run()
    assert (code, "CONSORT_SCRATCH" in log) == (protocol.EXIT_PERMANENT, True)


def test_no_model_that_loads(job, start):
    job.add("a.wav")
    job.model("tone", params={"mode": "load"})
    code, _, log = start().run()
    assert code == protocol.EXIT_NO_MODEL
    assert "no such checkpoint" in log
    assert [event["kind"] for event in job.events()] == ["hello", "loading", "model_refused"]


def test_events_that_cannot_be_written_at_all(job, start):
    job.add("a.wav")
    job.model("tone")

    def limit():  # to files without a byte, as a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    code, _, log = start().run(preexec_fn=limit)
    assert code == protocol.EXIT_OUTPUT
    assert "worker: cannot write events: [Errno 27] File too large" in log
    assert job.files() == []


@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: os.symlink("elsewhere", path)], ids=["fifo", "link"])
def test_events_that_would_go_elsewhere_are_refused_at_once(job, start, plant):
    job.add("a.wav")
    job.model("tone")
    plant(str(job.folder / "planted"))
    code, _, log = start(str(job.folder / "planted")).run()
    assert code == protocol.EXIT_PERMANENT and "is no regular file" in log
    assert job.files() == [] and not os.path.lexists(str(job.folder / "elsewhere"))


def test_events_that_cannot_be_written_any_more(job, start):
    for n in range(40):
        job.add("{:02}.wav".format(n))
    job.model("tone")

    def limit():  # to files of 8 kB: the arrays fit, the events do not
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    code, _, log = start().run(preexec_fn=limit)
    assert code == protocol.EXIT_OUTPUT, log
    assert "File too large" in log


def test_shard_is_the_same_bytes_for_everyone(job, start):
    job.add("a.wav")
    job.model("tone", params={"width": 3})
    text = start().shard.read_text()
    again = schema.build(protocol.Shard, json.loads(text))
    assert protocol.canonical(schema.dump(again)) == text
    for root in job.roots:
        assert root not in text
