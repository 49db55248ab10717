"""Checkpoints in a job: a hub's, fetched on first use, and the user's own."""

import json

import harness
import pytest
from hub_server import Server

from orchestrator.files import cache_root

WEIGHTED = {"name": "weighted", "extractor": "weighted:Weighted"}


@pytest.fixture
def server():
    """Return a hub on this machine."""
    made = Server()
    yield made
    made.close()


def ask_hub(server, tmp_path):
    """Return the environment in which that hub is asked, with an empty cache of weights but built environments."""
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    if not (cache / "envs").exists():
        (cache / "envs").symlink_to(cache_root() / "envs")
    return {"CONSORT_CACHE": str(cache), "HF_ENDPOINT": server.endpoint}


def test_weights_of_a_hub_come_with_the_first_run_and_serve_all_others(audio, output, tmp_path, server):
    harness.write_wavs(audio, 2)
    hub = ask_hub(server, tmp_path)
    job = harness.write_job(output, audio, {**WEIGHTED, "params": {"checkpoint": "m-a-p/MERT-v1-95M"}})
    first = harness.consort("extract", job, **hub)
    assert first.returncode == 0, first.stdout + first.stderr
    said = first.stdout + first.stderr
    assert "licence: m-a-p/MERT-v1-95M: CC-BY-NC-4.0 (not for commercial use)" in said
    before, asked = harness.fingerprint(output), len(server.requests)
    again = harness.consort("extract", job, **{**hub, "HF_HUB_OFFLINE": "1"})
    assert again.returncode == 0 and "0 of 2 items to do" in again.stdout + again.stderr
    assert harness.fingerprint(output) == before and len(server.requests) == asked
    weights = tmp_path / "cache" / "weights"
    assert (weights / "weights.lock").is_file()
    (weights / "hub" / "m-a-p" / "MERT-v1-95M" / "main" / "pytorch_model.bin").unlink()
    later = harness.consort("extract", job, "--offline", **hub)  # what was made with them is done all the same
    assert later.returncode == 0 and "0 of 2 items to do" in later.stdout + later.stderr


def test_a_hub_without_the_weights_is_one_line_and_the_other_models_run(audio, output, tmp_path, server):
    harness.write_wav(audio / "a.wav")
    server.status = 404
    models = [{**WEIGHTED, "params": {"checkpoint": "m-a-p/MERT-v1-95M"}}, harness.TONE]
    job = harness.write_job(output, audio, *models)
    done = harness.consort("extract", job, **ask_hub(server, tmp_path))
    assert done.returncode == 3 and harness.written(output) == {("tone", "a.wav")}
    (line,) = [line for line in done.stdout.splitlines() if "missing" in line]
    assert "the hub has no pytorch_model.bin of m-a-p/MERT-v1-95M at main" in line and "by hand" in line
    server.status = None
    assert harness.consort("extract", job, **ask_hub(server, tmp_path)).returncode == 0


def test_offline_the_command_that_gets_them_is_named(audio, output, tmp_path, server):
    harness.write_wav(audio / "a.wav")
    job = harness.write_job(output, audio, {**WEIGHTED, "params": {"checkpoint": "m-a-p/MERT-v1-95M"}})
    done = harness.consort("extract", job, "--offline", **ask_hub(server, tmp_path))
    assert done.returncode == 3 and server.requests == []
    words = "run `consort weights pull weighted:Weighted --checkpoint m-a-p/MERT-v1-95M`, or put by hand http"
    assert words in done.stdout and "pytorch_model.bin as /" in done.stdout


def test_a_commercial_policy_refuses_the_job_before_anything_starts(audio, output, tmp_path, server):
    harness.write_wav(audio / "a.wav")
    job = harness.write_job(output, audio, {**WEIGHTED, "params": {"checkpoint": "m-a-p/MERT-v1-95M"}})
    done = harness.consort("extract", job, "--licence-policy", "commercial", **ask_hub(server, tmp_path))
    assert done.returncode == 2 and "its weights are CC-BY-NC-4.0" in done.stderr and not output.exists()


def test_random_weights_are_shouted_of_everywhere(audio, output, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "pytorch_model.bin").write_bytes(b"w")
    (weights / "PROVENANCE.json").write_text(json.dumps({"weights": "random-init", "seed": 7}))
    harness.write_wav(audio / "a.wav")
    model = {"name": "weighted", "extractor": "weighted:Weighted", "params": {"checkpoint": str(weights)}}
    job = harness.write_job(output, audio, model)
    done = harness.consort("extract", job)
    assert done.returncode == 0 and "RANDOM WEIGHTS: weighted" in done.stdout
    for target in (job, output):
        assert "RANDOM WEIGHTS: weighted" in harness.consort("status", target).stdout
    assert harness.status(job)["random_weights"] == harness.status(output)["random_weights"] == ["weighted"]
    (record,) = harness.manifest(output)
    assert record["flags"] == ["random_weights"]
    context = harness.read(output / ".consort" / "contexts" / f"{record['context']}.json")
    assert context["provenance"] == {"weights": "random-init", "seed": 7}


def test_where_own_weights_lie_does_not_count_but_what_they_are_does(audio, output, tmp_path):
    harness.write_wav(audio / "a.wav")

    def run(folder, content):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "pytorch_model.bin").write_bytes(content)
        params = {"checkpoint": str(tmp_path / folder)}
        job = harness.write_job(output, audio, {"name": "w", "extractor": "weighted:Weighted", "params": params})
        assert harness.consort("extract", job).returncode == 0
        return harness.manifest(output)[0]["key"]

    first = run("here", b"one")
    assert run("there", b"one") == first
    assert run("there", b"two") != first


def test_own_weights_that_are_missing_are_one_line(audio, output, tmp_path):
    harness.write_wav(audio / "a.wav")
    params = {"checkpoint": str(tmp_path / "none")}
    job = harness.write_job(output, audio, {"name": "w", "extractor": "weighted:Weighted", "params": params})
    done = harness.consort("extract", job)
    assert done.returncode == 3
    assert "pytorch_model.bin is missing" in done.stdout and "correct the path" in done.stdout
