"""docker compose alone: plan, three workers and a report, without an orchestrator and without the Docker socket.

The commands are those of README and docs, typed in a copy of this checkout that belongs to somebody, with the compose
of this machine and the newest one that .ci/engine.sh has found.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import harness
import pytest
from engine import docker

from orchestrator import files
from orchestrator.environments import definitions, image_inputs
from orchestrator.weights import pip_settings

NEWEST = pathlib.Path(os.environ.get("NEWEST", "/usr/local/lib/consort-newest"))  # as in .ci/engine.sh
VERSIONS = ["installed", *(["newest"] if NEWEST.is_dir() else [])]
USER = (1234, 1234) if os.getuid() == 0 else (os.getuid(), os.getgid())
IMAGE_FILES = ("CONSORT_BASE_IMAGE_3_7", "CONSORT_BASE_IMAGE_3_11")


class Checkout:
    """A copy of this checkout in a folder of somebody's own, and that user's commands in it."""

    def __init__(self, folder, version):
        self.folder = folder / "my work" / "consort"
        self.home = folder / "home"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=harness.REPOSITORY, capture_output=True, check=True
        ).stdout
        for name in filter(None, listed.decode().split("\0")):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(harness.REPOSITORY / name, self.folder / name)
        self.home.mkdir()
        self.give(folder)
        (folder / "my work").chmod(0o700)  # as under umask 077
        config = {"DOCKER_CONFIG": str(NEWEST)} if version == "newest" else {}
        pip = image_inputs.secrets(pip_settings.read(), True)[1]
        ca = pip_settings.read().cert
        self.variables = {"HOME": str(self.home), **config, **pip, **({"CONSORT_CA": ca} if ca else {})}

    def give(self, folder):
        for path in (folder, *folder.rglob("*")):
            os.lchown(path, *USER)

    def run(self, *command, **variables):
        """Return what a command has said and how it has ended, all in one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONSORT_", "HOME"))}
        kept.update({name: os.environ[name] for name in IMAGE_FILES if name in os.environ})
        return subprocess.run(
            command, cwd=self.folder, env={**kept, **self.variables, **variables}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
        )  # fmt: skip

    def compose(self, *words, **variables):
        return self.run("docker", "compose", *words, **variables)

    def consort(self, *words, **variables):
        """Run this checkout's own command, with the caches of this machine."""
        own = {"PYTHONPATH": str(self.folder / "images"), "CONSORT_CACHE": str(files.cache_root())}
        return self.run(sys.executable, "-m", "orchestrator", *map(str, words), **{**own, **variables})

    def owners(self):
        """Return who has what is there now, and in the cache that nobody has named."""
        return {path.lstat().st_uid for top in (self.folder.parent, self.home / ".cache") for path in top.rglob("*")}


def everything():
    """Return the containers, networks and volumes of the engine."""
    return [docker(*words, "--quiet").split() for words in (("ps", "--all"), ("network", "ls"), ("volume", "ls"))]


