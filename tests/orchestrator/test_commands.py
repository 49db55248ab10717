"""The command line: what answers at once, what it prints, and the exit codes of what is refused."""

import json
import os
import pathlib
import subprocess

import pytest

from orchestrator.__main__ import main, parser
from orchestrator.cli import flags


@pytest.mark.parametrize("arguments", [["extract"], ["plan"]], ids=" ".join)
def test_no_audio_found_is_2_and_leaves_nothing(tmp_path, capsys, arguments):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "notes.txt").touch()
    (tmp_path / "job.yaml").write_text("audio: audio\noutput: out\nmodels: [prosody]\n")
    assert main([*arguments, str(tmp_path / "job.yaml")]) == 2
    assert "no audio found" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["audio", "job.yaml"]


def test_a_gpu_that_is_asked_for_is_never_silently_replaced(tmp_path, capsys, write_wav):
    write_wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "job.yaml").write_text("audio: audio\noutput: out\nmodels: [prosody]\n")
    for device in ("cuda", "cuda:0"):
        assert main(["extract", str(tmp_path / "job.yaml"), "--device", device]) == 3
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.count("\n") == 2


def parsed(*arguments):
    """Return the job that a command line makes of a job file's absence."""
    return flags.job(parser().parse_args(["extract", *arguments]))


BASE = ("--audio", "in", "--output", "out", "--models", "crepe", "prosody")


def test_the_flags_can_be_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = parsed(*BASE, "--limit", "3", "--workers", "2", "--memory", "8GB", "--runtime", "venv")
    assert (job.audio, job.output) == (str(tmp_path / "in"), str(tmp_path / "out"))
    assert ([m.name for m in job.models], job.limit, job.workers, job.runtime) == (["crepe", "prosody"], 3, 2, "venv")


@pytest.mark.parametrize(
    ("alias", "key", "value"),
    [
        (("--audio_dir", "/x"), "audio", "/x"),
        (("--input", "/x"), "audio", "/x"),
        (("--output_dir", "/x"), "output", "/x"),
        (("--output_base", "/x"), "output", "/x"),
        (("--max_samples", "7"), "limit", 7),
        (("--device", "cpu"), "devices", "cpu"),
        (("--skip_existing",), "resume", "exists"),
        (("--skip-existing",), "resume", "exists"),
        (("--resume", "strict"), "resume", "strict"),
        (("--retry_failed",), "retry_failed", True),
        (("--retry-failed",), "retry_failed", True),
        (("--timeout-per-item", "90"), "timeout_per_item", 90.0),
        (("--licence-policy", "commercial"), "licence_policy", "commercial"),
        (("--debug",), "limit", None),
        (("--set", "limit=5"), "limit", 5),
        (("--set", "limit="), "limit", None),
        (("--set", "include=['*.wav']"), "include", ["*.wav"]),
        (("--limit", "3", "--set", "limit=5"), "limit", 5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_documents_spellings_are_aliases(alias, key, value):
    assert getattr(parsed(*BASE, *alias), key) == value


def test_settings_reach_the_models_that_flags_name():
    job = parsed(*BASE, "--set", "crepe.params.step_ms=20", "--set", "prosody.outputs=[voiced]")
    assert (job.models[0].params, job.models[1].outputs) == ({"step_ms": 20}, ["voiced"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "--lim", "3"],
        ["extract", "--out", "x"],
        ["extract", "--skip"],
        ["extract", "--limit", "many"],
        ["status"],
        ["nothing"],
        ["envs", "destroy"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_flags_are_not_abbreviated(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: consort" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "crep"], "unknown model; did you mean crepe?"),
        (["envs", "list", "torch"], "unknown environment"),
        (["weights", "list", "crep"], "unknown model; did you mean crepe?"),
        (["status", "nowhere.yaml"], "nowhere.yaml: no such job file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unknown_names_are_refused_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_flags_that_are_no_whole_job_say_what_is_missing(capsys):
    assert main(["extract", "--models", "crepe"]) == 2
    assert "--audio and --output missing" in capsys.readouterr().err
    assert main(["plan", "--models", "crepe", "job.yaml"]) == 2
    assert "write the job file first" in capsys.readouterr().err


def test_one_model_is_explained_with_all_its_parameters(capsys):
    assert main(["models", "crepe"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("step_ms", "10.0", "full | tiny", "pitch", "[T, 360]", "MIT", "tf-cuda"))


def test_all_models_are_listed(capsys):
    from worker import catalog

    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in catalog.names())


def test_plan_builds_each_model_once(prepare, tmp_path, capsys, monkeypatch):
    from worker import catalog

    prepare()
    built = []
    real = catalog.build
    monkeypatch.setattr(catalog, "build", lambda name, *rest: [built.append(name), real(name, *rest)][1])
    models = ["prosody", "crepe", "madmom", {"name": "again", "extractor": "crepe", "params": {"step_ms": 20}}]
    job = {"audio": "synthetic", "output": "out", "models": models, "resume": "strict", "runtime": "venv"}
    (tmp_path / "once.json").write_text(json.dumps(job))
    assert main(["plan", str(tmp_path / "once.json")]) == 0
    assert built == ["prosody", "crepe", "madmom", "crepe"]
    assert capsys.readouterr().out.count("again ") == 1


def test_plan_shows_the_work_and_starts_nothing(prepare, work, tmp_path, capsys):
    work(prepare(limit=1))
    before = sorted(map(str, tmp_path.rglob("*")))
    job = tmp_path / "cache.json"
    job.write_text(json.dumps({"audio": "audio", "output": "out", "models": ["prosody", "crepe"]}))
    assert main(["plan", str(job)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:7] == ["prosody", "torch-cuda", "cpu", "2", "1", "0", "0"]
    assert lines[2][:7] == ["crepe", "tf-cuda", "cpu", "3", "0", "0", "0"]
    assert lines[3][:2] == ["runtime", "venv"] or lines[3][:2] == ["runtime", "docker"]
    assert lines[4][:3] == ["3", "of", "3"] and lines[4][-3:] == ["nothing", "was", "started"]
    looked_up = {tmp_path / "cache", *(tmp_path / "cache").rglob("*")}  # what images are made of
    assert {*tmp_path.rglob("*")} - looked_up == {*map(pathlib.Path, before), job}


def test_environments_are_listed_without_building_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path))
    assert main(["envs"]) == 0
    assert capsys.readouterr().out.count("not built") == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["extract", "plan", "status"])
def test_make_hands_over_a_job_with_blanks_in_its_name(target):
    root = pathlib.Path(flags.__file__).parents[2]
    done = subprocess.run(["make", "-n", "-C", str(root), target, "CONFIG=my job.yaml"], capture_output=True, text=True)
    assert f"consort {target} 'my job.yaml'" in done.stdout


def test_names_may_stand_on_both_sides_of_a_flag(capsys):
    flag = ["--checkpoint", "facebook/encodec_48khz"]
    said = []
    for arguments in (["encodec", *flag], [*flag, "encodec"]):
        assert main(["weights", "list", *arguments]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "encodec_48khz" in said[0]


@pytest.mark.parametrize(
    "arguments",
    [["weights", "list", "--nonsense"], ["models", "crepe", "madmom"], ["status", "a", "b"]],
    ids=" ".join,
)
def test_other_words_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err
