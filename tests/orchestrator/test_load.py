"""Reading what a job has written."""

import json
import pathlib
import warnings

import numpy as np
import pytest

import orchestrator
from worker import protocol, schema
from worker.work import store


@pytest.fixture
def write(tmp_path, record):
    """Return a writer of an output folder from (values, changes of the record)."""

    def write(*entries):
        lines = []
        for values, changes in entries:
            entry = record(shape=list(values.shape), dtype=values.dtype.name, **changes)
            path = tmp_path / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.encode(values, path.suffix[1:]))
            lines.append(protocol.canonical(schema.dump(entry)) + "\n")
        (tmp_path / "manifest.jsonl").write_text("".join(lines), "ascii")
        return orchestrator.load(tmp_path)

    return write


PITCH = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_arrays_by_model_and_item(write):
    run = write((PITCH, {}), (PITCH + 1, {"item": "b.wav", "path": "crepe/b.npy"}))
    assert run.models == ["crepe"] and run.items("crepe") == ["a.wav", "b.wav"]
    np.testing.assert_array_equal(run.array("crepe", "a.wav"), PITCH)
    assert {item: array.sum() for item, array in run.arrays("crepe").items()} == {"a.wav": 15, "b.wav": 21}


def test_the_primary_output_is_taken_unless_another_is_named(write):
    other = {"output": "activation", "path": "crepe.activation/a.npy"}
    run = write((PITCH * 2, other), (PITCH, {}))
    np.testing.assert_array_equal(run.array("crepe", "a.wav"), PITCH)
    np.testing.assert_array_equal(run.array("crepe", "a.wav", "activation"), PITCH * 2)
    assert run.items("crepe", "activation") == ["a.wav"]


def test_without_the_primary_output_one_must_be_named(write):
    run = write((PITCH, {"output": "activation", "path": "crepe.activation/a.npy"}))
    assert run.array("crepe", "a.wav", "activation").shape == (3, 2)
    with pytest.raises(KeyError, match=r"no primary output .* name one of activation"):
        run.array("crepe", "a.wav")


@pytest.mark.parametrize("fmt", ["npy", "npz", "txt"])
@pytest.mark.parametrize(
    "values",
    [
        PITCH,
        PITCH[:1],
        PITCH[:, :1],
        PITCH[0],
        np.array([0.1], np.float32),
        np.array([[1.5e-38, 3.4e38]], np.float32),
        np.array([0, 1, 1], np.uint8),
        np.array([[7, -300]], np.int16),
        np.array([0.25, 3], np.float16),
    ],
    ids=lambda values: f"{values.dtype}{list(values.shape)}",
)
def test_every_format_gives_back_the_same_array(write, fmt, values):
    run = write((values, {"path": f"crepe/a.{fmt}"}))
    found = run.array("crepe", "a.wav")
    assert found.dtype == values.dtype and found.shape == values.shape
    np.testing.assert_array_equal(found, values)


def test_times_are_the_centres_of_the_frames(write):
    run = write((PITCH, {"frame_rate": 100.0, "start": 0.032}))
    np.testing.assert_allclose(run.times("crepe", "a.wav"), [0.032, 0.042, 0.052])


def test_times_follow_the_axis_called_time(write):
    run = write((PITCH, {"axes": ["codebook", "time"], "frame_rate": 2.0}))
    np.testing.assert_allclose(run.times("crepe", "a.wav"), [0, 0.5])


def test_a_pooled_array_has_no_times(write):
    run = write((PITCH[0], {"axes": ["feature"], "frame_rate": None, "start": None}))
    with pytest.raises(ValueError, match=r"crepe of 'a.wav' has no time axis; it was pooled"):
        run.times("crepe", "a.wav")


def test_what_is_not_there_is_named_with_what_is(write):
    run = write((PITCH, {}))
    with pytest.raises(KeyError, match=r"no model 'mert' in .*; there are crepe"):
        run.array("mert", "a.wav")
    with pytest.raises(KeyError, match=r"crepe has no pitch of 'c.wav'; it has a.wav"):
        run.array("crepe", "c.wav")
    with pytest.raises(KeyError, match="crepe has no loudness"):
        run.array("crepe", "a.wav", "loudness")


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(FileNotFoundError):
        orchestrator.load(tmp_path)


