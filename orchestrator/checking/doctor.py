"""Look whether everything is there, and say how to mend what is not.

Each environment imports its frameworks, runs one second of audio through each of its models on the CPU, and computes
something on each GPU.
"""

import dataclasses
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as tp

from orchestrator.checking import gpus
from orchestrator.environments import definitions, devices, docker_client, images, interpreters
from orchestrator.environments.definitions import Environment
from orchestrator.errors import ConsortError
from orchestrator.files import cache_root
from orchestrator.job import spec, synthetic
from orchestrator.output import ledger as ledgers
from orchestrator.planning import survey
from orchestrator.running import placement, progress, run
from orchestrator.running.runtimes.base import READY, Runtime
from orchestrator.weights import ffmpeg
from orchestrator.weights.store import Weights
from worker import catalog


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at: good, or with the way to mend it."""

    what: str
    good: bool
    text: str


def examine() -> tp.Iterator[Finding]:
    """Yield findings as they are made."""
    yield Finding("host", True, f"Python {sys.version.split()[0]}, cache {cache_root()}")
    weights = Weights()
    yield _ffmpeg(weights)
    there = devices.discover()
    yield Finding("GPU", True, "; ".join(map(gpus.describe, there.gpus)) or there.reason)  # a machine needs none
    yield _docker()
    for name in definitions.names():
        environment = definitions.find(name)
        runtime = placement.ready(environment)
        found = _interpreter(environment, runtime)
        yield found
        if found.good:
            yield from _environment(environment, runtime, weights)
        for good, text in gpus.examine(environment, there.gpus):
            yield Finding(f"{name} on GPU", good, text)


def _docker() -> Finding:
    """Say what engine answers and which images are there; `runtime: venv` needs neither."""
    try:
        engine = docker_client.find()
        every = [definitions.find(name) for name in definitions.names()]
        states = [f"{images.tag(e, v)} {images.state(e, v)}" for e in every for v in e.spec.locks]
    except ConsortError as error:
        return Finding("docker", True, f"{error} (not needed)".replace(", or use `runtime: venv`", ""))
    return Finding("docker", True, f"{engine.name}; {', '.join(states)}; `make images` builds")


def _ffmpeg(weights: Weights) -> Finding:
    try:
        checkpoint = ffmpeg.checkpoint()
        if problem := weights.problem(checkpoint):
            return Finding("ffmpeg", False, f"{problem}; run `consort weights pull ffmpeg`")
        said = subprocess.run([str(weights.path(checkpoint)), "-version"], capture_output=True, text=True, timeout=30)
        return Finding("ffmpeg", said.returncode == 0, " ".join(said.stdout.split()[:3]) or "does not run")
    except (ConsortError, OSError, subprocess.TimeoutExpired) as error:
        return Finding("ffmpeg", False, str(error))


def _interpreter(environment: Environment, runtime: Runtime) -> Finding:
    what = f"Python {environment.spec.python}"  # one line per environment: each says what it will use
    try:
        return Finding(what, True, str(interpreters.find(environment.spec.python)))
    except ConsortError as error:
        if runtime.state(environment, "cpu") == READY:
            return Finding(what, True, f"none is found; {runtime.place(environment, 'cpu')} brings its own")
        return Finding(what, False, str(error))


def _environment(environment: Environment, runtime: Runtime, weights: Weights) -> tp.Iterator[Finding]:
    if runtime.state(environment, "cpu") != READY:
        yield Finding(environment.name, False, f"is not built; run `consort envs build {environment.name}`")
        return
    code = (
        "import sys\nfor name in sys.argv[1:]:\n version = getattr(__import__(name), '__version__', '')\n"
        " if '.' not in name: print(name, version, end='; ')"
    )
    with tempfile.TemporaryDirectory(prefix="consort-doctor-") as folder:
        command = runtime.script(environment, ["-I", "-c", code, *environment.spec.probes], folder)
        said = subprocess.run(command.argv, capture_output=True, text=True, env=command.env, stdin=subprocess.DEVNULL)
    if said.returncode != 0:
        words = (said.stderr.strip().splitlines() or ["no words"])[-1]
        yield Finding(environment.name, False, f"{words}; run `consort envs remove {environment.name}`, then build it")
        return
    yield Finding(environment.name, True, said.stdout.strip("; \n"))
    for name in catalog.names():
        if catalog.find(name).environment == environment.name:
            yield _second(name, runtime, weights)


def _second(name: str, runtime: Runtime, weights: Weights) -> Finding:
    """Run one second of a 440 Hz tone through a model."""
    if missing := [p for c in catalog.build(name, {}).checkpoints() if (p := weights.problem(c))]:
        return Finding(name, False, f"{missing[0]}; run `consort weights pull {name}`")
    with tempfile.TemporaryDirectory(prefix="consort-doctor-") as folder:
        tone = pathlib.Path(folder, "tone.wav")
        tone.write_bytes(synthetic.sine(44100, 1.0))
        files = {"audio": str(tone), "output": os.path.join(folder, "out")}
        job = spec.check({**files, "models": [name], "runtime": runtime.name, "devices": "cpu"})
        try:
            surveyed = survey.take(job)
            surveyed.output.create()
            run.extract(surveyed, placement.choose(job), progress.Lines(io.StringIO()), offline=True)
        except ConsortError as error:
            return Finding(name, False, str(error))
        ledger = ledgers.read(surveyed.output)
        if ledger.failures:
            return Finding(name, False, next(iter(ledger.failures.values())).message)
        if not ledger.records:
            return Finding(name, False, "wrote nothing; `consort extract` shows why")
        return Finding(name, True, ", ".join(f"{r.output} {r.shape}" for r in ledger.records.values()))
