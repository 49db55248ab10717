"""From audio to tokens and a learned embedding by the command, with a kill in between."""

import json
import shutil

import harness
import numpy as np
import pytest

import orchestrator

SPEECH = harness.REPOSITORY / "tests" / "audio" / "quickstart" / "speech"
STEPS = 4


@pytest.fixture
def job(tmp_path):
    """Return a job over speech and tones: features, then tokens and embeddings of models that are yet to be fitted."""
    audio = tmp_path / "audio"
    shutil.copytree(SPEECH, audio / "speech")
    harness.write_wavs(audio, 4, seconds=1.5)
    clusters, both = {"clusters": "models/clusters"}, {"clusters": "models/clusters", "encoder": "models/encoder"}
    models = [
        {"name": "prosody", "outputs": ["features", "embedding"]},
        {"name": "tokens", "extractor": "prosody", "params": clusters, "outputs": ["tokens", "embedding"]},
        {"name": "learned", "extractor": "prosody", "params": both, "outputs": ["embedding"]},
    ]
    return harness.write_job(tmp_path / "out", audio, *models)


def fit(job, *options):
    """Fit, and return what it did."""
    return harness.consort("fit", job, *options, timeout=900)


def test_features_become_tokens_and_tokens_an_embedding(job, tmp_path, start):
    output, models = tmp_path / "out", tmp_path / "models"
    early = fit(job)
    assert (
        early.returncode == 2
        and "none of prosody or tokens or learned" in early.stderr
        and "`consort extract`" in early.stderr
    )

    first = harness.consort("extract", job, timeout=900)
    assert first.returncode == 0, first.stdout + first.stderr  # what is yet to be fitted waits
    assert first.stdout.splitlines()[-1] == "2 of 3 models wait for `consort fit JOB`"
    assert "tokens: 6 items, for what `consort fit` makes" in first.stdout
    assert harness.status(job)["models"]["tokens"]["waiting"] == 6
    assert harness.read(harness.runs(output)[-1] / "report.json")["models"]["learned"]["waiting"] == 6
    planned = harness.consort("plan", job)
    assert planned.returncode == 0 and planned.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert "0 of 6 items to do" in planned.stdout
    items = [record["item"] for record in harness.manifest(output) if record["output"] == "features"]
    assert len(items) == 6

    fitted = fit(job, "--clusters", 16)
    assert fitted.returncode == 0, fitted.stdout + fitted.stderr
    assert "perplexity" in fitted.stdout and "silhouette" in fitted.stdout
    described = harness.read(models / "clusters" / "kmeans_model.json")
    run = orchestrator.load(output)
    frames = sum(len(run.array("prosody", item)) for item in items)
    assert described["n_clusters"] == 16 and described["quality"]["vectors"] == frames
    assert fit(job, "--stage", "encoder", "--clusters", 9).returncode == 2

    second = harness.consort("extract", job, timeout=900)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.splitlines()[-1] == "1 of 3 models waits for `consort fit JOB --stage encoder`"
    run = orchestrator.load(output)
    for item in items:
        tokens = run.array("tokens", item, "tokens")
        assert tokens.dtype == np.int32 and len(tokens) == len(run.array("prosody", item))
        assert 0 <= tokens.min() <= tokens.max() < 16
        histogram = run.array("tokens", item, "embedding")[25:]
        np.testing.assert_allclose(histogram, np.bincount(tokens, minlength=16) / len(tokens), atol=1e-6)
    record = run.record("tokens", items[0], "tokens")
    context = harness.read(output / ".consort" / "contexts" / f"{record['context']}.json")
    assert context["checkpoint"]["cluster_centers.pt"] == described["centers_sha256"]
    assert context["provenance"]["clusters"]["made by"] == "consort fit"

    killed = start("fit", job, "--stage", "encoder", "--steps", 500)
    state = models / "encoder" / "training.pt"
    harness.until(state.exists, 300)
    children = killed.kill()
    assert children
    harness.until(lambda: not any(map(harness.alive, children)), 60)  # they end by themselves, with their state
    assert state.exists() and not (models / "encoder" / "encoder.pt").exists()
    trained = fit(job, "--stage", "encoder", "--steps", STEPS)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert f"{STEPS} steps" in trained.stdout and "most frequent token" in trained.stdout
    assert "the tokens of 6 files of tokens" in trained.stderr
    assert {"curve.csv", "curve.png", "curve.svg", "encoder.pt"} <= {
        path.name for path in (models / "encoder").iterdir()
    }
    assert not state.exists()
    again = fit(job, "--stage", "encoder", "--steps", STEPS)
    assert again.returncode == 0 and "fitted already" in again.stderr

    last = harness.consort("extract", job, timeout=900)
    assert last.returncode == 0, last.stdout + last.stderr
    run = orchestrator.load(output)
    vectors = [run.array("learned", item, "embedding") for item in items]
    assert all(vector.shape == (512,) and np.isfinite(vector).all() for vector in vectors)
    assert np.abs(vectors[0] - vectors[-1]).max() > 1e-3  # a tone and speech
    name = run.record("learned", items[0], "embedding")["context"]
    context = json.dumps(harness.read(output / ".consort" / "contexts" / f"{name}.json"))
    assert "mean state of the trained sequence encoder" in context
    before = harness.fingerprint(output)
    assert harness.consort("extract", job, timeout=300).returncode == 0 and harness.fingerprint(output) == before

    refitted = fit(job, "--clusters", 8)  # what was made with the old tokens is stale, and the encoder does not fit
    assert refitted.returncode == 0
    done = harness.consort("extract", job, timeout=900)
    assert done.returncode == 3 and "tokens of another model than `clusters`" in done.stdout
    assert harness.status(job)["models"]["prosody"]["done"] == 6
    assert orchestrator.load(output).array("tokens", items[0], "tokens").max() < 8