def test_nothing_is_unpickled(write, tmp_path):
    run = write((PITCH, {}))
    np.save(tmp_path / "crepe" / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        run.array("crepe", "a.wav")


def test_labels_are_those_of_the_newest_run(write, tmp_path):
    run = write((PITCH, {}))
    for name, label in (("20260101-1", "old"), ("20260102-1", "new")):
        folder = tmp_path / ".consort" / "runs" / name
        folder.mkdir(parents=True)
        line = {"id": "a.wav", "name": "a", "labels": {"genre": label}}
        (folder / "items.jsonl").write_text(json.dumps(line) + "\n", "ascii")
    assert run.labels("a.wav") == {"genre": "new"}
    assert run.labels("other.wav") == {}


def test_a_real_run_can_be_read_where_it_was_moved(prepare, work, tmp_path):
    work(prepare())
    (tmp_path / "out").rename(tmp_path / "moved")
    run = orchestrator.load(tmp_path / "moved")
    assert run.items("prosody") == ["a.wav", "b.wav", "deep/c.wav"]
    assert pathlib.Path(run.root, run.record("prosody", "deep/c.wav")["path"]).is_file()


@pytest.mark.parametrize(("other", "told"), [({"params": {"viterbi": False}}, True), ({"worker": "newer"}, False)])
def test_arrays_of_different_settings_are_told_but_not_those_of_different_machines(write, tmp_path, other, told):
    contexts = tmp_path / ".consort" / "contexts"
    contexts.mkdir(parents=True)
    base = {"extractor": "crepe", "version": 1, "params": {"viterbi": True}, "worker": "older"}
    (contexts / "one.json").write_text(json.dumps(base))
    (contexts / "two.json").write_text(json.dumps({**base, **other}))
    run = write((PITCH, {"context": "one"}), (PITCH, {"item": "b.wav", "path": "crepe/b.npy", "context": "two"}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(run.arrays("crepe")) == 2
    assert [("different parameters" in str(w.message)) for w in caught] == ([True] if told else [])


def vector(model, item="a.wav", size=3, value=1.0, **changes):
    """Return one pooled array with what its record says."""
    values = np.full(size, value, np.float32)
    path = f"{model}/{pathlib.PurePath(item).stem}.npy"
    return values, {"model": model, "item": item, "path": path, "axes": ["feature"], "frame_rate": None, **changes}


def test_combined_joins_in_the_order_of_the_document_and_leaves_absent_models_out(write):
    run = write(vector("musicnn", value=3.0), vector("mert", value=2.0, size=2), vector("mert", "b.wav", size=2))
    np.testing.assert_array_equal(run.combined("a.wav"), [2, 2, 3, 3, 3])
    np.testing.assert_array_equal(run.combined("b.wav"), [1, 1])
    np.testing.assert_array_equal(run.combined("a.wav", ["musicnn", "mert"]), [3, 3, 3, 2, 2])


def test_combined_of_an_unknown_item_or_of_frames_says_so(write):
    run = write(vector("musicnn"), (PITCH, {"model": "mert", "path": "mert/a.npy"}))
    with pytest.raises(KeyError, match=r"none of encodecmae, mert, musicnn has 'x.wav'"):
        run.combined("x.wav")
    with pytest.raises(ValueError, match=r"mert of 'a.wav' has shape \(3, 2\); set `pooling: mean`"):
        run.combined("a.wav")


def test_matrix_has_a_row_for_every_item_that_all_models_have(write, tmp_path):
    run = write(vector("mert", "b.wav", value=2.0), vector("mert", value=1.0), vector("musicnn", "b.wav", size=2))
    folder = tmp_path / ".consort" / "runs" / "1"
    folder.mkdir(parents=True)
    (folder / "items.jsonl").write_text(json.dumps({"id": "b.wav", "labels": {"genre": "folk"}}) + "\n", "ascii")
    one, both = run.matrix("mert"), run.matrix("mert", "musicnn")
    assert one.items == ["b.wav", "a.wav"] and one.labels == [{"genre": "folk"}, {}]  # as in the manifest
    np.testing.assert_array_equal(one.values, [[2, 2, 2], [1, 1, 1]])
    assert both.items == ["b.wav"] and both.values.shape == (1, 5)


def test_matrix_refuses_what_gives_no_rectangle(write):
    run = write(vector("mert"), vector("mert", "b.wav", size=4))
    with pytest.raises(ValueError, match="different lengths"):
        run.matrix("mert")
    with pytest.raises(ValueError, match="name one or more models; there are mert"):
        run.matrix()


def test_windows_of_an_item_come_back_as_one_array(write):
    def one(number):
        path = f"latents/a_frag{number}.txt"
        return PITCH + number, {"model": "latents", "path": path, "window": number, "windows": 2}

    run = write(one(0), one(1))
    assert run.items("latents") == ["a.wav"]
    np.testing.assert_array_equal(run.array("latents", "a.wav"), np.stack([PITCH, PITCH + 1]))
    assert run.record("latents", "a.wav", window=1)["path"] == "latents/a_frag1.txt"
