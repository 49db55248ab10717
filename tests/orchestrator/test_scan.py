"""Which files a job finds, and what they are called."""

import os
import threading

import pytest

from orchestrator.errors import JobError
from orchestrator.job import scan, spec
from worker.segment import Segment


def test_a_folder_gives_the_audio_below_it(found, touch):
    touch("b.wav", "a/A.FLAC", "a/x.y.Mp3", "notes.txt", "cover.jpg", "noext", ".hidden.wav", ".git/x.wav")
    assert list(found()) == ["a/A.FLAC", "a/x.y.Mp3", "b.wav"]


def test_sources_carry_size_and_time(found, touch, tmp_path):
    touch("a.wav")
    os.utime(tmp_path / "audio" / "a.wav", ns=(1, 1234567890123456789))
    assert (found()["a.wav"].size, found()["a.wav"].mtime_ns) == (5, 1234567890123456789)


def test_a_folder_may_be_called_like_audio(found, touch):
    touch("x.wav/y.wav")
    assert list(found()) == ["x.wav/y.wav"]


def test_links_inside_the_root_are_followed_once_and_loops_end(found, touch, tmp_path):
    touch("real/a.wav", ".store/b.wav")
    root = tmp_path / "audio"
    (root / "real" / "up").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "z").symlink_to("real")
    (root / "extra").symlink_to(".store")
    assert list(found()) == ["extra/b.wav", "real/a.wav"]


def test_a_folder_behind_a_link_out_of_the_root_is_left_out(found, touch, tmp_path):
    touch("a.wav")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.wav").write_bytes(b"1")
    (tmp_path / "audio" / "other").symlink_to(tmp_path / "other")
    assert list(found()) == ["a.wav"]


def test_folders_that_cannot_be_read_are_counted_and_the_root_is_refused(found, touch, tmp_path, monkeypatch):
    touch("a.wav", "locked/b.wav")
    real, barred = os.scandir, tmp_path / "audio" / "locked"

    def scandir(path):
        if os.fspath(path).startswith(os.fspath(barred)):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(found()) == ["a.wav"]
    assert found.left_out == {"folders that cannot be read": (1, ["locked"])}
    with pytest.raises(JobError, match="locked cannot be read: Permission denied"):
        found("audio/locked")


def test_what_is_left_out_is_counted_by_reason(found, touch, tmp_path):
    touch("a.wav", "x/cover.JPG", "x/cover2.jpg", "list.m3u8", ".hidden.wav", ".git/b.wav", "noext", "no.dots.here")
    (tmp_path / "audio" / "out.wav").symlink_to(tmp_path / "elsewhere.wav")
    (tmp_path / "audio" / "out").symlink_to(tmp_path)
    (tmp_path / "audio" / "again").symlink_to("x")
    assert list(found(include=["a.*", "*.flac"], exclude=["q"])) == ["a.wav"]
    assert found.left_out == {
        "hidden": (2, [".git (a folder)", ".hidden.wav"]),
        "of endings that are no audio's": (3, [".jpg (2)", ".m3u8"]),
        "audio neither by ending nor by first bytes": (2, ["no.dots.here", "noext"]),
        "links that lead out of the audio folder": (2, ["out.wav", "out"]),
        "links to folders that are taken already": (1, ["again"]),
        "patterns of `include` that match nothing": (1, ["*.flac"]),
        "patterns of `exclude` that match nothing": (1, ["q"]),
    }
    touch("b.wav", "c.wav", "d.wav", "e.wav", "f.wav")
    found(exclude=["[b-f].wav"])
    assert found.left_out["by `include` and `exclude`"] == (5, ["b.wav", "c.wav", "d.wav", "..."])


@pytest.mark.parametrize("links", ["inside", "refuse", "follow"])
def test_links_are_taken_as_the_job_says(found, touch, tmp_path, links):
    touch("a.wav", "deep/b.wav")
    other = tmp_path / "blobs"
    other.mkdir()
    for name in ("4f1c", "c.wav"):
        (other / name).write_bytes(b"1")
    for name, target in {
        "in.wav": "deep/b.wav",
        "out.wav": other / "4f1c",
        "far": other,
        "gone.wav": other / "gone",
    }.items():
        (tmp_path / "audio" / name).symlink_to(target)
    real = {"a.wav": None, "deep/b.wav": None}
    inside = {"in.wav": None}
    beyond = {"far/c.wav": str(other / "c.wav"), "gone.wav": str(other / "gone"), "out.wav": str(other / "4f1c")}
    taken = {"inside": {**real, **inside}, "refuse": real, "follow": {**real, **inside, **beyond}}[links]
    assert {name: source.target for name, source in found(links=links).items()} == taken
    job = spec.check({"audio": str(tmp_path / "audio"), "output": "out", "models": ["prosody"], "links": links})
    assert scan.scan(job).beyond == ([str(other)] if links == "follow" else [])
    assert sum(count for count, _ in found.left_out.values()) == {"inside": 3, "refuse": 4, "follow": 1}[links]


