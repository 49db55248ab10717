"""From a table with labels to arrays in a notebook."""

import harness
import numpy as np
import pytest
from harness import TONE

import orchestrator


def test_a_table_with_labels_comes_back_beside_the_arrays(audio, output):
    harness.write_wavs(audio, 3, seconds=1.0)
    harness.write_wav(audio / "not_listed.wav")
    (audio / "table.csv").write_text('path,genre,id\ngood_01.wav,folk,7\ngood_00.wav,"jazz, free",8\n')
    job = harness.write_job(output, audio / "table.csv", {**TONE, "outputs": ["level", "peak"]})
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr

    run = orchestrator.load(output)
    assert run.models == ["tone"]
    assert run.items("tone") == ["good_00.wav", "good_01.wav"]
    level = run.array("tone", "good_01.wav")
    assert level.shape == (10, 2) and level.dtype == np.float32
    np.testing.assert_allclose(level[:, 0], 0.5 / np.sqrt(2), rtol=1e-3)
    assert {item: a.shape for item, a in run.arrays("tone", "peak").items()} == dict.fromkeys(run.items("tone"), (10,))
    np.testing.assert_allclose(run.times("tone", "good_01.wav"), 0.05 + np.arange(10) / 10)
    assert run.labels("good_00.wav") == {"genre": "jazz, free", "id": "8"}
    assert run.labels("not_listed.wav") == {}


@pytest.mark.parametrize(("how", "shape"), [("mean", (2,)), ("mean+std", (4,))])
def test_pooled_arrays_have_no_times(how, shape, audio, output):
    harness.write_wavs(audio, 1)
    job = harness.write_job(output, audio / "good_00.wav", {**TONE, "pooling": how, "format": "npz"})
    assert harness.consort("extract", job).returncode == 0
    run = orchestrator.load(output)
    assert run.array("tone", "good_00.wav").shape == shape
    with pytest.raises(ValueError, match="no time axis"):
        run.times("tone", "good_00.wav")


@pytest.mark.parametrize("form", ["npy", "npz", "txt"])
def test_every_format_reads_back_the_same_numbers(form, audio, output):
    harness.write_wavs(audio, 1)
    for name in ("npy", form):
        job = harness.write_job(output.with_name(name), audio, {**TONE, "format": name})
        assert harness.consort("extract", job).returncode == 0
    first, second = (orchestrator.load(output.with_name(n)).array("tone", "good_00.wav") for n in ("npy", form))
    np.testing.assert_array_equal(first, second)


def test_the_same_model_twice_under_two_names(audio, output):
    harness.write_wavs(audio, 2)
    louder = {**TONE, "name": "louder", "params": {"gain": 2.0}}
    assert harness.consort("extract", harness.write_job(output, audio, TONE, louder)).returncode == 0
    run = orchestrator.load(output)
    np.testing.assert_allclose(run.array("louder", "good_01.wav"), 2 * run.array("tone", "good_01.wav"), rtol=1e-6)


def test_flags_alone_are_a_job(audio, output):
    harness.write_wavs(audio, 1)
    done = harness.consort(
        "extract", "--audio_dir", audio, "--output_dir", output, "--models", "tone", "--device", "cpu",
        "--set", "tone.extractor=tone:Tone", "--set", f"plugins=[{harness.PLUGINS}]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert harness.written(output) == {("tone", "good_00.wav")}
