"""A flag changes what it names and nothing else: every preset with every flag that the page of jobs documents."""

import dataclasses
import pathlib
import re
import shlex

import pytest

from orchestrator.__main__ import main, parser
from orchestrator.cli import flags
from orchestrator.job import reading

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRESETS = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))
VALUES = {
    "--audio": ("audio", str(ROOT / "tests" / "audio")),
    "--output": ("output", "/elsewhere"),
    "--limit": ("limit", 3),
    "--devices": ("devices", "auto"),
    "--runtime": ("runtime", "venv"),
    "--resume": ("resume", "strict"),
    "--workers": ("workers", 1),
    "--memory": ("memory", "8GB"),
    "--timeout_per_item": ("timeout_per_item", 90.0),
    "--licence_policy": ("licence_policy", "any"),
    "--skip_existing": ("resume", "exists"),
    "--retry_failed": ("retry_failed", True),
}
OF_THE_RUN = {"--offline", "--force", "--yes", "--verbose"}
ELSEWHERE = {"--models", "--set"}  # held below, and end to end


def documented():
    """Return the spellings of each flag in the first table of the page's chapter on flags, by the first one."""
    page = (ROOT / "docs" / "jobs.md").read_text("utf-8").partition("## Flags")[2].partition("A flag changes")[0]
    rows = [re.findall(r"`(--[\w-]+)", line.rpartition("|")[0].rpartition("|")[0]) for line in page.splitlines()]
    return {row[0]: row for row in rows if row}


def job(preset, *arguments, verb="extract"):
    return flags.job(parser().parse_args([verb, str(ROOT / "config" / preset), *map(str, arguments)]))


def test_each_flag_of_the_page_is_held_below():
    assert set(VALUES) | OF_THE_RUN | ELSEWHERE == set(documented())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_documented_flag_changes_its_key_alone(preset):
    plain = reading.read(str(ROOT / "config" / preset))
    for name, (key, value) in VALUES.items():
        for spelling in documented()[name]:
            given = [spelling] if name in ("--skip_existing", "--retry_failed") else [spelling, value]
            found = job(preset, *given)
            forgotten = {"audio_root": None} if key == "audio" else {}
            assert found == dataclasses.replace(plain, **{key: value}, **forgotten), spelling
    for name in OF_THE_RUN:
        assert job(preset, name) == plain


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_that_is_chosen_and_a_value_that_is_set_leave_the_rest(preset):
    plain = reading.read(str(ROOT / "config" / preset))
    for model in plain.models:
        assert job(preset, "--models", model.name) == dataclasses.replace(plain, models=[model])
        halved = [dataclasses.replace(m, dtype="float16") if m is model else m for m in plain.models]
        assert job(preset, "--set", f"{model.name}.dtype=float16") == dataclasses.replace(plain, models=halved)


