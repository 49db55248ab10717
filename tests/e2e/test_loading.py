"""What a job has written, as a user's script reads it."""

import harness
import numpy as np
import pytest

import orchestrator


def test_a_run_is_loaded_by_any_of_its_outputs(audio, output):
    for name, seconds in (("a.wav", 1.0), ("b.wav", 1.0), ("c.wav", 0.5)):
        harness.write_wav(audio / name, seconds=seconds)
    pooled = {**harness.TONE, "name": "pooled", "pooling": "mean"}
    peaks = {**harness.TONE, "name": "peaks", "outputs": ["peak"]}
    both = {**harness.TONE, "outputs": ["level", "peak"]}
    done = harness.consort("extract", harness.write_job(output, audio, pooled, peaks, both))
    assert done.returncode == 0, done.stderr
    run = orchestrator.load(output)
    title, _, *rows = repr(run).splitlines()
    assert title == f"run {output}: 12 arrays of 3 items"
    assert [row.split()[:3] for row in rows] == [
        ["peaks", "peak", "3"], ["pooled", "level", "3"], ["tone", "level", "3"], ["tone", "peak", "3"],
    ]  # fmt: skip
    assert all(len(column) == 12 for column in run.table().values())
    np.testing.assert_array_equal(run.array("peaks", "a.wav"), run.array("tone.peak", "a.wav"))
    matrix = run.matrix("pooled")
    assert matrix.values.shape == (3, 2) and matrix.items == ["a.wav", "b.wav", "c.wav"]
    lengths = r"tone: arrays of different lengths, \(10, 2\) of 'a.wav', \(5, 2\) of 'c.wav'; set `pooling: mean` if"
    with pytest.raises(ValueError, match=lengths):
        run.matrix("tone")
    with pytest.raises(FileNotFoundError, match=f"; load {output}\\Z"):
        orchestrator.load(output / "tone")
