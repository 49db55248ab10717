"""What a fit is made of: the records it reads, the shard that asks for it, and the worker that is followed."""

import json
import os
import sys

import pytest

from orchestrator.environments.devices import Gpu, Grant
from orchestrator.errors import EnvironmentUnavailable, JobError, RunFailed
from orchestrator.fitting import fit
from orchestrator.fitting.fit import FitOptions
from orchestrator.fitting.work import Work
from orchestrator.job import reading, spec
from orchestrator.output.folder import OutputDir
from orchestrator.planning import keys
from orchestrator.running import cores
from orchestrator.running.placement import Placement
from orchestrator.running.runtimes.base import THREADS, Command
from orchestrator.running.runtimes.venv import VenvRuntime
from worker import catalog, protocol, schema
from worker.protocol import Task
from worker.request import ArrayFile, Fit

SETTINGS = {"frame_ms": 50.0, "hop_ms": 16.0, "emphasize_ratio": 0.7, "smoothing_level": "light",
            "output_normalize": True}  # fmt: skip


class Shown:
    """A progress that remembers."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def stage(self, name, text):
        self.lines.append(f"{name}: {text}")


@pytest.fixture
def job(tmp_path):
    """Return a function that checks a job with models."""

    def read(*models, **keys):
        raw = {"audio": str(tmp_path), "output": str(tmp_path / "out"), "models": list(models or ["prosody"]), **keys}
        return spec.check(raw)

    return read


@pytest.fixture
def written(tmp_path, record):
    """Return a function that leaves records of a model in the output folder, and their context."""
    output = OutputDir(tmp_path / "out")
    output.create()
    lines = []

    def write(*items, model="prosody", holds="features", axes=("time", "feature"), **settings):
        version = settings.pop("version", catalog.find("prosody").version)
        checkpoint = settings.pop("checkpoint", {})
        context = {"params": {**SETTINGS, **settings}, "version": version, "checkpoint": checkpoint}
        name = protocol.digest(context)
        (output.contexts / f"{name}.json").write_text(json.dumps(context))
        for item in items:
            path = f"{model}/{item}.npy"
            one = record(item=item, model=model, output=holds, path=path, context=name, axes=list(axes))
            lines.append(protocol.canonical(schema.dump(one)) + "\n")
        output.manifest.write_text("".join(lines))

    return write


def choose(job, options=None, clusters=None):
    models = [model for model in job.models if model.reference == "prosody"]
    return fit.choose(job, models, options or FitOptions(), clusters)


def test_features_come_from_the_records_and_the_request_names_them_relative_to_the_output(job, written):
    written("b.wav", "a.wav")
    written("a.wav", holds="voiced", axes=("time",))
    material = choose(job())
    assert (material.model, material.holds, material.outdated) == ("prosody", "features", 0)
    asked = fit.request(material, FitOptions(clusters=64, seed=3))
    assert [file.item for file in asked.files] == ["a.wav", "b.wav"]
    assert asked.files[0].path == "prosody/a.wav.npy"
    assert (asked.options["n_clusters"], asked.options["seed"]) == (64, 3)
    assert (asked.stage, material.parameters) == ("clusters", SETTINGS)
    assert os.sep + "out" not in json.dumps(schema.dump(asked))


def test_arrays_of_other_parameters_or_versions_are_left_out_and_counted(job, written):
    written("a.wav")
    written("b.wav", hop_ms=10.0)
    written("c.wav", version=0)
    material = choose(job())
    assert [r.item for r in material.files] == ["a.wav"] and material.outdated == 2


def test_without_any_features_the_way_to_them_is_named(job, written):
    written("a.wav", holds="voiced")
    with pytest.raises(JobError, match=r"no features .*: none of prosody .*; run `consort extract` on this job first"):
        choose(job())


def test_a_context_that_is_gone_makes_its_arrays_outdated(job, written, tmp_path):
    written("a.wav")
    for path in (tmp_path / "out" / ".consort" / "contexts").iterdir():
        path.unlink()
    with pytest.raises(
        JobError, match=r"no features .*the 1 of prosody are of other parameters.*run `consort extract`"
    ):
        choose(job())


def test_the_model_with_features_is_taken_and_models_that_disagree_are_not_mixed(job, written):
    tokens = {"name": "tokens", "extractor": "prosody", "params": {"clusters": "/c"}}
    fine = {"name": "fine", "extractor": "prosody", "params": {"hop_ms": 5}}
    written("a.wav")
    assert choose(job("prosody", tokens, fine)).model == "prosody"
    written("a.wav", model="fine", hop_ms=5.0)
    with pytest.raises(JobError, match="prosody, fine have features of different parameters; choose by --model"):
        choose(job("prosody", tokens, fine))
    assert choose(job("prosody", tokens, fine), FitOptions(model="fine")).model == "fine"
    with pytest.raises(JobError, match="--model nosuch: the job's models of prosody are prosody, tokens, fine"):
        choose(job("prosody", tokens, fine), FitOptions(model="nosuch"))


def test_an_encoder_reads_tokens_of_just_these_clusters_else_features(job, written, tmp_path):
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    (clusters / "cluster_centers.pt").write_bytes(b"x")
    sha = fit.sha256_of(clusters / "cluster_centers.pt")
    both = job("prosody", {"name": "tokens", "extractor": "prosody", "params": {"clusters": str(clusters)}})
    options = FitOptions(stage="encoder")
    written("a.wav")
    written("a.wav", model="tokens", holds="tokens", axes=("time",), checkpoint={"cluster_centers.pt": "other"})
    assert choose(both, options, clusters).holds == "features"
    written("b.wav", model="tokens", holds="tokens", axes=("time",), checkpoint={"cluster_centers.pt": sha})
    assert choose(both, options, clusters).holds == "features", "a.wav has no tokens of these clusters"
    written("a.wav", model="tokens", holds="tokens", axes=("time",), checkpoint={"cluster_centers.pt": sha})
    material = choose(both, options, clusters)
    assert (material.holds, sorted(r.item for r in material.files)) == ("tokens", ["a.wav", "b.wav"])
    asked = fit.request(material, FitOptions(stage="encoder", size="large", epochs=3))
    assert asked.options == {"seed": 0, "encoder": {"size": "large", "plan": {"epochs": 3}}}


def test_a_job_with_several_token_models_is_asked_which_one_to_replace(job, written, tmp_path):
    two = [
        {"name": name, "extractor": "prosody", "params": {"clusters": str(tmp_path / name)}} for name in ("one", "two")
    ]
    with pytest.raises(JobError, match=r"clusters: the job names .*one, .*two; choose by --model"):
        fit._named(job(*two).models, "clusters")
    assert fit._named(job(*two).models[1:], "clusters") == str(tmp_path / "two")


@pytest.mark.parametrize("seed", [-1, 2**70])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(JobError, match="--seed"):
        FitOptions(seed=seed)


def test_pooled_features_are_refused_with_the_way_out(job, written):
    written("a.wav", axes=("feature",))
    with pytest.raises(JobError, match="are pooled, and a fit needs the frames; set `pooling: none`"):
        choose(job())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "large"}, "--size: has no meaning for the stage clusters"),
        ({"stage": "encoder", "clusters": 9}, "--clusters: has no meaning for the stage encoder"),
        ({"stage": "encoder", "max_iter": 9}, "--max-iter: has no meaning"),
        ({"cluster_model": "x"}, "--cluster-model: has no meaning"),
        ({"clusters": 0}, "--clusters: 0 is less than 1"),
        ({"stage": "encoder", "epochs": 0}, "--epochs: 0 is less than 1"),
        ({"stage": "encoder", "epochs": 1, "steps": 1}, "give one of them"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(JobError, match=words):
        FitOptions(**options)


def test_a_job_without_prosody_or_a_token_model_says_what_to_do(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match=r"none is prosody.*add it and run `consort extract`"):
        fit.fit(job("crepe"), FitOptions(), Shown())
    with pytest.raises(JobError, match=r"there is no token model; run `consort fit` without --stage first"):
        fit.fit(job(), FitOptions(stage="encoder"), Shown())


@pytest.mark.parametrize("parameter", ["clusters", "encoder"])
def test_paths_of_own_models_are_relative_to_the_job_or_in_flags_to_the_folder(tmp_path, monkeypatch, parameter):
    (tmp_path / "jobs").mkdir()
    path = tmp_path / "jobs" / "job.yaml"
    path.write_text(
        "audio: a\noutput: o\nmodels: [{name: t, extractor: prosody, params: {clusters: models/c, encoder: ./e.pt}}]\n"
    )
    params = reading.read(str(path)).models[0].params
    assert params == {"clusters": str(tmp_path / "jobs/models/c"), "encoder": str(tmp_path / "jobs/e.pt")}
    monkeypatch.chdir(tmp_path)
    params = reading.read(str(path), [(f"t.params.{parameter}", "here/m")]).models[0].params
    assert params[parameter] == str(tmp_path / "here/m")


def test_an_encoder_that_is_no_path_of_a_plugin_stays_what_it_is(tmp_path):
    (tmp_path / "plain.py").write_text(
        "import dataclasses\nfrom worker.extractors.prosody import Prosody\nfrom worker.extractor import own_path\n"
        "@dataclasses.dataclass\nclass Plain(Prosody):\n    'A.\\n\\nB.'\n    encoder: str = 'lstm'\n"
        "    mine: str = own_path()\n    def __post_init__(self): pass\n"
    )
    model = "{name: p, extractor: 'plain:Plain', params: {encoder: gru, mine: x/y}}"
    path = tmp_path / "job.yaml"
    path.write_text(f"audio: a\noutput: o\nplugins: [.]\nmodels: [{model}]\n")
    assert reading.read(str(path)).models[0].params == {"encoder": "gru", "mine": str(tmp_path / "x/y")}


def test_what_own_models_are_counts_and_not_where_they_lie(job):
    def key(clusters, hashes):
        model = job({"name": "t", "extractor": "prosody", "params": {"clusters": clusters, "encoder": "/e"}}).models[0]
        return keys.model_plan(model, lambda c: hashes[c.file]).task.key

    hashes = {"kmeans_model.json": "a", "cluster_centers.pt": "b", "encoder.pt": "c"}
    assert key("/here", hashes) == key("/there", hashes)
    for file in hashes:
        assert key("/here", hashes) != key("/here", {**hashes, file: "other"})


EMIT = "import os, sys, time\ndef emit(text):\n    with open(sys.argv[1], 'a') as f:\n        f.write(text + '\\n')\n"
STEP = """emit('{"kind": "progress", "model": "m", "message": "step 1", "share": 0.5}')\n"""
FITTED = """emit('{"kind": "fitted", "model": "m", "outcome": {"a": 1}}\\n{"kind": "finished"}')\n"""


class Scripts(VenvRuntime):
    """Runs a few lines of Python in the place of a worker; attempts on a GPU run others."""

    def __init__(self, code, on_gpu=""):
        super().__init__()
        self.code, self.on_gpu, self.given, self.built = code, on_gpu, [], []

    def build(self, environment, variant, say):
        self.built.append(variant)

    def command(self, shard, mounts, file, events, resources):
        self.given.append((shard, mounts, resources))
        code = EMIT + (self.on_gpu if resources.gpus else self.code)
        return Command([sys.executable, "-S", "-c", code, str(events)], {}, str(mounts.scratch))


@pytest.fixture
def learn(job, tmp_path):
    """Return a function that runs a fit whose worker is a script."""

    def run(runtime, shown=None, gpus=(), strict=False, files=None):
        grant = Grant(tuple(Gpu(n, uuid, "H200", 1) for n, uuid in enumerate(gpus)), "auto", strict)
        placed = Placement(runtime, "asked for", grant, frozenset(["torch-cuda"]))
        task = Task("m", "prosody", "", params=SETTINGS, files=files or {})
        work = Work(job(), placed, OutputDir(tmp_path / "model"), shown or Shown())
        return work.run(task, Fit("clusters", "features", [ArrayFile("a.wav", "m/a.npy", "0", [1, 6], "float32")]))

    return run


def test_progress_is_shown_and_facts_come_back(learn, tmp_path):
    shown = Shown()
    note = """emit('not json')\nemit('{"kind": "note", "model": "m", "message": "by the way"}')\nprint('noise')\n"""
    runtime = Scripts(STEP + note + FITTED)
    assert learn(runtime, shown) == {"a": 1}
    assert shown.lines == ["fit: 50 %  step 1", "fit: by the way"]
    assert list((tmp_path / "model").iterdir()) == [], "what only the run needed is gone"
    ((shard, mounts, resources),) = runtime.given
    assert (shard.kind, shard.fit.files[0].path, shard.items) == ("fit", "m/a.npy", [])
    assert str(tmp_path) not in protocol.canonical(schema.dump(shard)), "the same shard wherever it runs"
    assert (mounts.audio, mounts.output, mounts.weights) == (str(tmp_path / "out"), str(tmp_path / "model"), "")
    every = str(cores.available())
    assert resources.thread_variables == dict.fromkeys(THREADS, every), "a fit has all cores"


FAILED = """emit('{"kind": "%s", "message": "because"}')\nsys.exit(%d)\n"""


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (FAILED % ("model_refused", 65), JobError, "^because$"),
        (FAILED % ("output_lost", 74), RunFailed, "model: because$"),
        ("sys.exit(75)", RunFailed, "repeat the command"),
        ("sys.exit(1)", RunFailed, r"ended by code 1.*\.log"),
        ("os.kill(os.getpid(), 9)", RunFailed, "ended by signal 9"),
        ("pass", RunFailed, "ended by code 0"),
        (FITTED + "sys.exit(1)", RunFailed, "ended by code 1"),
    ],
)
def test_the_end_of_the_worker_decides_the_error_and_its_log_stays(learn, tmp_path, code, error, words):
    with pytest.raises(error, match=words):
        learn(Scripts(code))
    assert len(list((tmp_path / "model" / ".consort" / "runs").glob("*/logs/*.log"))) == 1


def test_an_interrupt_ends_the_worker_by_its_input(learn, tmp_path):
    class Interrupted(Shown):
        def stage(self, name, text):
            raise KeyboardInterrupt

    code = f"while os.read(0, 1): pass\nopen({str(tmp_path / 'ended')!r}, 'w').close()\n"
    with pytest.raises(KeyboardInterrupt):
        learn(Scripts(STEP + code), Interrupted())
    assert (tmp_path / "ended").exists()


LOST = """emit('{"kind": "device_missing", "message": "the driver shows none"}')\nsys.exit(69)\n"""


def test_a_gpu_that_is_lost_is_replaced_by_the_next_and_then_by_the_cpu_which_is_said(learn):
    shown, runtime = Shown(), Scripts(FITTED, LOST)
    assert learn(runtime, shown, gpus=("GPU-1", "GPU-2")) == {"a": 1}
    assert [shard.device for shard, *_ in runtime.given] == runtime.built == ["cuda", "cuda", "cpu"]
    assert [given.gpus for *_, given in runtime.given] == [("GPU-1",), ("GPU-2",), ()]
    assert shown.lines[0].startswith("torch-cuda: GPU GPU-1 is left out: the driver")
    assert shown.lines[1].startswith("torch-cuda: NO GPU: the driver shows none; goes on with the CPU")
    with pytest.raises(EnvironmentUnavailable, match="GPU-1: the driver shows none; install NVIDIA's driver"):
        learn(Scripts(FITTED, LOST), gpus=("GPU-1",), strict=True)


def test_a_token_model_that_cannot_be_mounted_is_refused(learn, monkeypatch):
    runtime = Scripts(FITTED)
    monkeypatch.setattr(runtime, "refuses", lambda path: f"{path} would hide a part of the container")
    with pytest.raises(JobError, match=r"^/usr/c/kmeans_model\.json would hide"):
        learn(runtime, files={"kmeans_model.json": "/usr/c/kmeans_model.json"})


def test_two_fits_do_not_share_a_folder(learn, tmp_path):
    output = OutputDir(tmp_path / "model")
    output.create()
    with output.lock(), pytest.raises(RunFailed, match="another run is writing here"):
        learn(Scripts(FITTED))


@pytest.mark.parametrize("left", ["manifest.jsonl", ".consort/runs/x/plan.json"])
def test_the_folder_of_a_run_is_not_taken_for_that_of_a_model(job, written, tmp_path, left):
    """A fit removes `.consort` of its folder when it is through: that of a run holds what its arrays were made with."""
    written("a.wav")
    other = tmp_path / "other"
    (other / left).parent.mkdir(parents=True)
    (other / left).write_text("{}")
    with pytest.raises(JobError, match="holds what a run has written; a fit needs a folder of its own"):
        fit.fit(job(), FitOptions(output=str(other)), None)
    assert (other / left).read_text() == "{}"
