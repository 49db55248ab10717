"""Jobs that cannot start: one line, the right exit code, and nothing left behind."""

import harness
import pytest
from harness import TONE


def refused(code, *arguments, seconds=30.0, **options):
    """Run the command, which must refuse with one line within some seconds of processor; return the line."""
    began = harness.processor_seconds()
    done = harness.consort(*arguments, **options)
    took = harness.processor_seconds() - began
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert took < seconds
    return done.stderr


def test_a_typo_in_a_parameter_of_the_second_model(audio, output):
    harness.write_wav(audio / "a.wav")
    job = harness.write_job(output, audio, TONE, {"name": "crepe", "params": {"step_sm": 10}})
    line = refused(2, "extract", job, seconds=1)
    assert f"{job}: models[1].params.step_sm: unknown key" in line
    assert "did you mean" in line or "step_ms" in line
    assert "model_capacity" in line and "viterbi" in line
    assert not output.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--set", "crepe.params.step_ms=fast"], "models[1].params.step_ms"),
        (["--set", "crepe.params.model_capacity=huge"], "full"),
        (["--set", "crepe.poolign=mean"], "models[1].poolign"),
        (["--set", "limti=3"], "limti: unknown key"),
        (["--set", "crepe.outputs=[pitsch]"], "pitch"),
        (["--models", "crepe", "crepp"], "crepe"),
        (["--set", "tone.extractor=tone:Toon"], "tone:Toon"),
        (["--devices", "cpu:7"], "devices"),
        (["--resume", "maybe"], "resume"),
    ],
)
def test_other_mistakes_name_their_key_before_anything_starts(change, words, audio, output):
    harness.write_wav(audio / "a.wav")
    job = harness.write_job(output, audio, TONE, "crepe")
    assert words in refused(2, "extract", job, *change, seconds=1)
    assert not output.exists()


def test_a_device_that_nothing_here_can_use(audio, output):
    harness.write_wav(audio / "a.wav")
    assert "cuda" in refused(3, "extract", harness.write_job(output, audio, TONE), "--devices", "cuda")
    assert not output.exists()


def test_no_audio(audio, output):
    (audio / "notes.txt").write_text("no audio")
    job = harness.write_job(output, audio, TONE)
    assert "no audio found" in refused(2, "extract", job)
    audio.rename(audio.with_name("gone"))
    assert "does not exist" in refused(2, "extract", job)
    assert not output.exists()


def test_an_abbreviated_flag_is_not_guessed():
    done = harness.consort("extract", "--aud", "x")
    assert done.returncode == 2 and "--aud" in done.stderr
