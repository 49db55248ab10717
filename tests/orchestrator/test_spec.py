"""The job file: what is accepted, and every refusal with the path of its key."""

import os
import re
import sys

import pytest
import yaml

from orchestrator.__main__ import main
from orchestrator.errors import JobError
from orchestrator.job import reading

JOB = {"audio": "music", "output": "out", "models": ["crepe", {"name": "prosody"}]}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # plugins lengthen it

    def write(text="", **changes):
        path = tmp_path / "jobs" / "job.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text or yaml.safe_dump({**JOB, **changes}, sort_keys=False), "utf-8")
        return str(path)

    return write


def refusal(path, changes=()):
    with pytest.raises(JobError) as caught:
        reading.read(path, changes)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path or 'flags'}: ")
    return text[len(f"{path or 'flags'}: ") :]


def with_second(**settings):
    return {"models": ["crepe", {"name": "second", "extractor": "crepe", **settings}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modles": []}, "modles: unknown key; did you mean models?; known keys: audio, output, models, "),
        ({"models": "crepe"}, "models: expected a list, got 'crepe'"),
        ({"models": []}, "models: none chosen; known models: crepe, "),
        ({"models": [None]}, "models[0]: expected a mapping, got nothing"),
        ({"models": [["crepe"]]}, "models[0]: expected a mapping, got a list"),
        ({"models": ["creep"]}, "models[0].name: 'creep': unknown model; did you mean crepe?; known models: crepe, "),
        ({"models": [{"extractor": "crepe"}]}, "models[0].name: missing"),
        ({"models": ["crepe", {"name": "a/b", "extractor": "crepe"}]}, "models[1].name: 'a/b' may hold only letters"),
        ({"models": ["crepe", {"name": "..", "extractor": "crepe"}]}, "models[1].name: '..' may hold only letters"),
        ({"models": ["crepe", "crepe"]}, "models[1].name: 'crepe' names two models"),
        ({"models": ["crepe", {"name": "Crepe", "extractor": "crepe"}]}, "models[1].name: 'Crepe' names two models"),
        (with_second(extractor="crep"), "models[1].extractor: 'crep': unknown model; did you mean crepe?"),
        (with_second(extractor="nowhere:Model"), "models[1].extractor: nowhere:Model: No module named 'nowhere'"),
        (
            with_second(params={"step_mss": 5}),
            "models[1].params.step_mss: unknown key; did you mean step_ms?; known keys: model_capacity, step_ms, ",
        ),
        (with_second(params={"step_ms": "fast"}), "models[1].params.step_ms: expected a number, got 'fast'"),
        (with_second(params={"step_ms": True}), "models[1].params.step_ms: expected a number, got True"),
        (with_second(params={"step_ms": float("nan")}), "models[1].params.step_ms: expected a finite number"),
        (with_second(params={"step_ms": 0}), "models[1].params.step_ms: 0.0 is not between 1 and 1000"),
        (with_second(params={"viterbi": 1}), "models[1].params.viterbi: expected true or false, got 1"),
        (with_second(params={"model_capacity": "huge"}), "models[1].params.model_capacity: 'huge' is not one of full"),
        (with_second(params=[1]), "models[1].params: expected a mapping, got a list"),
        (with_second(sample_rate=1), "models[1].sample_rate: unknown key"),
        (with_second(step_ms=20), "models[1].step_ms: is a parameter of crepe; write params: {step_ms: 20}"),
        (with_second(outputs=["pitsch"]), "models[1].outputs: 'pitsch': unknown output; did you mean pitch?"),
        (with_second(outputs="pitch"), "models[1].outputs: expected a list, got 'pitch'"),
        (with_second(pooling="average"), "models[1].pooling: 'average' is not a pooling; known: none, mean, "),
        (
            with_second(pooling="mean"),
            "models[1].pooling: pitch of crepe cannot be pooled; use none, or `outputs: [summary]` without",
        ),
        (with_second(window={"seconds": 1}), "models[1].window: crepe does not take one"),
        (with_second(dtype="int8"), "models[1].dtype: 'int8' is not one of float32, float16"),
        (with_second(format="mat"), "models[1].format: 'mat' is not one of npy, npz, txt"),
        (with_second(batch_size=0), "models[1].batch_size: 0 is not between 1 and 65536"),
        ({"limit": -1}, "limit: -1 is not between 0 and"),
        ({"limit": "3"}, "limit: expected a whole number, got '3'"),
        ({"limit": True}, "limit: expected a whole number, got True"),
        ({"resume": "maybe"}, "resume: 'maybe' is not one of key, strict, exists, never"),
        ({"workers": 0}, "workers: 0 is not between 1 and 1024"),
        ({"timeout_per_item": 0.5}, "timeout_per_item: 0.5 is not between 1 and"),
        ({"audio": None}, "audio: expected text, got nothing"),
        ({"include": "*.wav"}, "include: expected a list, got '*.wav'"),
        ({"memory": "much"}, "memory: 'much' is no size; write 8GB or a number of bytes"),
        ({"memory": 0}, "memory: 0 is no size"),
        ({"memory": -8}, "memory: -8 is no size"),
        ({"models": ["crepe", "madmom"], "licence_policy": "commercial"}, "models[1]: licence_policy is commercial, "),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(write, changes, message):
    assert refusal(write(**changes)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio: a\noutput: b\nmodels: [crepe]\naudio: c\n", "line 4: duplicate key 'audio'"),
        ("audio: a\nmodels:\n  - name: crepe\n    name: mert\n", "line 4: duplicate key 'name'"),
        ("audio: a\nyes: 1\n", "line 2: the key True is not text"),
        ("audio: [a\noutput: b\n", "line 2: not valid YAML: "),
        ("limit: 2020-13-45\n", "not valid YAML: month must be in 1..12"),
        ("audio: " + 3000 * "[", "not valid YAML: "),
        ("audio: a\x00b\n", "not valid YAML: "),
        ("- crepe\n", "a job is a mapping with the keys audio, output and models"),
        ("models: [crepe]\n", "audio: missing"),
        ("# nothing yet\n", "audio: missing"),
        ("audio: !!python/object:os.system {}\n", "line 1: not valid YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_job_is_refused(write, text, message):
    assert refusal(write(text)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: 010\n", "line 1: YAML reads 010 as 8; write 8, or '010' if it is text"),
        ("audio: a\noutput: b\nlimit: -0_7\n", "line 3: YAML reads -0_7 as -7; write -7, or "),
        ("timeout_per_item: 10:30\n", "line 1: YAML reads 10:30 as 630; write 630, or '10:30' if it is text"),
        ("timeout_per_item: 1:10.5\n", "line 1: YAML reads 1:10.5 as 70.5; write 70.5, or "),
        ("include: [a, 10:30]\n", "line 1: YAML reads 10:30 as 630"),
        ("{audio: a, output: b, models: [crepe], limit: 1e3}\n", "limit: expected a whole number, got 1000.0"),
    ],
)
def test_numbers_that_read_otherwise_than_they_look_are_refused(write, text, message):
    assert refusal(write(text)).startswith(message)
    if value := message.partition("reads ")[2].partition(" as")[0]:
        assert main(["plan", write(), "--set", f"limit={value}"]) == 2


def test_numbers_that_read_as_they_look_are_taken(write):
    text = "audio: a\noutput: b\nmodels: [{name: crepe, params: {step_ms: 1e1}}]\ntimeout_per_item: 1_000\nlimit: 0\n"
    job = reading.read(write(text + "workers: 0x10\nmemory: '010'\n"))
    assert (job.models[0].params["step_ms"], job.timeout_per_item, job.limit, job.workers) == (10.0, 1000.0, 0, 16)
    assert job.memory == "010"


def test_a_key_may_override_what_a_yaml_merge_brings(write):
    text = "audio: a\noutput: b\nmodels:\n  - &base {name: crepe, format: txt}\n"
    text += "  - {<<: *base, name: other, extractor: crepe}\n"
    models = reading.read(write(text)).models
    assert [(m.name, m.format) for m in models] == [("crepe", "txt"), ("other", "txt")]


def test_paths_are_relative_to_the_job_file(write, tmp_path):
    folder = tmp_path / "jobs"
    (folder / "mine").mkdir(parents=True)
    job = reading.read(write(audio_root="../x", plugins=["mine"]))
    assert (job.audio, job.output) == (str(folder / "music"), str(folder / "out"))
    assert (job.audio_root, job.plugins) == (str(tmp_path / "x"), [str(folder / "mine")])


def test_root_moves_them_all_and_absolute_paths_stay(write, tmp_path):
    job = reading.read(write(root="..", output="/elsewhere"))
    assert (job.audio, job.output) == (str(tmp_path / "music"), "/elsewhere")


@pytest.mark.parametrize("text", ["./my.h5", "my.h5"])
def test_a_checkpoint_written_as_a_path_is_relative_too(write, tmp_path, text):
    own = {"name": "mine", "extractor": "musicnn", "params": {"checkpoint": text}}
    assert reading.read(write(models=[own])).models[0].params["checkpoint"] == str(tmp_path / "jobs" / "my.h5")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("audio", "clips.h5", lambda job: job.audio),
        ("output", "clips.h5", lambda job: job.output),
        ("audio_root", "clips.h5", lambda job: job.audio_root),
        ("plugins", ["mine"], lambda job: job.plugins[0].replace("mine", "clips.h5")),
        ("environments", ["mine"], lambda job: job.environments[0].replace("mine", "clips.h5")),
        ("musicnn.params.checkpoint", "./clips.h5", lambda job: job.models[0].params["checkpoint"]),
        ("musicnn.params", {"checkpoint": "./clips.h5"}, lambda job: job.models[0].params["checkpoint"]),
    ],
)
def test_a_path_in_a_flag_is_relative_to_the_current_folder(write, tmp_path, monkeypatch, key, value, found):
    path = write(models=["musicnn"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert found(reading.read(path, [(key, value)])) == str(tmp_path / "clips.h5")


def test_a_plugin_folder_that_is_missing_is_refused(write):
    with pytest.raises(JobError, match=r"plugins\[0\]: .*nowhere is no folder"):
        reading.read(write(plugins=["nowhere"]))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("nowhere", "nowhere is no folder"),
        ({"name": "torch-cuda", "python": "/usr/bin/python3"}, "an interpreter of your own comes in a later version"),
        (3, "3 is no folder; give one with an env.yaml"),
    ],
)
def test_an_environment_that_is_no_folder_is_refused(write, entry, words):
    with pytest.raises(JobError, match=rf"environments\[0\]: .*{words}"):
        reading.read(write(environments=[entry]))


def test_an_environment_lies_beside_the_job(write, tmp_path):
    (tmp_path / "jobs" / "my_env").mkdir(parents=True)
    assert reading.read(write(environments=["./my_env"])).environments == [str(tmp_path / "jobs" / "my_env")]


def test_root_in_a_flag_moves_the_paths_of_the_file(write, tmp_path):
    assert reading.read(write(), [("root", str(tmp_path / "r"))]).audio == str(tmp_path / "r" / "music")


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 << 30), ("8 gib", 8 << 30), ("512M", 512 << 20), ("1.5k", 1536), ("2T", 2 << 40), (123, 123)],
)
def test_sizes_of_memory(write, text, size):
    assert reading.read(write(memory=text)).memory_bytes == size


