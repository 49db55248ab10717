"""`docker compose up`: plan, three workers and a report, without an orchestrator and without the Docker socket."""

import json
import os
import shutil
import subprocess

import harness
import pytest

from orchestrator import files

UP = ("up", "--no-build", "--exit-code-from", "report", "report")


@pytest.fixture(scope="module", autouse=True)
def orchestrator_image():
    """Build the image that plans and reports."""
    done = harness.consort("envs", "build", "--runtime", "docker", "--variant", "cpu", timeout=900)
    assert done.returncode == 0, done.stderr
    assert "consort/orchestrator:latest: ready" in done.stderr


@pytest.fixture
def compose(tmp_path):
    """Return a function that runs docker compose on folders of this test, as a user of its own."""
    cache = tmp_path / "cache"
    shutil.copytree(files.cache_root() / "weights", cache / "weights")
    user = (1234, 1234) if os.getuid() == 0 else (os.getuid(), os.getgid())
    for path in (cache, *cache.rglob("*")):
        os.chown(path, *user)
    project = f"consort-test-{os.getpid()}"

    def run(*words, **variables):
        paths = {"OUTPUT": str(tmp_path / "out"), "CONSORT_CACHE": str(cache)}
        ids = {"CONSORT_UID": str(user[0]), "CONSORT_GID": str(user[1])}
        command = ["docker", "compose", "--project-name", project, *words]
        environment = {**os.environ, **paths, **ids, **variables}
        return subprocess.run(
            command, cwd=harness.REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    yield run
    run("down", "--volumes")


def test_the_quickstart_is_the_same_as_anywhere(compose, quickstart, output):
    done = compose(*UP)
    assert done.returncode == 0, done.stdout + done.stderr
    assert harness.fingerprint(output) == quickstart
    assert harness.leftovers(output) == []
    owners = {path.stat().st_uid for path in output.rglob("*")}
    assert owners == {1234 if os.getuid() == 0 else os.getuid()}
    again = compose(*UP)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "28 arrays" not in again.stdout and harness.fingerprint(output) == quickstart


def test_bad_files_are_a_1_and_a_lost_worker_a_4(compose, audio, output, tmp_path):
    harness.write_wavs(audio, 2)
    (audio / "broken.wav").write_bytes(b"RIFF....WAVE")
    config = harness.REPOSITORY / "config"
    job = os.path.relpath(harness.write_job(tmp_path / "job", audio, "musicnn", plugins=[]), harness.REPOSITORY)
    done = compose(*UP, AUDIO=str(audio), CONFIG=job)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "decode      broken.wav" in done.stdout
    assert config.is_dir() and harness.written(output) == {("musicnn", f"good_0{n}.wav") for n in range(2)}

    relative = compose(*UP, AUDIO=os.path.relpath(audio, harness.REPOSITORY), CONFIG=str(harness.REPOSITORY / job))
    assert relative.returncode == 1, relative.stdout + relative.stderr
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
        assert (service.get("network_mode") == "none") is (name != "plan")
        assert service["user"] == ("0:0" if name == "folders" else service["user"])
        writable = {v["target"] for v in service["volumes"] if not v.get("read_only")}
        assert writable <= {"/output", "/cache"} and (name not in ("torch", "tf", "legacy") or writable == {"/output"})