def test_when_all_links_lead_out_the_remedy_is_named(found, touch, tmp_path):
    touch("snapshot/notes.txt")
    (tmp_path / "blob").write_bytes(b"1")
    (tmp_path / "audio" / "snapshot" / "one.wav").symlink_to(tmp_path / "blob")
    with pytest.raises(
        JobError, match=r"no audio found .*; left out: .* 1 links that lead out .*`links: follow`.*one\.wav"
    ):
        found("audio/snapshot")


ADTS, MP3 = b"\xff\xf1\x50\x80", b"\xff\xfb\x90\x64"
HEADS = {
    b"RIFF\0\0\0\0WAVEfmt ": True, b"RIFF\0\0\0\0WEBPVP8 ": False, b"fLaC": True, b"OggS": True, b"ID3\4": True,
    b"\0\0\0\x20ftypM4A ": True, b"\0\0\0\x20ftypavif": False, b"\x1a\x45\xdf\xa3": True, ADTS: True, MP3: True,
    b"\xff\xd8\xff\xe0JFIF": False, b"\x89PNG\r\n": False, b"#EXTM3U\n": False, b"": False, b"plain text": False,
    "path,label".encode("utf-16"): False, "path,label".encode("utf-16-be"): False, b"GIF89a": False,
    b"\x47\x40\0\x10": True, b"Generated by x": False,
}  # fmt: skip


@pytest.mark.parametrize(("head", "taken"), HEADS.items(), ids=repr)
def test_a_file_of_no_known_ending_is_taken_by_its_first_bytes(found, touch, tmp_path, head, taken):
    touch("a.wav")
    for name in ("blob", "x.unknown", "x.ts"):
        (tmp_path / "audio" / name).write_bytes(head)
    assert list(found()) == ["a.wav", *(["blob", "x.ts", "x.unknown"] if taken else [])]


def test_a_fifo_of_no_known_ending_does_not_block(found, touch, tmp_path):
    touch("a.wav")
    os.mkfifo(tmp_path / "audio" / "pipe")
    assert list(found()) == ["a.wav"]


def test_a_dangling_link_is_found_so_that_its_failure_is_told(found, touch, tmp_path):
    touch("a.wav")
    (tmp_path / "audio" / "gone.wav").symlink_to("nowhere.wav")
    (tmp_path / "audio" / "self.wav").symlink_to("self.wav")
    assert {name: source.size for name, source in found().items()} == {"a.wav": 5, "gone.wav": -1, "self.wav": -1}


def test_a_fifo_does_not_block(found, touch, tmp_path):
    touch("a.mp3")
    os.mkfifo(tmp_path / "audio" / "b.wav")
    result = []

    def look():
        sources = list(found().values())
        result.append(scan.estimate_seconds(str(tmp_path / "audio"), sources))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(10)
    assert result and result[0]["b.wav"] == 0


def test_names_need_not_be_utf8(found, touch, tmp_path):
    touch("a.wav")
    with open(os.path.join(os.fsencode(tmp_path), b"audio", b"caf\xe9.wav"), "wb") as f:
        f.write(b"1")
    assert list(found()) == ["a.wav", "caf\udce9.wav"]


