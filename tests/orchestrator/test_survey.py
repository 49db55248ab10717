"""Looking at a job reads each source once, and nothing it finds stops it."""

import os

import pytest

from orchestrator import files
from orchestrator.errors import RunFailed
from orchestrator.planning import look, survey
from orchestrator.text import size


@pytest.fixture
def hashed(monkeypatch):
    """Count the sources that are hashed."""
    seen = []
    real = files.sha256_of
    monkeypatch.setattr(
        look, "sha256_of", lambda path: (path.suffix == ".wav" and seen.append(path.name)) or real(path)
    )
    return seen


def test_a_source_is_hashed_only_when_size_or_time_changed(prepare, work, hashed, tmp_path):
    work(prepare())
    prepare()
    assert hashed == []  # not needed before the first run, and told by it afterwards
    os.utime(tmp_path / "audio/b.wav", ns=(5, 5))
    prepare()
    assert hashed == ["b.wav"]


def test_files_of_one_size_and_time_that_exchange_their_names_are_seen(prepare, work, hashed, tmp_path):
    for name in ("a.wav", "b.wav"):
        os.utime(tmp_path / "audio" / name, ns=(5, 5))
    work(prepare())
    for old, new in (("a.wav", "t"), ("b.wav", "a.wav"), ("t", "b.wav")):
        os.rename(tmp_path / "audio" / old, tmp_path / "audio" / new)
    assert [choice.states["prosody"] for choice in prepare().plan.choices] == ["reused", "reused", "done"]
    assert sorted(hashed) == ["a.wav", "b.wav"]


def test_what_had_to_be_read_again_is_kept_by_the_run(prepare, hashed, work, tmp_path):
    work(prepare())
    os.utime(tmp_path / "audio/b.wav", ns=(5, 5))
    surveyed = prepare()
    surveyed.keep(surveyed.output.new_run(), "venv")
    del hashed[:]
    prepare()
    assert hashed == []


def test_a_source_that_is_gone_is_still_an_item(prepare, work, tmp_path):
    (tmp_path / "list.txt").write_text("audio/a.wav\naudio/b.wav\n")
    job = {"audio": str(tmp_path / "list.txt")}
    work(prepare(**job))
    (tmp_path / "audio/a.wav").unlink()
    states = [choice.states for choice in prepare(**job).plan.choices]
    assert states == [{"prosody": "stale"}, {"prosody": "done"}]


def test_an_item_that_became_a_fifo_does_not_block(prepare, work, tmp_path):
    work(prepare())
    (tmp_path / "audio/a.wav").unlink()
    os.mkfifo(tmp_path / "audio/a.wav")
    assert [c.source.id for c in prepare().plan.chosen] == ["a.wav"]


def test_looking_writes_nothing(prepare, work, tmp_path):
    def everything():
        return sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))

    work(prepare())
    before = everything()
    prepare(models=["prosody", "madmom"], limit=1)
    assert everything() == before


def test_a_checkpoint_that_is_missing_leaves_its_items_to_do(prepare):
    own = {"name": "mine", "extractor": "musicnn", "params": {"checkpoint": "/nowhere/my.h5"}}
    assert len(prepare(models=[own]).plan.chosen) == 3


def test_a_disk_that_is_too_small_is_told_before(prepare, monkeypatch):
    surveyed = prepare()
    assert surveyed.lacking_room() is None
    monkeypatch.setattr(survey.shutil, "disk_usage", lambda path: survey.shutil._ntuple_diskusage(9, 9, 9))
    assert "are needed, 9 B are free" in surveyed.lacking_room()


def test_room_is_looked_for_where_the_folder_will_be(prepare, tmp_path):
    assert prepare(output=str(tmp_path / "not/yet/there")).lacking_room() is None


def test_an_output_that_is_a_file_is_one_clear_error(prepare, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFailed, match=r"output .*file is a file; choose another folder"):
        prepare(output=str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.44e9, "1.4 GB"), (2e15, "2000.0 TB")]
)
def test_sizes_in_words(count, text):
    assert size(count) == text
