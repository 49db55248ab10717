"""What CONTRIBUTING promises: one file and one line of a registry add a thing, here out of a temporary folder."""

import importlib
import sys
import textwrap

import pytest

from orchestrator.__main__ import main
from orchestrator.running.engines import ENGINES
from orchestrator.running.runtimes import RUNTIMES


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that makes a module of a text, in a folder outside the tree."""
    monkeypatch.syspath_prepend(str(tmp_path / "added"))
    (tmp_path / "added").mkdir()
    names = []

    def load(name, text):
        (tmp_path / "added" / f"{name}.py").write_text(textwrap.dedent(text))
        names.append(name)
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def job(tmp_path, write_wav, monkeypatch):
    """Return a job of prosody over one file."""
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    write_wav(tmp_path / "audio" / "a.wav")
    path = tmp_path / "job.yaml"
    path.write_text("audio: audio\noutput: out\nmodels: [prosody]\n")
    return str(path)


RUNTIME = """
    from orchestrator.running.runtimes.venv import VenvRuntime


    class Elsewhere(VenvRuntime):
        name = "elsewhere"

        def state(self, environment, variant):
            return "ready"

        def command(self, shard, mounts, file, events, resources):
            from orchestrator.running.runtimes.base import Command

            return Command(["sh", "-c", "echo was here; exit 65"], {"PATH": "/usr/bin:/bin"}, mounts.scratch)
"""


def test_a_runtime(load, job, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(RUNTIMES, "elsewhere", load("elsewhere", RUNTIME).Elsewhere)
    assert main(["extract", job, "--offline", "--runtime", "elsewhere"]) == 4
    said = capsys.readouterr()
    assert "runtime elsewhere (asked for)" in said.err and "worker could not start: was here" in said.err
    assert main(["extract", job, "--runtime", "nowhere"]) == 2
    assert "runtime: 'nowhere' is not one of auto, docker, venv, elsewhere" in capsys.readouterr().err


ENGINE = """
    from orchestrator.running.engines.base import Ended, Engine
    from worker import protocol, schema


    class Echo(Engine):
        slots = 1

        def __init__(self, site):
            self.site, self.jobs = site, []

        def takes(self, gpu):
            return not self.jobs

        def busy(self):
            return bool(self.jobs)

        def submit(self, jobs):
            self.jobs += jobs
            for job in jobs:  # all that a machine far away would get
                text = protocol.canonical(schema.dump(job.shard))
                assert str(self.site.output.root) not in text and self.site.audio not in text
                print("submitted", job.name, job.shard.environment, job.memory)

        def poll(self):
            for job in self.jobs[:]:
                self.jobs.remove(job)
                yield job, Ended(0, True, False, self.site.run.log(job.name))

        def cancel(self, kill=False):
            self.jobs.clear()
"""


def test_an_engine(load, job, monkeypatch, capsys):
    monkeypatch.setitem(ENGINES, "echo", load("echo", ENGINE).Echo)
    monkeypatch.setattr("orchestrator.running.runtimes.venv.VenvRuntime.state", lambda *arguments: "ready")
    arguments = ["extract", job, "--offline", "--runtime", "venv", "--memory", "1GB"]
    assert main([*arguments, "--set", "engine=echo"]) == 4
    said = capsys.readouterr()
    assert "-torch-cuda-0.1 torch-cuda 1073741824" in said.out and "worker left 1 items out" in said.err
    assert main([*arguments, "--set", "engine=nowhere"]) == 2
    assert "engine: 'nowhere' is not one of local, echo" in capsys.readouterr().err
