"""What lists and tables of a job mean, as people have them."""

import pytest

from orchestrator.errors import JobError
from orchestrator.job import scan, spec


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
    assert found.left_out["items whose file is not there, which will fail"] == (
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
    "m 2.wav": ("l.m3u8", b"#EXTM3U\nm%202.wav\n"),
    "m%203.wav": ("l.m3u8", b"m%203.wav\n"),
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


def test_a_playlist_may_hold_addresses(found, touch, tmp_path):
    touch("a b.wav", "c.wav")
    playlist = tmp_path / "audio" / "l.m3u8"
    playlist.write_text(
        f"file://{tmp_path}/audio/a%20b.wav\nfile://localhost{tmp_path}/audio/c.wav\nhttp://h/x%20y.mp3\n"
    )
    assert [item for item, source in found("audio/l.m3u8").items() if source.size == 5] == ["a b.wav", "c.wav"]
    assert found("audio/l.m3u8")["http://h/x%20y.mp3"].size == -1
    (count, examples), *others = found.left_out.values()
    assert (count, examples, others) == (1, ["http://h/x%20y.mp3 (an address; fetch it first)"], [])
    playlist.write_text("file:///etc/x.wav\n")
    with pytest.raises(JobError, match=r"/etc/x\.wav lies outside"):
        found("audio/l.m3u8")


def test_dots_behind_a_link_are_refused(found, touch, tmp_path):
    touch("b.wav", "far/b.wav", "far/off/c.wav")
    (tmp_path / "audio" / "link").symlink_to("far/off")
    (tmp_path / "audio" / "list.txt").write_text("far/../b.wav\nlink/../b.wav\n")
    with pytest.raises(JobError, match=r"line 2: link/\.\./b\.wav has `\.\.` behind a link; write"):
        found("audio/list.txt")


def test_items_that_will_fail_are_counted_before(found, touch, tmp_path):
    touch("a.wav", "text.txt", "sub/b.wav")
    (tmp_path / "audio" / "flac.tmp").write_bytes(b"fLaC")
    (tmp_path / "audio" / "broken.wav").symlink_to("nothing.wav")
    table = "path,start,end\nbroken.wav,,\nnot there.mp3,,\nnot there.mp3,1,2\na.wav,,\nsub,,\ntext.txt,,\nflac.tmp,,\n"
    (tmp_path / "audio" / "t.csv").write_text(table)
    assert len(found("audio/t.csv")) == 7
    assert found.left_out == {
        "items whose file is not there, which will fail": (
            4,
            ["'not there.mp3' (2)", "'broken.wav' (a link to nothing)", "'sub' (a folder)"],
        ),
        "items that are text, pictures or arrays, which will fail": (1, ["'text.txt'"]),
    }


def test_rows_with_times_are_segments_in_order_of_their_times(found, touch, tmp_path):
    touch("a.wav", "b.wav")
    folder = tmp_path / "audio"
    (folder / "t.csv").write_text("path,start,end\nb.wav,10,11.5\nb.wav,9,10\na.wav,,\nb.wav,0.12345,\nb.wav,,3\n")
    ids = ["a.wav", "b.wav#0.000-3.000", "b.wav#0.12345-", "b.wav#9.000-10.000", "b.wav#10.000-11.500"]
    sources = segments(found, "audio/t.csv")
    assert list(sources) == ids
    assert {source.file for source in sources.values()} == {"a.wav", "b.wav"}
    assert {source.size for source in sources.values()} == {5}
    assert list(segments(found, "audio/t.csv", include=["b*"])) == ids[1:]
    assert list(found("audio/t.csv", start_column=None)) == ["a.wav", "b.wav"]
    assert found("audio/t.csv", start_column=None)["a.wav"].rows[0].labels == {"start": "", "end": ""}


def test_a_file_that_is_called_like_a_segment_is_told_from_it(found, touch, tmp_path):
    touch("a.wav", "a.wav#0.000-1.000")
    (tmp_path / "audio" / "t.csv").write_text("path,start,end\na.wav#0.000-1.000,,\na.wav,0,1\n")
    with pytest.raises(JobError, match=r"line 3: a\.wav#0\.000-1\.000 is a file and a segment of another; rename"):
        found("audio/t.csv")


def test_the_columns_of_segments_can_be_named(found, touch, tmp_path):
    touch("a.wav")
    folder = tmp_path / "audio"
    (folder / "t.csv").write_text("path;onset;offset\na.wav;0,5;1\n")
    named = {"start_column": "onset", "end_column": "offset"}
    assert list(found("audio/t.csv", **named)) == ["a.wav#0.500-1.000"]
    assert list(found("audio/t.csv", start_column="onset", end_column=None)) == ["a.wav#0.500-"]
    assert list(found("audio/t.csv")) == ["a.wav"]
    with pytest.raises(JobError, match="has no column 'begin'; set start_column to one of: path, onset, offset"):
        found("audio/t.csv", start_column="begin")
    (folder / "t.jsonl").write_text(
        '{"path": "a.wav", "start": 1, "end": 2.5}\n{"audio_filepath": "a.wav", "offset": 3.5, "duration": 1.1}\n'
        '{"audio_filepath": "a.wav", "offset": 0.0, "duration": 9}\n'
    )
    assert list(found("audio/t.jsonl")) == ["a.wav#0.000-9.000", "a.wav#1.000-2.500", "a.wav#3.500-4.600"]


def segments(found, name, **changes):
    """Return the sources of a scan, which are in order of files and times, not of ids."""
    job = {"audio": str(found.folder / name), "output": "out", "models": ["prosody"], **changes}
    return {source.id: source for source in scan.scan(spec.check(job)).sources}
