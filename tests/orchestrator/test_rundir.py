"""The paths of an output folder, its lock, and files that change all at once."""

import os
import pathlib

import pytest

from orchestrator import files
from orchestrator.errors import RunFailed
from orchestrator.output.folder import OutputDir


def test_creating_twice_is_no_error(tmp_path):
    output = OutputDir(tmp_path / "deep" / "out")
    output.create()
    output.create()
    assert all(folder.is_dir() for folder in (output.records, output.contexts, output.scratch, output.runs))


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed, match="choose another folder"):
        OutputDir(tmp_path / name).create()


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    output, other = OutputDir(tmp_path), OutputDir(tmp_path)
    output.create()
    with output.lock(), pytest.raises(RunFailed, match="another run is writing here"), other.lock():
        pass
    with other.lock():
        pass


def test_a_lock_that_cannot_be_written_is_one_clear_error(tmp_path):
    output = OutputDir(tmp_path)
    output.create()
    (output.inner / "lock").mkdir()
    with pytest.raises(RunFailed, match="choose another folder"), output.lock():
        pass


def test_runs_sort_by_age_and_the_last_one_with_a_plan_counts(tmp_path):
    output = OutputDir(tmp_path)
    assert output.last_run() is None
    runs = [output.new_run() for _ in range(20)]
    assert output.last_run() is None
    assert len({run.id for run in runs}) == 20
    times = [run.id.rpartition("-")[0] for run in runs]
    assert times == sorted(times)
    runs[0].plan.write_text("{}")
    assert output.last_run().id == runs[0].id
    assert runs[0].logs.is_dir() and runs[0].log("x.1") == runs[0].logs / "x.1.log"


def test_replacing_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    files.replace(path, "old")

    def full(source, target):
        assert pathlib.Path(source).read_text() == "new"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(RunFailed, match=r"cannot write f\.json: No space left on device"):
            files.replace(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.json"]
    files.replace(path, "new")
    assert path.read_text() == "new"
