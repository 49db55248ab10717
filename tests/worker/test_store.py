import errno
import hashlib
import io
import os
import re

import numpy as np
import pytest

from worker.errors import ArrayError, NotFiniteError, OutputError
from worker.extractor import Output
from worker.work import store

FRAMES = Output("pitch", ("time", "feature"), (None, 2), "", varies=True)
VECTOR = Output("beats", ("time",), (None,), "")
STACK = Output("layers", ("layer", "time", "feature"), (None, None, 3), "")


EVENTS = Output("beat_times", ("beat", "feature"), (None, 2), "", events=True)


def frames(*shape):
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


def files(folder):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(str(folder)) for name in names)


def fail(root, path="m/a.npy", data=b"x", tag="t-1"):
    with pytest.raises(OutputError) as caught:
        store.write(str(root), path, data, tag)
    assert str(caught.value.strerror).startswith("cannot write " + path)
    return caught.value


@pytest.mark.parametrize(
    "arguments,path",
    [
        (("crepe", "pitch", True, "a/b", "npy"), "crepe/a/b.npy"),
        (("crepe", "activation", False, "a/b", "npz"), "crepe.activation/a/b.npz"),
        (("x", "y", True, "a.wav", "txt"), "x/a.wav.txt"),
    ],
)
def test_path_of_an_array(arguments, path):
    assert store.relative_path(*arguments) == path


ARRAYS = [frames(3, 2), frames(4), np.arange(6, dtype=np.int16).reshape(2, 3), frames(2, 2).astype(np.float16)]


@pytest.mark.parametrize("array", ARRAYS + [frames(2, 3, 4), np.asfortranarray(frames(3, 2)), frames(6, 2)[::2]])
def test_npy_holds_the_array_in_c_order_without_pickle(array):
    data = store.encode(array, "npy")
    found = np.load(io.BytesIO(data), allow_pickle=False)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.flags.c_contiguous
    assert data == store.encode(array.copy(), "npy")


def test_objects_are_never_pickled():
    for fmt in ("npy", "npz"):
        with pytest.raises(ArrayError, match="Python objects"):
            store.encode(np.array([{}], object), fmt)


@pytest.mark.parametrize("array", ARRAYS)
def test_npz_holds_values_and_no_time(array, monkeypatch):
    data = store.encode(array, "npz")
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        assert found.files == ["values"]
        np.testing.assert_array_equal(found["values"], array)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert store.encode(array, "npz") == data


@pytest.mark.parametrize("array", ARRAYS)
def test_txt_is_read_back_exactly(array):
    data = store.encode(array, "txt")
    found = np.loadtxt(io.StringIO(data.decode("ascii")), delimiter=",", ndmin=array.ndim)
    np.testing.assert_array_equal(found.astype(array.dtype), array)
    assert data.count(b"\n") == (len(array) if array.ndim == 2 else 1)


def test_txt_is_spelled_the_same_everywhere():
    rows = np.array([[0.1, -1.0], [1e-30, 3e9]], np.float32)
    assert store.encode(rows, "txt") == b"0.100000001,-1\n1e-30,3e+09\n"


def test_txt_has_two_axes_at_most():
    with pytest.raises(ArrayError, match="format txt holds at most two axes, this array has 3"):
        store.encode(frames(2, 2, 2), "txt")


REFUSED = [
    (FRAMES, frames(5, 3), False, "pitch has shape .5, 3., declared .None, 2."),
    (FRAMES, frames(5), False, r"pitch has shape .5,., declared axes .'time', 'feature'."),
    (FRAMES, frames(1, 5, 2), False, "declared axes"),
    (FRAMES, frames(0, 2), False, "pitch is empty"),
    (FRAMES, np.full((5, 2), 7, np.float32), False, "the same value everywhere although the audio is audible"),
    (FRAMES, frames(5, 2), True, "pitch has shape .5, 2., declared axes .'feature'."),
    (VECTOR, frames(5, 1), True, "declared axes"),
    (VECTOR, np.float32(1), True, "declared axes"),
    (STACK, frames(2, 5, 4), False, "declared"),
    (EVENTS, frames(0, 3), False, "declared"),
]


