"""What a fit is made of: the records it reads, the request it writes, and the process it listens to."""

import json
import os
import sys

import pytest

from orchestrator.errors import JobError, RunFailed
from orchestrator.fitting import fit
from orchestrator.fitting import process as processes
from orchestrator.fitting.fit import Options
from orchestrator.job import reading, spec
from orchestrator.output.folder import OutputDir
from orchestrator.planning import keys
from orchestrator.running.runtimes.base import Command
from worker import catalog, protocol, schema

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
    return fit.choose(job, models, options or Options(), clusters)


def test_features_come_from_the_records_and_the_request_names_them_relative_to_the_output(job, written):
    written("b.wav", "a.wav")
    written("a.wav", holds="voiced", axes=("time",))
    material = choose(job())
    assert (material.model, material.holds, material.outdated) == ("prosody", "features", 0)
    asked = fit.request(material, Options(clusters=64, seed=3))
    assert [file["item"] for file in asked["files"]] == ["a.wav", "b.wav"]
    assert asked["files"][0]["path"] == "prosody/a.wav.npy"
    assert (asked["n_clusters"], asked["seed"], asked["stage"], asked["parameters"]) == (64, 3, "clusters", SETTINGS)
    assert os.sep + "out" not in json.dumps(asked)


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
    assert choose(job("prosody", tokens, fine), Options(model="fine")).model == "fine"
    with pytest.raises(JobError, match="--model nosuch: the job's models of prosody are prosody, tokens, fine"):
        choose(job("prosody", tokens, fine), Options(model="nosuch"))


def test_an_encoder_reads_tokens_of_just_these_clusters_else_features(job, written, tmp_path):
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    (clusters / "cluster_centers.pt").write_bytes(b"x")
    sha = fit.sha256_of(clusters / "cluster_centers.pt")
    both = job("prosody", {"name": "tokens", "extractor": "prosody", "params": {"clusters": str(clusters)}})
    options = Options(stage="encoder")
    written("a.wav")
    written("a.wav", model="tokens", holds="tokens", axes=("time",), checkpoint={"cluster_centers.pt": "other"})
    assert choose(both, options, clusters).holds == "features"
    written("b.wav", model="tokens", holds="tokens", axes=("time",), checkpoint={"cluster_centers.pt": sha})
    assert choose(both, options, clusters).holds == "features", "a.wav has no tokens of these clusters"
    written("a.wav", model="tokens", holds="tokens", axes=("time",), checkpoint={"cluster_centers.pt": sha})
    material = choose(both, options, clusters)
    assert (material.holds, sorted(r.item for r in material.files)) == ("tokens", ["a.wav", "b.wav"])
    asked = fit.request(material, Options(stage="encoder", size="large", epochs=3))
    assert asked["encoder"] == {"size": "large", "plan": {"epochs": 3}} and "n_clusters" not in asked


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
        Options(seed=seed)


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
        Options(**options)


def test_a_job_without_prosody_or_a_token_model_says_what_to_do(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match=r"none is prosody.*add it and run `consort extract`"):
        fit.fit(job("crepe"), Options(), Shown())
    with pytest.raises(JobError, match=r"there is no token model; run `consort fit` without --stage first"):
        fit.fit(job(), Options(stage="encoder"), Shown())


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


def process(code, tmp_path):
    return Command([sys.executable, "-c", code], {"PATH": os.environ["PATH"]}, str(tmp_path))


def test_progress_is_shown_and_facts_come_back(tmp_path):
    shown = Shown()
    code = (
        "import json, sys\nprint(json.dumps({'kind': 'progress', 'text': 'step 1', 'share': 0.5}))\nprint('not json')\n"
        "print(json.dumps({'kind': 'note', 'text': 'by the way'}))\n"
        "print('noise', file=sys.stderr)\nprint(json.dumps({'kind': 'finished', 'facts': {'a': 1}}))\n"
    )
    assert processes.follow(process(code, tmp_path), tmp_path / "log", shown) == {"a": 1}
    assert shown.lines == ["fit: 50 %  step 1", "fit: by the way"]
    assert (tmp_path / "log").read_text() == "noise\n"


FAILED = "import json, sys\nprint(json.dumps({'kind': 'failed', 'message': 'because'}))\nsys.exit(%d)\n"


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (FAILED % 65, JobError, "^because$"),
        (FAILED % 74, RunFailed, "^because$"),
        ("import sys; sys.exit(75)", RunFailed, "repeat the command"),
        ("import sys; sys.exit(1)", RunFailed, "ended by code 1.*log"),
        ("import os; os.kill(os.getpid(), 9)", RunFailed, "ended by signal 9"),
        ("pass", RunFailed, "ended by code 0"),
    ],
)
def test_the_end_of_the_process_decides_the_error(tmp_path, code, error, words):
    with pytest.raises(error, match=words):
        processes.follow(process(code, tmp_path), tmp_path / "log", Shown())


def test_an_interrupt_ends_the_process_by_its_input(tmp_path):
    code = (
        'import os\nprint(\'{"kind": "progress", "text": "x"}\', flush=True)\n'
        "while os.read(0, 1): pass\nopen('ended', 'w').close()\n"
    )

    class Interrupted(Shown):
        def stage(self, name, text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.follow(process(code, tmp_path), tmp_path / "log", Interrupted())
    assert (tmp_path / "ended").exists()
