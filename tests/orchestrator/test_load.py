"""Reading what a job has written."""

import json
import os
import pathlib
import warnings

import numpy as np
import pytest

import orchestrator

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


ACTIVATION = {"output": "activation", "path": "crepe.activation/a.npy"}
SUMMARY = {"output": "summary", "path": "crepe.summary/a.npy", "axes": ["feature"], "frame_rate": None}


def test_without_the_primary_output_the_only_one_is_taken_and_of_several_one_must_be_named(write):
    run = write((PITCH, ACTIVATION))
    np.testing.assert_array_equal(run.array("crepe", "a.wav"), PITCH)
    run = write((PITCH, ACTIVATION), (PITCH[0], SUMMARY))
    with pytest.raises(KeyError, match=r"no primary output .* name one of crepe.activation, crepe.summary"):
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
        np.zeros((0, 2), np.float32),
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


def test_without_a_run_one_line_says_where_one_is(write, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"\A[^\n]* holds no run [^\n]* load the `output` of a job that has run\Z"
    ):
        orchestrator.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"\Athere is no [^\n]*/absent; load"):
        orchestrator.load(tmp_path / "absent")
    write((PITCH, {}))
    for place in (tmp_path / "crepe", tmp_path / "manifest.jsonl", tmp_path / "crepe" / "a.npy"):
        with pytest.raises(FileNotFoundError, match=f"; load {tmp_path}\\Z"):
            orchestrator.load(place)
    (tmp_path / "crepe").rename(tmp_path / "above")
    (tmp_path / "manifest.jsonl").rename(tmp_path / "above" / "manifest.jsonl")
    with pytest.raises(FileNotFoundError, match=f"; load {tmp_path / 'above'}\\Z"):
        orchestrator.load(tmp_path)


def test_a_run_that_has_not_ended_is_told_from_none(tmp_path):
    (tmp_path / ".consort").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has not come to its end.* see `consort status .*`"):
        orchestrator.load(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"item": "a.wav"}', "\xff"])
def test_a_damaged_manifest_is_named_with_its_line(write, tmp_path, line):
    write((PITCH, {}))
    with open(tmp_path / "manifest.jsonl", "a", encoding="latin-1") as f:
        f.write(line + "\n")
    with pytest.raises(ValueError, match=r"manifest.jsonl is (damaged in line 2|no text); restore it"):
        orchestrator.load(tmp_path)


def test_a_manifest_that_was_cut_short_keeps_its_other_lines(write, tmp_path):
    write((PITCH, {}), (PITCH, {"item": "b.wav", "path": "crepe/b.npy"}))
    whole = (tmp_path / "manifest.jsonl").read_text("ascii")
    (tmp_path / "manifest.jsonl").write_text(whole[:-20], "ascii")
    with pytest.warns(UserWarning, match="manifest.jsonl ends in the middle of line 2; run its job again"):
        run = orchestrator.load(tmp_path)
    assert run.items("crepe") == ["a.wav"]


@pytest.mark.parametrize("path", ["../secret.npy", "crepe/../../secret.npy", "{}/secret.npy", "crepe//../secret.npy"])
def test_a_path_of_the_manifest_that_leads_out_is_not_followed(write, tmp_path, path):
    np.save(tmp_path.parent / "secret.npy", PITCH)
    write((PITCH, {}))
    text = (tmp_path / "manifest.jsonl").read_text("ascii")
    text = text.replace("crepe/a.npy", path.format(tmp_path.parent))
    (tmp_path / "manifest.jsonl").write_text(text, "ascii")
    run = orchestrator.load(tmp_path)
    with pytest.raises(ValueError, match="leads out of the output folder, and is not followed"):
        run.array("crepe", "a.wav", "pitch")