@pytest.fixture(scope="module", autouse=True)
def orchestrator_image():
    """Build the image that plans and reports, and once all is over the others of this checkout again."""
    command = ("envs", "build", "--runtime", "docker", "--variant", "cpu")
    done = harness.consort(*command, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "consort/orchestrator:latest: ready" in done.stderr
    yield
    assert harness.consort(*command, timeout=900).returncode == 0


@pytest.fixture
def wheels():
    """Put wheels that no index has where a build of compose finds them."""
    with image_inputs.wheels(definitions.find("torch-cuda"), pip_settings.read()):
        yield definitions.IMAGES / "local-wheels"


@pytest.fixture(params=VERSIONS)
def checkout(request, tmp_path, wheels):
    """Return somebody's checkout; what it has left on the engine is gone in the end."""
    before = everything()
    made = Checkout(tmp_path, request.param)
    for wheel in wheels.glob("*.whl"):
        shutil.copy(wheel, made.folder / "images" / "local-wheels")
    made.give(made.folder / "images" / "local-wheels")
    yield made
    done = made.consort("compose", "down")
    assert done.returncode == 0, done.stdout
    assert everything() == before, done.stdout


def test_the_first_docker_compose_up_of_an_empty_account(checkout, quickstart):
    """No cache, no output folder, and nothing said: results, and what Docker made, belong to the checkout's owner."""
    done = checkout.compose("up")
    assert done.returncode == 0, done.stdout
    output = checkout.folder / "output" / "quickstart"
    assert harness.fingerprint(output) == quickstart
    assert harness.leftovers(output) == []
    assert checkout.owners() == {USER[0]}
    assert [path.name for path in checkout.home.iterdir() if path.name != ".docker"] == []
    assert "crepe took" in done.stdout and "report-1   | musicnn     7 " in done.stdout, "progress, and the report"

    same = checkout.consort("extract", "config/quickstart.yaml")
    assert same.returncode == 0, same.stdout
    assert "0 of 7 items to do, runtime docker (auto" in same.stdout, "the images of compose are those of extract"

    code = checkout.folder / "images" / "worker" / "layered.py"
    code.write_text(code.read_text() + "\n# changed\n")
    stale = checkout.consort("envs", "list", "--runtime", "docker")
    assert stale.stdout.count("of other code") >= 3, stale.stdout
    again = checkout.compose("up")
    assert again.returncode == 0 and "worker.fingerprint" in again.stdout, again.stdout
    assert harness.fingerprint(output) == quickstart
    now = checkout.consort("envs", "list", "--runtime", "docker")
    assert "of other code" not in now.stdout, "what was of other code was built again"


def job_of_tones(checkout, audio, **settings):
    """Return a job file in a project of the checkout's owner."""
    project = checkout.folder.parent / "project"
    shutil.copytree(harness.PLUGINS, project / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    job = project / "job.yaml"
    job.write_text(
        json.dumps({"audio": str(audio), "output": "out", "plugins": ["plugins"], "models": [harness.TONE], **settings})
    )
    checkout.give(project)
    return job


def test_make_up_ends_with_the_code_of_the_report_and_leaves_nothing(checkout, audio):
    harness.write_wavs(audio, 2)
    (audio / "broken.wav").write_bytes(b"RIFF....WAVE")
    job = job_of_tones(checkout, audio)
    before = everything()
    output = job.parent / "out"
    done = checkout.consort("compose", "up", job)
    assert done.returncode == 1, done.stdout
    assert "good_01.wav: tone took" in done.stdout and "decode      broken.wav" in done.stdout
    assert harness.written(output) == {("tone", f"good_0{n}.wav") for n in range(2)}
    assert everything() == before

    again = checkout.consort(
        "compose", "up", job, "--output", job.parent / "other", "--audio", harness.REPOSITORY / "config"
    )
    assert (again.returncode, "no audio" in again.stdout) == (2, True), again.stdout
    assert everything() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give a job file"),
        (("JOB", "--models", "tone"), "the rest stands in the job"),
        (("JOB", "--audio", "FILE"), "docker compose takes a folder"),
        (("JOB", "--audio", "synthetic"), "docker compose takes a folder"),
    ],
)
def test_what_compose_cannot_do_is_said_in_one_line(audio, tmp_path, words, told):
    harness.write_wavs(audio, 1)
    job = harness.write_job(tmp_path / "out", audio, "musicnn", plugins=[])
    given = {"JOB": str(job), "FILE": str(next(audio.iterdir()))}
    done = harness.consort("compose", "up", *[given.get(word, word) for word in words])
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("version", "told"), [("1.29.2", "too old, 2.20 is needed"), ("v2.19.9", "too old"), ("", "is not installed")]
)
def test_a_compose_that_cannot_do_it_is_named(audio, tmp_path, version, told):
    harness.write_wavs(audio, 1)
    job = harness.write_job(tmp_path / "out", audio, "musicnn", plugins=[])
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ -n '{version}' ] && echo '{version}'\n")
    program.chmod(0o755)
    done = harness.consort("compose", "up", job, PATH=f"{program.parent}:{os.environ['PATH']}")
    assert done.returncode == 3 and told in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.fixture
