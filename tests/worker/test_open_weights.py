"""Weights that a process has open are what was hashed, wherever their names lead by now."""

import hashlib
import os

import pytest

from worker.errors import WeightsChanged
from worker.work import weights as module
from worker.work.weights import OpenWeights

A, B = b"a" * 100, b"b" * 100


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "w.bin"
    made.write_bytes(A)
    return made


@pytest.fixture
def opened(path):
    """The file as a model's, and where that finds it."""
    weights = OpenWeights()
    files = weights.open("m", {"w.bin": str(path)}, {"w.bin": hashlib.sha256(A).hexdigest()})
    yield weights, files["w.bin"]
    weights.close()


def read(place):
    with open(place, "rb") as f:
        return f.read()


def replace(path, content):
    other = path.with_name("other")
    other.write_bytes(content)
    os.replace(str(other), str(path))


def test_a_file_that_another_takes_the_place_of_is_still_read(opened, path):
    weights, place = opened
    replace(path, B)
    weights.refuse_changed("m")
    assert read(place) == A


def test_a_file_that_is_only_touched_is_the_same(opened, path):
    weights, _ = opened
    os.utime(str(path), ns=(1, 1))
    path.chmod(0o600)
    weights.refuse_changed("m")


def test_a_file_that_is_written_to_is_refused_by_the_name_that_its_user_knows(opened, path):
    weights, place = opened
    with path.open("r+b") as f:
        f.write(b"b")
    with pytest.raises(WeightsChanged) as caught:
        weights.refuse_changed("m")
    assert str(path) in str(caught.value) and place not in str(caught.value)
    assert weights.say("{}: is damaged".format(place)) == "{}: is damaged".format(path)


def test_where_descriptors_have_no_names_the_path_must_stay(tmp_path, path, monkeypatch):
    monkeypatch.setattr(module, "_DESCRIPTORS", str(tmp_path / "none"))
    weights = OpenWeights()
    place = weights.open("m", {"w.bin": str(path)}, {"w.bin": hashlib.sha256(A).hexdigest()})["w.bin"]
    assert read(place) == A
    weights.refuse_changed("m")
    replace(path, A)  # what was read since may have been another one
    with pytest.raises(WeightsChanged):
        weights.refuse_changed("m")
    weights.close()