def test_a_link_that_leads_out_is_not_followed_but_one_inside_is(write, tmp_path):
    run = write((PITCH, {}), (PITCH, {"item": "b.wav", "path": "crepe/b.npy"}))
    outside = tmp_path.parent / "outside"
    (tmp_path / "crepe").rename(outside)
    (tmp_path / "crepe").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out"):
        run.array("crepe", "a.wav")
    (tmp_path / "crepe").unlink()
    (tmp_path / "crepe").mkdir()
    (tmp_path / "crepe" / "a.npy").symlink_to(outside / "a.npy")
    (tmp_path / "store").mkdir()
    (outside / "b.npy").rename(tmp_path / "store" / "b.npy")
    (tmp_path / "crepe" / "b.npy").symlink_to(tmp_path / "store" / "b.npy")
    with pytest.raises(ValueError, match="leads out"):
        run.array("crepe", "a.wav")
    np.testing.assert_array_equal(run.array("crepe", "b.wav"), PITCH)


def test_what_is_gone_or_no_file_is_told_in_one_line(write, tmp_path):
    run = write((PITCH, {}))
    (tmp_path / "crepe" / "a.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"a.npy is not there, though the manifest names it; run its job again"):
        run.array("crepe", "a.wav")
    os.mkfifo(tmp_path / "crepe" / "a.npy")  # would be waited for
    with pytest.raises(ValueError, match="is no file; remove it"):
        run.array("crepe", "a.wav")
    (tmp_path / "crepe" / "a.npy").unlink()
    (tmp_path / "crepe" / "a.npy").symlink_to("a.npy")  # leads to itself
    with pytest.raises(ValueError, match="is no file; remove it"):
        run.array("crepe", "a.wav")


def test_nothing_is_unpickled(write, tmp_path):
    run = write((PITCH, {}))
    np.save(tmp_path / "crepe" / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a.npy is not what its record says; `consort verify"):
        run.array("crepe", "a.wav")


@pytest.mark.parametrize("values", [PITCH.astype("float64"), PITCH[:1], PITCH.astype(complex)], ids=str)
def test_an_array_that_is_not_what_its_record_says_is_refused(write, tmp_path, values):
    run = write((PITCH, {}))
    np.save(tmp_path / "crepe" / "a.npy", values)
    with pytest.raises(ValueError, match="is not what its record says"):
        run.array("crepe", "a.wav")


@pytest.mark.parametrize(
    "change", [{"item": 5}, {"shape": "x"}, {"axes": 5}, {"window": "a"}, {"frame_rate": 0}, {"flags": 5}], ids=str
)
def test_fields_of_other_types_are_damage(write, tmp_path, change):
    write((PITCH, {}))
    line = json.loads((tmp_path / "manifest.jsonl").read_text("ascii"))
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**line, **change}) + "\n", "ascii")
    with pytest.raises(ValueError, match="damaged in line 1"):
        orchestrator.load(tmp_path)


def test_items_that_the_last_run_was_not_about_are_warned_of(write, tmp_path):
    run = write((PITCH[0], {"axes": ["feature"]}), (PITCH[0], {"item": "b.wav", "path": "crepe/b.npy"}))
    folder = tmp_path / ".consort" / "runs" / "20260101-1"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text('{"models": [{"name": "crepe"}]}', "ascii")
    (folder / "items.jsonl").write_text('{"id": "b.wav", "name": "b", "labels": {}}\n', "ascii")
    with pytest.warns(UserWarning, match=r"crepe: 1 of 2 items are not of its last run, such as 'a.wav'"):
        run.arrays("crepe")


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


def test_windows_of_an_item_come_back_as_one_array(write):
    def one(number):
        path = f"latents/a_frag{number}.txt"
        return PITCH + number, {"model": "latents", "path": path, "window": number, "windows": 2}

    run = write(one(0), one(1))
    assert run.items("latents") == ["a.wav"]
    np.testing.assert_array_equal(run.array("latents", "a.wav"), np.stack([PITCH, PITCH + 1]))
    assert run.record("latents", "a.wav", window=1)["path"] == "latents/a_frag1.txt"