def compose(tmp_path):
    """Return a function that runs docker compose on folders of this test, as a user of its own."""
    cache = tmp_path / "cache"
    shutil.copytree(files.cache_root() / "weights", cache / "weights")
    for path in (cache, *cache.rglob("*")):
        os.chown(path, *USER)
    project = f"consort-test-{os.getpid()}"

    def run(*words, **variables):
        paths = {"OUTPUT": str(tmp_path / "out"), "CONSORT_CACHE": str(cache)}
        ids = {"CONSORT_UID": str(USER[0]), "CONSORT_GID": str(USER[1])}
        command = ["docker", "compose", "--project-name", project, *words]
        environment = {**os.environ, **paths, **ids, **variables}
        return subprocess.run(
            command, cwd=harness.REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    yield run
    run("down", "--volumes")


UP = ("up", "--no-build", "--exit-code-from", "report", "report")


def test_bad_files_are_a_1_and_a_lost_worker_a_4(compose, audio, output, tmp_path):
    harness.write_wavs(audio, 2)
    (audio / "broken.wav").write_bytes(b"RIFF....WAVE")
    config = harness.REPOSITORY / "config"
    job = os.path.relpath(harness.write_job(tmp_path / "job", audio, "musicnn", plugins=[]), harness.REPOSITORY)
    done = compose(*UP, AUDIO=os.path.relpath(audio, harness.REPOSITORY), CONFIG=job)
    assert done.returncode == 1, done.stdout + done.stderr
    assert config.is_dir() and harness.written(output) == {("musicnn", f"good_0{n}.wav") for n in range(2)}
    nowhere = compose(*UP, CONFIG="config/nothing.yaml")
    assert nowhere.returncode != 0 and not (config / "nothing.yaml").exists()

    harness.write_wav(audio / "late.wav")
    assert compose("run", "--rm", "plan", AUDIO=str(audio), CONFIG=job).returncode == 0
    lost = compose("run", "--rm", "--no-deps", "report", AUDIO=str(audio), CONFIG=job)
    assert lost.returncode == 4, lost.stdout + lost.stderr


def test_plug_ins_and_weights_of_the_users_own_are_seen_below_root(compose, audio, output, tmp_path):
    harness.write_wavs(audio, 2)
    project = tmp_path / "project"
    shutil.copytree(harness.PLUGINS, project / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "mine").mkdir()
    (project / "mine" / "pytorch_model.bin").write_bytes(b"own")
    mine = {"name": "mine", "extractor": "weighted:Weighted", "params": {"checkpoint": "./mine"}}
    settings = {"audio": "x", "output": "y", "plugins": ["plugins"], "models": [harness.TONE, mine]}
    job = project / "job.yaml"
    job.write_text(json.dumps(settings))
    done = compose(*UP, AUDIO=str(audio), CONFIG=str(job), ROOT=str(project))
    assert done.returncode == 0, done.stdout + done.stderr
    assert harness.written(output) == {(model, f"good_0{n}.wav") for model in ("tone", "mine") for n in range(2)}
    same = harness.consort("extract", job, "--audio", audio, "--output", tmp_path / "venv", "--runtime", "venv")
    assert same.returncode == 0, same.stderr
    both = [harness.fingerprint(folder) for folder in (output, tmp_path / "venv")]
    for arrays in both:
        del arrays["manifest.jsonl"]  # whose contexts hold the path of the weights, as it was said to each
    assert both[0] == both[1]

    for number, changes in enumerate(
        ({"plugins": [str(harness.PLUGINS)]}, {"models": [{**mine, "params": {"checkpoint": "/x"}}]})
    ):
        job.write_text(json.dumps({**settings, **changes}))
        refused = compose("run", "--rm", "plan", AUDIO=str(audio), CONFIG=str(job), ROOT=str(project))
        assert refused.returncode in (2, 3), refused.stdout + refused.stderr
        assert "docker compose sees what lies below ROOT" in refused.stdout + refused.stderr, number


def test_a_job_that_insists_on_a_gpu_is_told_where_it_comes_from(compose, audio, tmp_path):
    harness.write_wavs(audio, 1)
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({"audio": "x", "output": "y", "models": ["mert"], "devices": "cuda"}))
    done = compose("run", "--rm", "plan", AUDIO=str(audio), CONFIG=str(job))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "docker-compose.gpu.yml gives" in done.stderr + done.stdout


def test_workers_have_no_network_and_nobody_the_socket(compose):
    (text, error) = (done := compose("config", "--format", "json")).stdout, done.stderr
    assert done.returncode == 0, error
    services = json.loads(text)["services"]
    assert set(services) == {"folders", "plan", "torch", "tf", "legacy", "report"}
    assert "docker.sock" not in text
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"] and service["read_only"], name
        added = ["CHOWN", "DAC_OVERRIDE"] if name == "folders" else ["SETUID", "SETGID"]
        assert service["cap_add"] == added and "no-new-privileges:true" in service["security_opt"]
        assert (service.get("network_mode") == "none") is (name != "plan")
        assert service["user"] == ("0:0" if name == "folders" else service["user"])
        writable = {v["target"] for v in service["volumes"] if not v.get("read_only")}
        worker = name in ("torch", "tf", "legacy")
        assert writable == {"/output"} if worker else writable <= {"/output", "/cache", "/checkout"}
        assert ("/checkout" in writable) is (name == "folders")
        if name != "folders":
            assert int(service["mem_limit"]) > 0 and service["pids_limit"] == 512
