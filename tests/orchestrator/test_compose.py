"""The steps around the workers of docker-compose.yml: what is planned, and what the report makes of their words."""

import io
import json

import pytest

from orchestrator import errors
from orchestrator.__main__ import main
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.running import compose, progress
from worker import protocol
from worker.protocol import Channel, Event, Facts, Failure


@pytest.fixture
def planned(prepare, monkeypatch):
    """Return a job of prosody that compose has planned."""
    surveyed = prepare()
    assert compose.write_plan(surveyed, progress.choose(io.StringIO())) == []
    return surveyed


def shard(surveyed, name):
    return json.loads((surveyed.output.inner / "compose" / f"{name}.json").read_text("ascii"))


def say(surveyed, *events):
    channel = Channel(str(surveyed.output.records / "compose-torch-cuda.1.jsonl"))
    channel.emit(*events)
    channel.close()


def test_every_environment_gets_one_shard_and_its_folder(planned):
    assert [len(shard(planned, name)["items"]) for name in ("torch-cuda", "tf-cuda", "legacy-py37")] == [3, 0, 0]
    assert shard(planned, "torch-cuda")["device"] == "cpu"
    assert (planned.output.scratch / "compose-torch-cuda").is_dir()


def test_what_workers_left_over_is_a_4(planned):
    found, missing, code = compose.report(planned)
    assert (found.models["prosody"].pending, missing, code) == (3, [], errors.LOST)


def test_a_model_that_could_not_load_is_a_3_with_its_words(planned):
    say(planned, Event("model_refused", model="prosody", message="its weights are damaged"))
    _, missing, code = compose.report(planned)
    assert (missing, code) == (["prosody: cannot load: its weights are damaged"], errors.UNAVAILABLE)


def test_a_worker_without_its_gpu_is_a_3_with_its_words(planned):
    say(planned, Event("device_missing", message="was granted a GPU, but the driver shows none"))
    _, missing, code = compose.report(planned)
    assert (missing, code) == (["torch-cuda: was granted a GPU, but the driver shows none"], errors.UNAVAILABLE)


@pytest.mark.parametrize("kind", ["decode", "memory"])
def test_files_that_failed_are_a_1_also_those_that_are_tried_again(planned, kind):
    key = protocol.key_of(planned.plan.models[0].task.key, "", "")
    failures = [Failure(c.source.id, "prosody", kind, "so it is", key) for c in planned.plan.choices]
    facts = Facts("", 0, 0)
    say(planned, *[Event("failed", item=f.item, model=f.model, failure=f, facts=facts) for f in failures])
    found, missing, code = compose.report(planned)
    assert missing == [] and sum(found.models["prosody"].failed.values()) == 3
    assert code == (errors.ITEMS_FAILED if kind == "memory" else code)


def test_a_gpu_comes_with_the_override_alone(prepare, monkeypatch):
    with pytest.raises(EnvironmentUnavailable, match=r"docker-compose\.gpu\.yml gives"):
        compose.place(prepare(devices="cuda"))
    assert compose.place(prepare(devices="auto")).device("torch-cuda") == "cpu"
    monkeypatch.setenv("CONSORT_COMPOSE_GPU", "1")
    for devices in ("auto", "cuda"):
        placed = compose.place(prepare(devices=devices))
        assert [placed.device(name) for name in ("torch-cuda", "tf-cuda", "legacy-py37")] == ["cuda", "cuda", "cpu"]
    assert compose.place(prepare(devices="cpu")).device("torch-cuda") == "cpu"


def test_a_report_without_a_plan_says_so(prepare):
    surveyed = prepare()
    surveyed.output.create()
    with pytest.raises(errors.RunFailed, match="nothing was planned here"):
        compose.report(surveyed)


@pytest.mark.parametrize("action", ["plan", "report", "up"])
def test_links_that_lead_out_are_not_followed_where_compose_cannot_see_them(action, tmp_path, capsys, write_wav):
    write_wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "job.yaml").write_text("audio: audio\noutput: out\nmodels: [prosody]\nlinks: follow\n")
    assert main(["compose", action, str(tmp_path / "job.yaml")]) == 2
    assert "links: follow: docker compose sees the audio folder alone; use `consort extract`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