def test_a_setting_reaches_keys_of_the_job_and_of_models(write):
    changes = [("limit", 3), ("crepe.params.step_ms", 20), ("prosody.params.hop_ms", 10), ("crepe.format", "txt")]
    job = reading.read(write(), changes)
    assert job.limit == 3
    assert (job.models[0].params, job.models[0].format) == ({"step_ms": 20}, "txt")
    assert job.models[1].params == {"hop_ms": 10}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("crep.params.step_ms", 5, "--set crep.params.step_ms: unknown model; did you mean crepe?; known models: "),
        ("limt", 5, "limt: unknown key; did you mean limit?"),
        ("crepe.params.step_mss", 5, "models[0].params.step_mss: unknown key; did you mean step_ms?"),
        ("crepe.name.more", 5, "--set ...more: 'crepe' has no keys of its own"),
    ],
)
def test_a_wrong_setting_is_refused(write, key, value, message):
    assert refusal(write(), [(key, value)]).startswith(message)


@pytest.mark.parametrize("models", [None, "crepe", {"crepe": {}}])
def test_a_setting_for_a_model_of_a_broken_list_is_refused(write, models):
    assert "unknown model; known models: none" in refusal(write(models=models), [("crepe.format", "txt")])


def refused(arguments, capsys):
    assert main(["extract", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"consort: [^\n]+\n", said.err)
    return said.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "limit"], "--set limit: write KEY=VALUE"),
        (["--set", "limit=[1"], "not valid YAML"),
        (["--models", "crepe", "nothing"], "models[1].name: 'nothing': unknown model"),
        (["--memory", "lots"], "memory: 'lots' is no size"),
        (["--resume", "no"], "resume: 'no' is not one of"),
        (["--devices", "tpu"], "devices: 'tpu' is not one of"),
        (["--licence-policy", "none"], "licence_policy: 'none' is not one of"),
    ],
)
def test_a_wrong_flag_is_one_line_and_leaves_nothing(write, tmp_path, capsys, flags, message):
    assert message in refused([write(), *flags], capsys)
    assert os.listdir(tmp_path / "jobs") == ["job.yaml"]