@pytest.mark.parametrize("output,values,pooled,words", REFUSED)
def test_array_that_was_not_declared_so_is_refused(output, values, pooled, words):
    with pytest.raises(ArrayError, match=words):
        store.check(output, values, pooled, True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pooled", [False, True])
def test_values_that_are_not_finite_have_their_own_error(bad, pooled):
    values = frames(5, 2)
    values[3, 1] = bad
    with pytest.raises(NotFiniteError, match="pitch has values that are not finite"):
        store.check(FRAMES, values[3] if pooled else values, pooled, True)


@pytest.mark.parametrize(
    "output,values,pooled,audible",
    [
        (FRAMES, frames(5, 2), False, True),
        (FRAMES, frames(4), True, True),  # mean+std
        (FRAMES, np.zeros((5, 2), np.float32), False, False),
        (VECTOR, frames(5), False, True),
        (VECTOR, frames(1), True, True),
        (VECTOR, np.ones(5, np.float32), False, True),
        (STACK, frames(2, 3), True, True),
        (EVENTS, frames(0, 2), False, True),
        (Output("codes", ("codebook", "time"), (8, None), "", "int16"), np.ones((8, 3), np.int16), False, True),
    ],
)
def test_array_as_declared_passes(output, values, pooled, audible):
    store.check(output, values, pooled, audible)


def test_file_has_its_name_only_after_the_commit(tmp_path):
    stored = store.write(str(tmp_path), "m/a/b.npy", b"data", "s.1-1")
    (part,) = files(tmp_path)
    assert re.fullmatch(r"\.s\.1-1\.[0-9a-f]{16}\.part", os.path.basename(part))
    assert (stored.sha256, stored.bytes) == (hashlib.sha256(b"data").hexdigest(), 4)
    store.commit([stored])
    assert files(tmp_path) == [str(tmp_path / "m/a/b.npy")]
    assert (tmp_path / "m/a/b.npy").read_bytes() == b"data"


def test_commit_replaces_an_older_file(tmp_path):
    for data in (b"old", b"new"):
        stored = store.write(str(tmp_path), "m/a.npy", data, "t")
        store.commit([stored])
    assert (tmp_path / "m/a.npy").read_bytes() == b"new"


def test_discarded_file_leaves_the_older_one(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"old")
    store.discard([store.write(str(tmp_path), "a.npy", b"new", "t")] * 2)
    assert files(tmp_path) == [str(tmp_path / "a.npy")]
    assert (tmp_path / "a.npy").read_bytes() == b"old"


def test_full_disk_leaves_nothing(tmp_path, full_disk):
    full_disk()
    assert fail(tmp_path).errno == errno.ENOSPC
    assert os.listdir(str(tmp_path / "m")) == []


@pytest.mark.parametrize("name", ["n" * 252, "n" * 300 + "/a", "d/" + "ü" * 126])
def test_name_that_is_too_long_fails_before_the_commit(tmp_path, name):
    assert fail(tmp_path, "m/{}.npy".format(name)).errno == errno.ENAMETOOLONG
    assert files(tmp_path) == []
    store.commit([store.write(str(tmp_path), "m/{}.npy".format("n" * 251), b"", "t")])


def test_name_of_a_folder_fails_before_the_commit(tmp_path):
    (tmp_path / "m/a.npy").mkdir(parents=True)
    assert fail(tmp_path).errno == errno.EISDIR
    assert files(tmp_path) == []


@pytest.mark.parametrize("place", ["m", ""])
def test_file_in_the_place_of_a_folder(tmp_path, place):
    (tmp_path / "out").joinpath("").mkdir() if place else None
    (tmp_path / "out" / place).write_bytes(b"mine")
    assert fail(tmp_path / "out").errno in (errno.EEXIST, errno.ENOTDIR)
    assert (tmp_path / "out" / place).read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    assert fail(tmp_path).errno == errno.EACCES
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("path", ["m/a.npy", "m/deep/er/a.npy"])
@pytest.mark.parametrize("target", ["../elsewhere", "other", "{}/elsewhere"])
def test_link_below_the_output_folder_is_refused(tmp_path, path, target):
    (tmp_path / "out/other").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/m").symlink_to(target.format(tmp_path))
    assert fail(tmp_path / "out", path).strerror.endswith("m is a link, and none is followed there")
    assert os.listdir(str(tmp_path / "elsewhere")) == os.listdir(str(tmp_path / "out/other")) == []


def test_link_deeper_inside_is_refused(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/deep").symlink_to("..")
    assert fail(tmp_path, "m/deep/a.npy").strerror.endswith("m/deep is a link, and none is followed there")


def test_link_to_the_output_folder_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    store.commit([store.write(str(tmp_path / "out"), "m/a.npy", b"x", "t")])
    assert (tmp_path / "real/m/a.npy").read_bytes() == b"x"


def test_link_in_the_place_of_an_array_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/a.npy").symlink_to(tmp_path / "precious")
    store.commit([store.write(str(tmp_path), "m/a.npy", b"x", "t")])
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert (tmp_path / "m/a.npy").read_bytes() == b"x"


def test_commit_that_fails_leaves_no_temporary_files(tmp_path):
    stored = [store.write(str(tmp_path), "m{}/a.npy".format(n), b"x", "t") for n in range(3)]
    (tmp_path / "m1/a.npy").mkdir()
    with pytest.raises(OutputError, match="cannot finish an array: "):
        store.commit(stored)
    assert files(tmp_path) == [str(tmp_path / "m0/a.npy")]
