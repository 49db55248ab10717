"""What else runs in an environment's image as in its virtual environment: fits."""

import json

import harness
import pytest
from engine import containers, docker
from harness import until

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