def test_without_a_job_the_flags_must_be_one(capsys):
    assert "--audio, --output and --models" in refused([], capsys)
    assert "missing" in refused(["--audio", "music"], capsys)


def test_a_job_file_that_is_not_there(capsys, tmp_path):
    assert "no such job file" in refused([str(tmp_path / "none.yaml")], capsys)


TWO = [
    {"name": "frames", "extractor": "mert", "pooling": "none"},
    "crepe",
    {"name": "mert", "params": {"layers": [3, 7]}, "pooling": "max", "dtype": "float16", "format": "npz"},
]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (["mert"], ["mert"]),
        (["frames"], ["frames"]),
        (["mert", "crepe"], ["crepe", "mert"]),
        (["mert", "mert"], ["mert"]),
        (["prosody", "mert"], ["mert", "prosody"]),
        (["crepe", "mert", "frames"], ["frames", "crepe", "mert"]),
    ],
)
def test_models_that_are_chosen_keep_what_the_job_says_of_them(write, chosen, names):
    job = reading.read(write(models=TWO))
    found = reading.read(write(models=TWO), [("models", chosen)])
    assert [model.name for model in found.models] == names
    settings = {model.name: model for model in job.models}
    assert all(model == settings.get(model.name, model) for model in found.models)
    assert reading.lacking(write(models=TWO), chosen) == [name for name in chosen if name not in settings]


def test_settings_of_a_chosen_model_come_on_top_of_its_own(write):
    changes = [("models", ["mert"]), ("mert.pooling", "mean"), ("mert.params.layers", [-1])]
    (model,) = reading.read(write(models=TWO), changes).models
    assert (model.pooling, model.params, model.dtype) == ("mean", {"layers": [-1]}, "float16")


def test_a_model_in_full_replaces_the_one_of_the_job(write):
    (model,) = reading.read(write(models=TWO), [("models", [{"name": "mert"}])]).models
    assert (model.pooling, model.params) == (None, {})


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (
            ["frame"],
            "models[0].name: 'frame': unknown model; did you mean frames?; known models: frames, crepe, mert, encodec",
        ),
        (["nowhere:Model"], "models[0].name: 'nowhere:Model' may hold only"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(write, chosen, words):
    assert refusal(write(models=TWO), [("models", chosen)]).startswith(words)


def test_a_model_left_out_has_no_settings(write):
    words = refusal(write(models=TWO), [("models", ["crepe"]), ("mert.pooling", "none")])
    assert words == "--set mert.pooling: unknown model; known models: crepe"
