"""What the tests share. Imports of the host stand inside: the worker's tests run on Python 3.7 without it."""

import dataclasses
import hashlib
import json
import os
import resource
import subprocess
import sys
import wave

import hypothesis
import pytest
from skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401

# the same examples every time, no folder beside the tests, and no complaint about a busy machine
hypothesis.settings.register_profile("consort", max_examples=60, deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("consort")

_RECORD = {
    "item": "a.wav",
    "model": "crepe",
    "output": "pitch",
    "path": "crepe/a.npy",
    "shape": [3, 2],
    "dtype": "float32",
    "axes": ["time", "feature"],
    "frame_rate": 100.0,
    "start": 0.0,
    "key": "k",
    "sha256": "",
    "bytes": 0,
    "source": "s",
    "duration": 0.03,
    "sample_rate": 16000,
    "channels": 1,
    "decoder": "soundfile",
    "flags": [],
    "context": "c",
}


@pytest.fixture
def record():
    """Return a maker of records: the fields that do not matter have a value already."""
    from worker.protocol import Record

    return lambda **changes: Record(**{**_RECORD, **changes})


@pytest.fixture
def write_wav():
    """Return a writer of short WAV files; `value` makes their bytes differ."""

    def write(path, value=0, seconds=0.01, rate=8000):
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as f:
            f.setnchannels(1)
            f.setsampwidth(2)
            f.setframerate(rate)
            f.writeframes(value.to_bytes(2, "little") * int(seconds * rate))
        return path

    return write


@pytest.fixture
def prepare(tmp_path, write_wav, monkeypatch):
    """Return a function that looks at a job over `tmp_path/audio`, where three files are, and its output folder."""
    from orchestrator.job import spec
    from orchestrator.planning import survey

    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("a.wav", "b.wav", "deep/c.wav")):
        write_wav(tmp_path / "audio" / name, number)
    job = {"audio": str(tmp_path / "audio"), "output": str(tmp_path / "out"), "models": ["prosody"]}

    def surveyed(**changes):
        found = survey.take(spec.check({**job, **changes}))
        found.output.create()
        return found

    return surveyed


@pytest.fixture
def work():
    """Return a stand-in for the workers: it leaves the files that a run of a plan leaves, without any model."""
    return _work


def _work(surveyed, failing=None, fold=True, run_id="run", strict=None):
    """Write an array and a record for all that is to do, a failure of a class for the (item, model) in `failing`."""
    from orchestrator.output import ledger as ledgers
    from orchestrator.planning import plan, shards
    from worker import protocol
    from worker.protocol import Event, Failure

    context = surveyed.output.contexts / "c.json"
    context.write_text(json.dumps(strict or {}), "ascii")
    shared = {m.environment: shards.ShardFields() for m in surveyed.plan.models}
    for shard in shards.cut(surveyed.plan, run_id, 2, shared):
        channel = protocol.Channel(str(surveyed.output.records / (shard.id + ".1.jsonl")))
        for item in shard.items:
            with open(os.path.join(surveyed.audio.root, item.id), "rb") as f:
                sha = hashlib.sha256(f.read()).hexdigest()
            facts = item.facts(sha)
            channel.emit(Event("decoded", item=item.id, seconds=0.01, facts=facts))
            for model in [m for m in surveyed.plan.models if m.name in item.tasks]:
                kind = (failing or {}).get((item.id, model.name))
                if kind:
                    key = protocol.key_of(model.task.key, "", sha)
                    channel.emit(Event("failed", failure=Failure(item.id, model.name, kind, "because", key)))
                    continue
                for output, path in plan.paths_of(model, item.name).items():
                    channel.emit(Event("wrote", record=_write(surveyed.output, model, item, output, path, sha)))
        channel.emit(Event("finished"))
        channel.close()
    return ledgers.fold(surveyed.output) if fold else None


def _write(output, model, item, name, path, source):
    from worker import protocol

    file = output.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    data = "{} {}".format(model.task.key, source).encode()
    file.write_bytes(data)
    changes = {"item": item.id, "model": model.name, "output": name, "path": path, "source": source}
    key, sha = protocol.key_of(model.task.key, name, source), hashlib.sha256(data).hexdigest()
    return protocol.Record(**{**_RECORD, **changes, "key": key, "sha256": sha, "bytes": len(data)})


@dataclasses.dataclass
class Said:
    """What a command did."""

    code: int
    out: str
    err: str
    cpu: float  # seconds, of all its processes


@pytest.fixture
def consort(tmp_path):
    """Return a function that runs the command in a process of its own, in `tmp_path`."""

    def run(*arguments, options=()):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        env = dict(os.environ, CONSORT_CACHE=str(tmp_path / "cache"), COLUMNS="100")
        done = subprocess.run(
            [sys.executable, *options, "-m", "orchestrator", *arguments],
            cwd=str(tmp_path),
            env=env,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode(), cpu)

    return run