def test_include_and_exclude_choose_by_the_whole_path(found, touch):
    touch("a/x.wav", "a/y.wav", "b/x.wav", "B/x.wav")
    assert list(found(include=["a/*", "*/x.wav"])) == ["B/x.wav", "a/x.wav", "a/y.wav", "b/x.wav"]
    assert list(found(include=["a/*"], exclude=["*y.wav"])) == ["a/x.wav"]
    assert list(found(exclude=["b/*"])) == ["B/x.wav", "a/x.wav", "a/y.wav"]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("**/*.wav", "a.wav d/b.wav d/e/c.wav"),
        ("*.wav", "a.wav d/b.wav d/e/c.wav"),
        ("d/*.wav", "d/b.wav"),
        ("d/**/*.wav", "d/b.wav d/e/c.wav"),
        ("d/**", "d/b.wav d/e/c.wav"),
        ("d/*", "d/b.wav d/e/c.wav"),
        ("./d/", "d/b.wav d/e/c.wav"),
        ("e", "d/e/c.wav"),
        ("*/*/c.wav", "d/e/c.wav"),
        ("d?b.wav", ""),
        ("[ab].wav", "a.wav d/b.wav"),
        ("[!a].wav", "d/b.wav d/e/c.wav"),
        ("d[/]b.wav", ""),
        ("*.WAV", ""),
    ],
)
def test_patterns_are_globs(found, touch, pattern, taken):
    every = ["a.wav", "d/b.wav", "d/e/c.wav", "[x].flac"]
    touch(*every)
    if taken:
        assert list(found(include=[pattern])) == taken.split()
    assert list(found(exclude=[pattern])) == sorted(set(every) - set(taken.split()))


def test_brackets_stand_for_themselves_where_they_are_escaped(found, touch):
    touch("[x].flac", "x.flac")
    assert list(found(include=["[[]x].flac"])) == ["[x].flac"]
    with pytest.raises(JobError, match=r"include and exclude: '\[z-a\].wav': bad character range"):
        found(include=["[z-a].wav"])


def test_one_file_is_a_job_of_its_own(found, touch, tmp_path):
    touch("a.wav", "b.wav")
    (tmp_path / "audio" / ".odd").write_bytes(b"fLaC")
    assert list(found("audio/a.wav")) == ["a.wav"]
    assert list(found("audio/.odd")) == [".odd"]


@pytest.mark.parametrize("name", ["x.json", "segments", "t.csv.gz", "t.xlsx"])
def test_one_file_that_is_no_audio_is_refused(found, touch, name):
    touch(name)
    with pytest.raises(JobError, match=rf"{name} is no audio .*; a table\? \.csv \.tsv \.jsonl .* are read; a list\? "):
        found(f"audio/{name}")


@pytest.mark.parametrize("name", ["none", "none.txt", "none.csv", "x" * 300, "x" * 300 + ".csv"])
def test_a_path_that_does_not_exist_is_refused(found, name):
    with pytest.raises(JobError, match=r"audio: .* (does not exist|cannot be read)"):
        found(name)


@pytest.mark.parametrize("changes", [{"include": ["*.flac"]}, {"exclude": ["*"]}])
def test_nothing_found_is_refused(found, touch, changes):
    touch("a.wav")
    with pytest.raises(JobError, match="include and exclude leave none of the 1 files in "):
        found(**changes)


@pytest.mark.parametrize("name", ["empty.txt", "empty.csv"])
def test_an_empty_list_is_refused(found, tmp_path, name):
    (tmp_path / name).write_text("path\n" if name.endswith("csv") else "# none\n")
    with pytest.raises(JobError, match="no audio found"):
        found(name)


def test_durations_are_estimated_from_headers_and_sizes(tmp_path, write_wav):
    write_wav(tmp_path / "a.wav", seconds=2, rate=8000)
    (tmp_path / "b.flac").write_bytes(bytes(180_000))
    sources = [scan.Source("a.wav", 32044, 0), scan.Source("b.flac", 180_000, 0), scan.Source("gone.wav", -1, -1)]
    seconds = scan.estimate_seconds(str(tmp_path), sources)
    assert seconds == {"a.wav": pytest.approx(2, abs=0.01), "b.flac": 2, "gone.wav": 0}


def test_a_table_without_a_row_of_names_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(JobError, match="is empty; it needs a row of column names"):
        scan.scan(spec.JobSpec(audio=str(tmp_path / "table.csv"), output="out", models=[]))


def test_the_length_of_a_segment_is_known(tmp_path, write_wav):
    write_wav(tmp_path / "a.wav", seconds=2, rate=8000)
    source = scan.Source("a.wav", 32044, 0)
    cut = [source, *(source.cut(Segment(start, end)) for start, end in ((0.5, 0.75), (1.5, None)))]
    assert list(scan.estimate_seconds(str(tmp_path), cut).values()) == pytest.approx([2, 0.25, 0.5], abs=0.01)
