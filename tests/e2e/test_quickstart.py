"""The job that the README begins with: four models from three environments over seven real clips."""

import collections
import hashlib
import json
import os
import threading

import harness
import numpy as np
import pytest

import orchestrator

JOB = harness.REPOSITORY / "config" / "quickstart.yaml"
MODELS = ("musicnn", "crepe", "madmom", "prosody")
AUDIO = harness.REPOSITORY / "tests" / "audio" / "quickstart"
ITEMS = sorted(str(path.relative_to(AUDIO)) for path in AUDIO.rglob("*") if path.is_file())


class Keeper(threading.Thread):
    """Links the event files of a run to a place where they outlive its end."""

    def __init__(self, output, folder):
        super().__init__(daemon=True)
        self.records, self.folder, self.over = output / ".consort" / "records", folder, threading.Event()

    def run(self):
        self.folder.mkdir()
        while not self.over.wait(0.05):
            for path in self.records.glob("*.jsonl"):
                if not (self.folder / path.name).exists():
                    os.link(path, self.folder / path.name)

    def events(self):
        """Return the events of each environment."""
        self.over.set()
        self.join()
        events = collections.defaultdict(list)
        for path in self.folder.iterdir():
            environment = next((name for name in ("legacy-py37", "tf-cuda", "torch-cuda") if name in path.name), "host")
            events[environment] += [json.loads(line) for line in path.read_text("ascii").splitlines()]
        return events


@pytest.fixture(scope="module", autouse=True)
def everything():
    """Build and fetch what the job needs, so that the tests below are about the job alone."""
    for arguments in (["envs", "build"], ["weights", "pull", "musicnn", "crepe", "madmom", "ffmpeg"]):
        done = harness.consort(*arguments, timeout=1500)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the job once; return the output folder and the events of its workers."""
    output = tmp_path_factory.mktemp("quickstart") / "out"
    keeper = Keeper(output, output.with_name("events"))
    keeper.start()
    done = harness.consort("extract", JOB, "--output", output)
    assert done.returncode == 0, done.stderr + done.stdout
    return output, keeper.events()


def stamps(output, model=""):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (output / model).rglob("*.npy")}


def test_every_model_writes_every_clip_in_its_shape(finished):
    run = orchestrator.load(finished[0])
    assert sorted(run.models) == sorted(MODELS)
    for item in ITEMS:
        record = run.record("crepe", item)
        samples = int(np.floor(record["duration"] * 16000 + 0.5))
        assert run.array("musicnn", item).shape == (753,)
        assert run.array("crepe", item).shape == (1 + samples // 160, 2)
        assert run.array("madmom", item).ndim == 1
        frames, features = run.array("prosody", item).shape
        assert (frames, features) == (1 + (samples - 1) // 256, 6)
    assert all(array.dtype == np.float32 for model in MODELS for array in run.arrays(model).values())


def test_every_line_of_the_manifest_holds(finished):
    output, _ = finished
    records = harness.manifest(output)
    assert sorted((r["model"], r["item"]) for r in records) == sorted((m, i) for m in MODELS for i in ITEMS)
    for record in records:
        data = (output / record["path"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (record["sha256"], record["bytes"])
        assert hashlib.sha256((AUDIO / record["item"]).read_bytes()).hexdigest() == record["source"]
        array = np.load(output / record["path"], allow_pickle=False)
        assert list(array.shape) == record["shape"] and array.dtype.name == record["dtype"]
        assert (output / ".consort" / "contexts" / f"{record['context']}.json").is_file()
    assert {str(p.relative_to(output)) for p in output.rglob("*.npy")} == {r["path"] for r in records}
    assert harness.leftovers(output) == []


def test_each_file_is_decoded_once_per_environment(finished):
    _, events = finished
    assert set(events) == {"legacy-py37", "tf-cuda", "torch-cuda", "host"}
    for environment in ("legacy-py37", "tf-cuda", "torch-cuda"):
        decoded = collections.Counter(e["item"] for e in events[environment] if e["kind"] == "decoded")
        opened = collections.Counter(
            e["item"] for e in events[environment] if e["kind"] == "opened" and "model" not in e
        )
        assert decoded == opened == dict.fromkeys(ITEMS, 1)
    models = {e["model"] for e in events["tf-cuda"] if e["kind"] == "wrote"}
    assert models == {"crepe", "madmom"}, "two models must have shared these decodes"


def test_a_second_run_recomputes_nothing(finished):
    output, _ = finished
    before, manifest = stamps(output), (output / "manifest.jsonl").read_bytes()
    began = harness.processor_seconds()
    done = harness.consort("extract", JOB, "--output", output)
    assert done.returncode == 0 and harness.processor_seconds() - began < 2
    assert harness.launched(output) == []
    assert stamps(output) == before and (output / "manifest.jsonl").read_bytes() == manifest


def test_the_same_job_into_another_folder_gives_the_same_bytes(finished, tmp_path):
    done = harness.consort("extract", JOB, "--output", tmp_path / "other", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert harness.fingerprint(tmp_path / "other") == harness.fingerprint(finished[0])


def test_a_changed_parameter_recomputes_that_model_alone(finished):
    """Runs last: it changes the folder that the other tests share."""
    output, _ = finished
    before = stamps(output)
    plan = harness.consort("plan", JOB, "--output", output, "--set", "crepe.params.viterbi=false")
    assert plan.returncode == 0, plan.stderr
    done = harness.consort("extract", JOB, "--output", output, "--set", "crepe.params.viterbi=false")
    assert done.returncode == 0, done.stderr
    after = stamps(output)
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == set(stamps(output, "crepe")) and len(after) == len(before)
    assert [json.loads(path.read_text())["environment"] for path in harness.launched(output)] == ["tf-cuda"]
