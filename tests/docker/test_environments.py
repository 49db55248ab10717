"""What else runs in an environment's image as in its virtual environment: fits, scripts, and what doctor looks at."""

import json
import os
import shutil
import subprocess

import harness
import pytest
from engine import containers, docker
from harness import until

from orchestrator import files
from orchestrator.environments import interpreters
from orchestrator.errors import EnvironmentUnavailable

SPEECH = harness.REPOSITORY / "tests" / "audio" / "quickstart" / "speech"


@pytest.fixture
def corpus(tmp_path):
    """Return a job with features that are written."""
    job = harness.write_job(tmp_path / "out", SPEECH, "prosody", runtime="venv", devices="cpu", plugins=[])
    done = harness.consort("extract", job, timeout=600)
    assert done.returncode == 0, done.stderr
    return job


def test_a_fit_gives_the_same_bytes_in_both_runtimes_and_its_container_only_reads_the_corpus(corpus, tmp_path, start):
    models, before = tmp_path / "models", harness.fingerprint(tmp_path / "out")
    options = ("--clusters", 8, "--output")
    done = harness.consort("fit", corpus, *options, models / "venv", timeout=600)
    assert done.returncode == 0 and "runtime venv (asked for)" in done.stderr, done.stderr

    running = start("fit", corpus, "--runtime", "docker", *options, models / "docker")
    (name,) = until(lambda: containers("status=running"))
    (facts,) = json.loads(docker("inspect", name))
    assert running.wait(300) == 0, running.text
    mounts = {mount["Source"]: (mount["Destination"], mount["RW"]) for mount in facts["Mounts"]}
    corpus_folder = str(tmp_path / "out")
    assert mounts == {corpus_folder: (corpus_folder, False), str(models / "docker"): ("/output", True)}
    assert facts["HostConfig"]["NetworkMode"] == "none" and facts["HostConfig"]["ReadonlyRootfs"]

    encoder = ("--stage", "encoder", "--steps", 1, "--cluster-model", models / "venv", "--output")
    for runtime in ("docker", "venv"):
        stage = harness.consort(
            "fit", corpus, "--runtime", runtime, *encoder, models / f"{runtime}-encoder", timeout=600
        )
        assert stage.returncode == 0, stage.stderr
    for left, right in (("venv", "docker"), ("venv-encoder", "docker-encoder")):
        held = [sorted(path.name for path in (models / one).iterdir()) for one in (left, right)]
        assert held[0] == held[1] and ".consort" not in held[0]
        for file in set(held[0]) - {"curve.svg"}:  # which holds the time
            assert (models / left / file).read_bytes() == (models / right / file).read_bytes(), file
    assert harness.fingerprint(tmp_path / "out") == before


SCRIPT = """
import os, sys, worker, legacy_models
assert os.getcwd() == sys.argv[1] and sys.stdin.read() == "said", "the folder and standard input are the caller's"
for place in ("/anywhere", os.environ["CONSORT_WEIGHTS"] + "/x"):
    try:
        open(place, "w")
        sys.exit("can write " + place)
    except OSError:
        pass
assert os.listdir("/sys/class/net") == ["lo"], "it has a network"
open("made", "w").write("%d.%d" % sys.version_info[:2])
sys.exit(7)
"""


@pytest.fixture
def without_python37(tmp_path, monkeypatch):
    """Hide every Python 3.7 of this machine, and the virtual environments; weights are still there."""
    weights = files.cache_root() / "weights"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights").symlink_to(weights)
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PYENV_ROOT", "CONDA_EXE", "CONDA_ENVS_PATH", "CONSORT_PYTHON_3_7"):
        monkeypatch.delenv(name, raising=False)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").symlink_to(shutil.which("docker"))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    with pytest.raises(EnvironmentUnavailable):
        interpreters.find("3.7")


def test_a_script_runs_in_a_container_where_there_is_no_python(tmp_path, without_python37):
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    command = [*harness.COMMAND, "python", "legacy-py37", "script.py", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(harness.REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=env, input="said", capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stdout + done.stderr
    made = folder / "made"
    assert made.read_text() == "3.7" and (made.stat().st_uid, made.stat().st_gid) == (os.getuid(), os.getgid())


def test_doctor_is_green_with_images_and_no_python37(without_python37):
    done = harness.consort("doctor", timeout=600)
    mend = [line for line in done.stdout.splitlines() if line.startswith("MEND")]
    assert [line for line in mend if "; run `consort weights pull " not in line] == [], "but what is not fetched here"
    assert done.returncode == (3 if mend else 0), done.stdout + done.stderr
    assert "ok    Python 3.7    none is found; consort/legacy-py37:cpu brings its own" in done.stdout
    assert "ok    legacy-py37   numpy 1.21" in done.stdout and "ok    musicnn       embedding [753]" in done.stdout
