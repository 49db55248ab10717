"""Arrays of a run side by side: joined, stacked, as a table; and what is said of those that cannot be."""

import json
import pathlib

import numpy as np
import pytest

PITCH = np.arange(6, dtype=np.float32).reshape(3, 2)
ACTIVATION = {"output": "activation", "path": "crepe.activation/a.npy"}
SUMMARY = {"output": "summary", "path": "crepe.summary/a.npy", "axes": ["feature"], "frame_rate": None}


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


def frames(model, item, count, **changes):
    """Return `count` frames of two features, with their record."""
    path = f"{model}/{pathlib.PurePath(item).stem}.npy"
    return np.full((count, 2), count, np.float32), {"model": model, "item": item, "path": path, **changes}


def test_frames_are_stacked_and_joined_where_they_agree_in_number(write):
    run = write(*(frames(model, item, 3) for model in ("crepe", "pesto") for item in ("a.wav", "b.wav")))
    assert run.matrix("crepe").values.shape == (2, 3, 2)
    assert run.matrix("crepe", "pesto").values.shape == (2, 3, 4)
    assert run.combined("a.wav", ["crepe", "pesto"]).shape == (3, 4)
    run = write(frames("crepe", "a.wav", 3), frames("crepe", "b.wav", 3), frames("pesto", "a.wav", 2))
    with pytest.raises(ValueError, match=r"crepe of 'a.wav' has shape \(3, 2\)"):
        run.combined("a.wav", ["crepe", "pesto"])


PITCHES = [frames("crepe", "a.wav", 3, output="pitch"), frames("crepe", "b.wav", 2, output="pitch")]


@pytest.mark.parametrize(
    ("entries", "advice"),
    [
        (PITCHES + [(PITCH[0], SUMMARY)], r"crepe.summary is one vector per item"),
        ([frames("mert", "a.wav", 3, output="embedding"), frames("mert", "b.wav", 2, output="embedding")],
         r"set `pooling: mean` of mert and run the job again"),
        ([frames("prosody", "a.wav", 3, output="voiced"), frames("prosody", "b.wav", 2, output="voiced")],
         r"set `outputs: \[voiced, embedding\]` of prosody and run the job again: embedding is one vector"),
        ([frames("mine", "a.wav", 3), frames("mine", "b.wav", 2)],
         r"set `pooling: mean` if mine takes it; `arrays\('mine.pitch'\)` gives them one by one"),
    ],
)  # fmt: skip
def test_frames_that_make_no_matrix_are_refused_with_what_works(write, entries, advice):
    run = write(*entries)
    model = entries[0][1]["model"]
    shapes = r"arrays of different lengths, \(3, 2\) of 'a.wav', \(2, 2\) of 'b.wav'; "
    with pytest.raises(ValueError, match=f"{model}: {shapes}{advice}"):
        run.matrix(model)


def test_the_time_of_values_is_not_joined_to_features(write):
    beats = (PITCH[:, 0], {"model": "madmom", "output": "beats", "path": "madmom/a.npy", "axes": ["time"]})
    run = write(beats, vector("mert"))
    with pytest.raises(ValueError, match=r"madmom of 'a.wav' has shape \(3,\)"):
        run.matrix("mert", "madmom")
    assert run.matrix("madmom").values.shape == (1, 3)


def test_a_run_prints_as_a_table(write):
    run = write(
        frames("crepe", "a.wav", 3, flags=["padded"]), frames("crepe", "b.wav", 2, flags=["padded", "silent"]),
        vector("mert", frame_rate=None), (PITCH, ACTIVATION),
    )  # fmt: skip
    title, header, *rows = repr(run).splitlines()
    assert title == f"run {run.root}: 4 arrays of 2 items"
    assert header.split() == ["model", "output", "arrays", "shape", "type", "frames/s", "flags"]
    assert [row.split() for row in rows] == [
        ["crepe", "activation", "1", "[3,", "2]", "float32", "100"],
        ["crepe", "pitch", "2", "[time,", "2]", "float32", "100", "padded", "2,", "silent", "1"],
        ["mert", "pitch", "1", "[3]", "float32"],
    ]


def test_the_table_of_a_run_is_a_dict_of_columns(write):
    run = write((PITCH, {}), vector("mert", "b.wav"))
    columns = run.table()
    assert {len(column) for column in columns.values()} == {2}
    assert columns["item"] == ["a.wav", "b.wav"] and columns["model"] == ["crepe", "mert"]
    assert columns["shape"] == [[3, 2], [3]] and columns["window"] == [None, None]


def test_matrix_refuses_what_gives_no_rectangle(write):
    run = write(vector("mert"), vector("mert", "b.wav", size=4))
    with pytest.raises(ValueError, match="different lengths"):
        run.matrix("mert")
    with pytest.raises(ValueError, match="name one or more models; there are mert"):
        run.matrix()


def test_any_output_has_a_name(write):
    run = write((PITCH, {}), (PITCH * 2, ACTIVATION), (PITCH[0], SUMMARY), vector("mert"))
    np.testing.assert_array_equal(run.array("crepe.activation", "a.wav"), PITCH * 2)
    np.testing.assert_array_equal(run.arrays("crepe.activation")["a.wav"], PITCH * 2)
    assert len(run.times("crepe.activation", "a.wav")) == 3 and run.items("crepe.summary") == ["a.wav"]
    np.testing.assert_array_equal(run.matrix("mert", "crepe.summary").values, [[1, 1, 1, 0, 1]])
    np.testing.assert_array_equal(run.combined("a.wav", ["crepe.summary", "mert.absent", "mert"]), [0, 1, 1, 1, 1])
    with pytest.raises(KeyError, match=r"crepe has no loudness .* there are crepe.activation, crepe.pitch"):
        run.array("crepe.loudness", "a.wav")