def test_another_audio_brings_its_own_root_and_that_is_said(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("x.wav\n")
    preset = str(ROOT / "config" / "encodec-tokens.yaml")
    given = ["plan", preset, "--audio", str(tmp_path / "list.txt"), "--output", str(tmp_path / "out")]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "flag: audio_root: tests/audio/quickstart -> not said\n" in said
    assert f"(looked for in {tmp_path}): 'x.wav'" in said
    assert job("encodec-tokens.yaml", "--audio", "x.csv", "--set", "audio_root=/y").audio_root == "/y"


MISTAKES = {
    "--set include=*.flac": "quote what is text: --set 'include=[\"*.flac\"]'",
    "--set path_column=*x": "quote what is text: --set 'path_column=\"*x\"'",
    "--set include=x*": "expected a list, got 'x*'; write [\"x*\"]",
    "--set models=crepe": "expected a list, got 'crepe'; write [crepe]",
    "--models crepe,madmom": "--models crepe,madmom: separate names by blanks: --models crepe madmom",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_answered_with_what_to_write(capsys, line):
    assert main(["plan", str(ROOT / "config" / "quickstart.yaml"), *line.split()]) == 2
    assert MISTAKES[line] in capsys.readouterr().err


OLD = [
    ("encodec-latents.yaml", "--freq 48", "encodec_output.params.checkpoint", "facebook/encodec_48khz"),
    ("encodec-tokens.yaml", "--freq 48", "tokenized.params.checkpoint", "facebook/encodec_48khz"),
    ("encodec-latents.yaml", "--window_sec 10", "encodec_output.window.seconds", 10.0),
    ("encodec-latents.yaml", "--window-sec 10", "encodec_output.window.seconds", 10.0),
    ("encodecmae-mert-musicnn.yaml", "--model m-a-p/MERT-v1-330M", "mert.params.checkpoint", "m-a-p/MERT-v1-330M"),
    (
        "encodecmae-mert-musicnn.yaml",
        "--model mel256-ec-large_st",
        "encodecmae.params.checkpoint",
        "mel256-ec-large_st",
    ),
    ("encodecmae-mert-musicnn.yaml", "--model MSD_musicnn", "musicnn.params.checkpoint", "MSD_musicnn"),
    ("openl3-crepe-madmom-mert.yaml", "--model m-a-p/MERT-v1-330M", "mert.params.checkpoint", "m-a-p/MERT-v1-330M"),
    ("encodecmae-mert-musicnn.yaml", "--models mert --full_sequence", "mert.pooling", "none"),
]


@pytest.mark.parametrize(("preset", "line", "key", "value"), OLD)
def test_an_old_flag_sets_what_it_set_where_one_model_can_take_it(preset, line, key, value):
    chosen = shlex.split(line)
    rest = chosen[: chosen.index("--models") + 2] if "--models" in chosen else []
    assert job(preset, *chosen) == job(preset, *rest, "--set", f"{key}={value}")
    assert job(preset, *chosen) != job(preset, *rest)


def test_windows_of_which_only_the_length_is_given_touch():
    (model,) = job("encodec-tokens.yaml", "--set", "tokenized.window.seconds=3").models
    assert model.window == {"seconds": 3, "hop_seconds": 3, "pad": "zero"}
    (model,) = job("encodec-tokens.yaml", "--window_sec", "3").models
    assert model.window == {"seconds": 3.0, "hop_seconds": 3.0, "pad": "zero"}
    (model,) = job("encodec-tokens.yaml", "--target_duration", "3").models
    assert model.window == {"seconds": 3.0, "hop_seconds": 2.7, "pad": "zero"}
    both = ("--set", "tokenized.window.hop_seconds=1.5", "--set", "tokenized.window.seconds=3")
    (model,) = job("encodec-tokens.yaml", *both).models
    assert model.window == {"seconds": 3, "hop_seconds": 1.5, "pad": "zero"}


def test_full_sequence_of_frames_changes_nothing():
    assert job("openl3-crepe-madmom-mert.yaml", "--full_sequence") == job("openl3-crepe-madmom-mert.yaml")


ANSWERS = [
    ("all.yaml", "--freq 48", "`--set encodec.params.checkpoint=facebook/encodec_48khz`"),
    ("all.yaml", "--freq", "write --freq 24 or --freq 48"),
    ("quickstart.yaml", "--freq 48", "no model of this job takes it"),
    ("encodec-tokens.yaml", "--window_sec", "`--set tokenized.window.seconds=SECONDS`"),
    ("encodec-tokens.yaml", "--target_duration long", "`--set tokenized.window.seconds=SECONDS`"),
    (
        "encodecmae-mert-musicnn.yaml",
        "--full_sequence",
        "`--set encodecmae.pooling=none` or `--set mert.pooling=none` or `--set musicnn.pooling=none`",
    ),
    ("encodecmae-mert-musicnn.yaml", "--model mert", "write `--models mert`"),
    ("encodecmae-mert-musicnn.yaml", "--model ./my_mert", "`--set mert.params.checkpoint=./my_mert`"),
    ("encodec-tokens.yaml", "--dataset noisy", "--audio train_noisy.csv --set audio_root=train_noisy`"),
    ("encodec-tokens.yaml", "--dataset both", "--audio train_curated.csv --set audio_root=train_curated && consort"),
    ("quickstart.yaml", "--status", "write `consort status "),
]


@pytest.mark.parametrize(("preset", "line", "answer"), ANSWERS)
def test_an_old_flag_that_is_not_clear_is_answered_by_the_line_that_is(preset, line, answer, capsys):
    assert main(["extract", str(ROOT / "config" / preset), *shlex.split(line)]) == 2
    said = capsys.readouterr()
    assert answer in said.err and said.err.count("\n") == 1 and not said.out


def test_what_flags_change_is_said(tmp_path, write_wav, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    write_wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "job.yaml").write_text(
        "audio: audio\noutput: out\nmodels: [crepe, {name: prosody, params: {hop_ms: 8}}]\n"
    )
    settings = ["--output", "other", "--set", "prosody.params.hop_ms=20.5", "--set", "prosody.dtype=float16"]
    assert (
        main(["plan", "job.yaml", "--models", "prosody", "mert", *settings, "--limit", "1", "--runtime", "venv"]) == 0
    )
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("flag: ")]
    assert said == [
        "flag: models: crepe left out; mert added",
        "flag: output: out -> other",
        "flag: prosody.params.hop_ms: 8 -> 20.5",
        "flag: limit: not said -> 1",
        "flag: runtime: not said -> venv",
        "flag: prosody.dtype: not said -> float16",
    ]


def test_a_version_and_words_that_were_nearly_right(capsys):
    for arguments, code, words in [
        (["--version"], 0, "consort 0."),
        (["extrac"], 2, "did you mean extract?"),
        (["job.yaml"], 2, "did you mean `consort extract job.yaml`?"),
        (["extract", "--limt", "3"], 2, "usage: consort extract"),
        (["plan", "--skip-exist"], 2, "did you mean --skip"),
        (["status", "a", "--jsn"], 2, "consort status: error: unrecognized arguments: --jsn; did you mean --json?"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert ended.value.code == code and words in said.out + said.err


def test_a_model_twice_says_to_give_a_name(tmp_path, capsys):
    (tmp_path / "job.yaml").write_text("audio: a\noutput: o\nmodels: [crepe, crepe]\n")
    assert main(["plan", str(tmp_path / "job.yaml")]) == 2
    assert "give each a name of its own: {name: crepe_2, extractor: crepe}" in capsys.readouterr().err


def test_items_that_failed_name_the_flag_that_tries_them_again(prepare, work, tmp_path, capsys):
    work(prepare(), {("a.wav", "prosody"): "decode", ("b.wav", "prosody"): "empty"})
    (tmp_path / "job.yaml").write_text("audio: audio\noutput: out\nmodels: [prosody]\n")
    assert main(["plan", str(tmp_path / "job.yaml"), "--runtime", "venv"]) == 0
    assert "0 of 3 items to do, 2 failed earlier (--retry-failed tries them again)" in capsys.readouterr().out
