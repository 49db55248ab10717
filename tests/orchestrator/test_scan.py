"""Which files a job finds, and what they are called."""

import os
import threading

import pytest

from orchestrator.errors import JobError
from orchestrator.job import scan, spec


@pytest.fixture
def found(tmp_path):
    """Return a function that scans `tmp_path/audio`, or the file given, and returns the sources by id."""

    def scanned(name="audio", **changes):
        job = {"audio": str(tmp_path / name), "output": str(tmp_path / "out"), "models": ["prosody"], **changes}
        audio = scan.scan(spec.check(job))
        scanned.left_out = {one.reason.partition(" (")[0]: (one.count, one.examples) for one in audio.left_out}
        assert [s.id for s in audio.sources] == sorted(s.id for s in audio.sources)
        return {source.id: source for source in audio.sources}

    return scanned


@pytest.fixture
def touch(tmp_path):
    def touch(*names):
        for name in names:
            path = tmp_path / "audio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"12345")

    return touch


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


def test_what_is_left_out_is_counted_by_reason(found, touch, tmp_path):
    touch("a.wav", "x/cover.JPG", "x/cover2.jpg", "list.m3u8", ".hidden.wav", ".git/b.wav", "noext", "no.dots.here")
    (tmp_path / "audio" / "out.wav").symlink_to(tmp_path / "elsewhere.wav")
    (tmp_path / "audio" / "out").symlink_to(tmp_path)
    (tmp_path / "audio" / "again").symlink_to("x")
    assert list(found(include=["a.*", "*.flac"], exclude=["q"])) == ["a.wav"]
    assert found.left_out == {
        "hidden": (2, [".git", ".hidden.wav"]),
        "of endings that are no audio's": (3, [".jpg (2)", ".m3u8"]),
        "audio neither by ending nor by first bytes": (2, ["no.dots.here", "noext"]),
        "links that lead out of the audio folder": (2, ["out.wav", "out"]),
        "links to folders that are taken already": (1, ["again"]),
        "patterns of `include` that match nothing": (1, ["*.flac"]),
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


def test_one_file_is_a_job_of_its_own(found, touch):
    touch("a.wav", "b.wav", ".odd")
    assert list(found("audio/a.wav")) == ["a.wav"]
    assert list(found("audio/.odd")) == [".odd"]


@pytest.mark.parametrize(
    "text",
    [
        b"b.wav\na/c.mp3\n",
        b"\xef\xbb\xbfb.wav\r\na/c.mp3\r\n",
        b"# two of them\n\nb.wav\n   \n./a/../a/c.mp3\nb.wav",
    ],
)
def test_a_list_names_its_files(found, touch, tmp_path, text):
    touch("a.wav", "b.wav", "a/c.mp3")
    (tmp_path / "audio" / "list.txt").write_bytes(text)
    assert {name: s.size for name, s in found("audio/list.txt").items()} == {"a/c.mp3": 5, "b.wav": 5}


def test_a_list_may_stand_elsewhere_and_hold_absolute_paths(found, touch, tmp_path):
    touch("a.wav")
    (tmp_path / "list.lst").write_text(f"{tmp_path}/audio/a.wav\n")
    assert list(found("list.lst")) == ["audio/a.wav"]
    assert list(found("list.lst", audio_root=str(tmp_path / "audio"))) == ["a.wav"]


def test_a_listed_file_that_is_not_there_is_an_item_and_said(found, touch, tmp_path):
    touch("a.wav", "clips/café.wav")
    (tmp_path / "audio" / "list.txt").write_bytes(b"gone.mp3\nn\x00l.wav\n clips/cafe.wav \na.wav\n")
    sizes = {"a.wav": 5, "clips/cafe.wav": -1, "gone.mp3": -1, "n\x00l.wav": -1}
    assert {name: s.size for name, s in found("audio/list.txt").items()} == sizes
    assert found.left_out["rows whose file is not there, which will fail"] == (
        3, ["'gone.mp3'", "'n\\x00l.wav' (there is 'a.wav')", "'clips/cafe.wav' (there is 'clips/café.wav')"],
    )  # fmt: skip


@pytest.mark.parametrize("entry", ["../x.wav", "/etc/x.wav", "a/../../x.wav", ".."])
def test_an_entry_outside_the_root_is_refused(found, touch, tmp_path, entry):
    touch("a.wav")
    (tmp_path / "audio" / "list.txt").write_text(f"a.wav\n{entry}\n")
    with pytest.raises(JobError, match=r"lies outside .*; set audio_root"):
        found("audio/list.txt")


def test_a_name_that_begins_with_dots_is_inside(found, touch, tmp_path):
    touch("..x.wav")
    (tmp_path / "audio" / "list.txt").write_text("..x.wav\n")
    assert list(found("audio/list.txt")) == ["..x.wav"]


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_table_brings_labels(found, touch, tmp_path, prefix, end):
    touch("a.wav", "b, c.wav")
    lines = [b"path,genre,year", b'a.wav,"r""b",1999', b'"b, c.wav",\xc3\xa9lectro', b",nothing,1", b""]
    (tmp_path / "audio" / "table.CSV").write_bytes(prefix + end.join(lines))
    labels = {name: source.rows[0].labels for name, source in found("audio/table.CSV").items()}
    assert labels == {"a.wav": {"genre": 'r"b', "year": "1999"}, "b, c.wav": {"genre": "électro", "year": ""}}


def test_the_column_of_a_table_can_be_named(found, touch, tmp_path):
    touch("a.wav")
    (tmp_path / "audio" / "t.csv").write_text("fname,fold\na.wav,3\n")
    assert found("audio/t.csv", path_column="fname")["a.wav"].rows == ((2, {"fold": "3"}),)
    with pytest.raises(JobError, match=r"t\.csv has no column 'path'; set path_column to one of: fname, fold"):
        found("audio/t.csv")


def test_rows_of_one_file_are_one_item_with_the_labels_of_all(found, touch, tmp_path):
    touch("a.wav", "b.wav")
    (tmp_path / "audio" / "t.csv").write_text("path,fold\nb.wav,1\na.wav,3\n./a.wav,3\na.wav,4\n,5\n")
    sources = found("audio/t.csv")
    assert {name: source.rows for name, source in sources.items()} == {
        "a.wav": ((3, {"fold": "3"}), (5, {"fold": "4"})),
        "b.wav": ((2, {"fold": "1"}),),
    }
    assert found.left_out == {
        "rows that repeat another one": (1, ["line 4"]),
        "rows without the name of a file": (1, ["line 6"]),
    }


NAMES = {
    "#hash.wav": ("l.txt", b"#hash.wav\n# a.wav\n"),
    "b c.wav": ("l.txt", b"b c.wav\t \n\n"),
    " blank .wav": ("l.txt", b" blank .wav\r\n"),
    "café.wav": ("l.txt", "cafe\u0301.wav\n".encode()),
    "cafe\u0301 2.wav": ("l.txt", "café 2.wav\n".encode()),
    "é.wav": ("l.csv", b"path\n\xe9.wav\n"),
    "caf\udce9.wav": ("l.txt", b"caf\xe9.wav"),
    "deep/er/a.wav": ("l.txt", b"deep\\er\\a.wav\n"),
    "mac.wav": ("l.txt", b"# made long ago\rmac.wav\r"),
    "m.wav": ("l.m3u8", b"#EXTM3U\n#EXTINF:3,title\nm.wav\n"),
    "k 1.wav": ("wav.scp", b"utt1 k 1.wav\n"),
    "t.wav": ("l.tsv", b"client\tpath\n1\tt.wav\n"),
    "s.wav": ("l.csv", b"\xef\xbb\xbfpath;label\r\ns.wav;1,5\r\n"),
    "x.wav": ("l.csv", b"sep=;\r\npath;label\r\nx.wav;x\r\n"),
    "u.wav": ("l.csv", "path,label\r\nu.wav,x\r\n".encode("utf-16")),
    "v.wav": ("l.csv", b"path, label\n v.wav , x\n"),
    "e.wav": ("l.csv", b"path,label,,\ne.wav,x,,\n"),
    "j.wav": ("l.jsonl", b'{"path": "j.wav", "n": 1.5, "of": null, "in": ["a"]}\n\n'),
    "n.wav": ("l.jsonl", b'{"audio_filepath": "n.wav", "text": "hi"}\n'),
}


@pytest.mark.parametrize(("item", "how"), NAMES.items(), ids=ascii)
def test_a_file_is_found_as_its_name_was_meant(found, tmp_path, item, how):
    name, text = how
    path = tmp_path / "audio" / item
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    (tmp_path / "audio" / name).write_bytes(text)
    assert {item: source.size for item, source in found(f"audio/{name}").items()} == {item: 5}
    assert found.left_out == {}


def test_labels_are_text_without_what_stands_around_it(found, touch, tmp_path):
    touch("a.wav")
    folder = tmp_path / "audio"
    (folder / "t.csv").write_bytes(b"path , label;\xe9t\xe9\na.wav , x\n")
    (folder / "t.jsonl").write_text('{"path": "a.wav", "n": 1.5, "of": null, "in": ["a"], "yes": true}\n')
    (folder / "w.scp").write_text("utt1 a.wav\n")
    assert found("audio/t.csv")["a.wav"].rows[0].labels == {"label;été": "x"}
    assert found("audio/t.jsonl")["a.wav"].rows[0].labels == {"n": "1.5", "of": "", "in": '["a"]', "yes": "true"}
    assert found("audio/w.scp")["a.wav"].rows[0].labels == {"utterance": "utt1"}


REFUSED = {
    r"line 2 of w\.scp is a command, and none is run": ("w.scp", b"u1 a.wav\nu2 touch ran |\n"),
    r"t\.csv has the column 'path' twice": ("t.csv", b"path,path\na.wav,zzz.wav\n"),
    r"line 3 of t\.csv has 3 cells, and there are 2 columns; quote": ("t.csv", b"path,label\na.wav,1\na, b.wav,2\n"),
    r"t\.csv has no column 'path'; set path_column to one of: file, label": ("t.csv", b"file;label\na.wav;1\n"),
    r"t\.csv is no text, or UTF-16 without its mark; save it as UTF-8": ("t.csv", "path\na.wav".encode("utf-16-le")),
    r"line 1 of t\.jsonl is no JSON": ("t.jsonl", b"path: a.wav\n"),
    r"line 1 of x\.jsonl is no JSON: a key stands there twice": ("x.jsonl", b'{"path": "a.wav", "path": "b.wav"}\n'),
    r"t\.jsonl has no key 'path'; set path_column to one of: wav": ("t.jsonl", b'{"wav": "a.wav"}\n'),
}  # fmt: skip


@pytest.mark.parametrize(("words", "how"), REFUSED.items())
def test_what_could_only_be_guessed_is_refused(found, touch, tmp_path, words, how):
    touch("a.wav")
    name, text = how
    (tmp_path / "audio" / name).write_bytes(text)
    with pytest.raises(JobError, match=words):
        found(f"audio/{name}")
    assert not (tmp_path / "ran").exists()


def test_a_listed_link_that_leads_out_is_refused_with_the_remedy(found, touch, tmp_path):
    touch("a.wav")
    (tmp_path / "blob").write_bytes(b"123")
    (tmp_path / "audio" / "l.wav").symlink_to(tmp_path / "blob")
    (tmp_path / "audio" / "in.wav").symlink_to("a.wav")
    (tmp_path / "audio" / "list.txt").write_text("a.wav\nl.wav\n")
    for name in ("audio/list.txt", "audio/l.wav"):
        with pytest.raises(JobError, match=r"l\.wav is behind a link that leads out of .*; set `links: follow`"):
            found(name)
        assert found(name, links="follow")["l.wav"].target == str(tmp_path / "blob")
    assert found("audio/in.wav")["in.wav"].target is None
    with pytest.raises(JobError, match="`links: refuse` does not take"):
        found("audio/in.wav", links="refuse")


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
