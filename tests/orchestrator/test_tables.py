"""Rows that mean more than a file's name: quoted cells, and the times of segments."""

import pytest

from orchestrator.errors import JobError


@pytest.fixture
def rows(found, touch, tmp_path):
    """Return a function that scans a table of this text and returns its items with the labels of their rows."""
    touch("a.wav", "b.wav", "c.wav")

    def rows(name, text, **changes):
        (tmp_path / "audio" / name).write_text(text)
        return {item: [row.labels for row in source.rows] for item, source in found(f"audio/{name}", **changes).items()}

    return rows


@pytest.fixture
def items(rows):
    return lambda *table, **changes: list(rows(*table, **changes))


SAYINGS = {
    '"Quite so," he said.': '"Quite so," he said.',
    '"Yes" and "no"': '"Yes" and "no"',
    '"never closed': '"never closed',
    '"': '"',
    '"in ""whole"""': 'in "whole"',
}


@pytest.mark.parametrize("written", SAYINGS)
def test_a_quote_between_tabs_is_text_unless_cells_are_quoted_throughout(rows, written):
    found = rows("t.tsv", f"path\tsentence\na.wav\t{written}\nb.wav\tnext\n")
    assert found == {"a.wav": [{"sentence": SAYINGS[written]}], "b.wav": [{"sentence": "next"}]}


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('a.wav|"open\nb.wav|x\n', "line 2 of t.csv opens a quote that takes in the next lines, which look like rows"),
        ('a.wav|"open\nb.wav|x"\nc.wav|y\n', "line 2 of t.csv opens a quote that takes in"),
        ('a.wav|x\nb.wav|"open\n', "line 3 of t.csv opens a quote that is never closed; close it"),
        ('a.wav|x\nb.wav|"', "line 3 of t.csv opens a quote that is never closed"),
        (f'a.wav|x\nb.wav|"{"long" * 40_000}\n', "line 3 of t.csv cannot be read: field larger than"),
    ],
)
def test_a_quote_that_swallows_rows_is_refused(rows, separator, body, said):
    with pytest.raises(JobError, match=said.replace(".", r"\.")):
        rows("t.csv", "path|label\n".replace("|", separator) + body.replace("|", separator))


def test_a_cell_may_hold_line_ends(rows):
    found = rows("t.csv", 'path,label\na.wav,"two\nlines"\nb.wav,"x"\n')
    assert found == {"a.wav": [{"label": "two\nlines"}], "b.wav": [{"label": "x"}]}


SEGMENTS = {
    "start and length": ("t.csv", "path,start,duration\na.wav,1,2\nb.wav,,9\n", ["a.wav#1.000-3.000", "b.wav"]),
    "an end alone": ("t.csv", "path,end\na.wav,2\nb.wav,\n", ["a.wav#0.000-2.000", "b.wav"]),
    "keys that lack": (
        "t.jsonl",
        '{"path": "a.wav", "start": 1}\n{"path": "b.wav", "end": 2}\n{"path": "c.wav"}\n',
        ["a.wav#1.000-", "b.wav#0.000-2.000", "c.wav"],
    ),
    "length in objects": (
        "t.jsonl",
        '{"path": "a.wav", "start": 1, "duration": 0.5}\n{"path": "b.wav"}\n',
        ["a.wav#1.000-1.500", "b.wav"],
    ),
    "an offset of 0": (
        "t.jsonl",
        '{"audio_filepath": "a.wav", "offset": 0, "duration": 2}\n'
        '{"audio_filepath": "a.wav", "offset": 2, "duration": 2}\n{"audio_filepath": "b.wav", "duration": 2}\n',
        ["a.wav#0.000-2.000", "a.wav#2.000-4.000", "b.wav"],
    ),
    "offsets of 0 alone": ("t.jsonl", '{"audio_filepath": "a.wav", "offset": 0, "duration": 2}\n', ["a.wav"]),
    "both names": (
        "t.jsonl",
        '{"path": "a.wav", "audio_filepath": "b.wav"}\n{"audio_filepath": "c.wav"}\n',
        ["a.wav", "c.wav"],
    ),
    "decimal commas": ("t.tsv", "path\tstart\tend\na.wav\t0,500\t1,5\n", ["a.wav#0.500-1.500"]),
}


@pytest.mark.parametrize("what", SEGMENTS)
def test_rows_that_mean_segments_are_segments(items, found, what):
    name, text, wanted = SEGMENTS[what]
    assert items(name, text) == wanted
    assert found.remarks == []


def test_a_named_start_alone_cuts_to_the_end_and_one_with_a_length_by_that(items):
    assert items("t.csv", "path,onset\na.wav,1\n", start_column="onset") == ["a.wav#1.000-"]
    assert items("t.csv", "path,onset,duration\na.wav,1,2\n", start_column="onset") == ["a.wav#1.000-3.000"]
    assert items("t.jsonl", '{"path": "a.wav", "onset": 1}\n', start_column="onset") == ["a.wav#1.000-"]
    assert items("t.csv", "path,start,duration\na.wav,1,2\n", end_column=None) == ["a.wav#1.000-"]
    assert items("t.csv", "path,start,end\na.wav,1,2\n", start_column=None) == ["a.wav"]


REFUSED = {
    "no column 'path'; set path_column=Path": ("t.csv", "Path,label\na.wav,1\n", {}),
    "no column 'path'; has it a row of column names? it begins with a.wav, 1": ("t.csv", "a.wav,1\nb.wav,2\n", {}),
    "no key 'onset'; set start_column to one of: path, begin": (
        "t.jsonl", '{"path": "a.wav", "begin": 1}\n', {"start_column": "onset"},
    ),
    "no column 'stop'; set end_column=Stop": ("t.csv", "path,start,Stop\na.wav,1,2\n", {"end_column": "stop"}),
    "no column 'start'; set start_column too, to one of: onset": (
        "t.csv", "path,onset,stop\na.wav,1,2\n", {"end_column": "stop"},
    ),
    "line 3 of t.csv has 2 cells, and end is column 3; mend": ("t.csv", "path,start,end\na.wav,1,2\nb.wav,1\n", {}),
    "line 2 of t.tsv: start '1,000' may be 1.000 or 1000; write which": (
        "t.tsv", "path\tstart\tend\na.wav\t1,000\t2\n", {},
    ),
    "start '1,000.5' is no number": ("t.tsv", "path\tstart\tend\na.wav\t1,000.5\t2000\n", {}),
    "start '1,0,0' is no number": ("t.csv", "path;start;end\na.wav;1,0,0;2\n", {}),
    "start '1,5' is no number": ("t.csv", 'path,start,end\na.wav,"1,5",2\n', {}),
    "start '1_0' is no number": ("t.csv", "path,start,end\na.wav,1_0,20\n", {}),
    "start 2 is not before its end by duration, 2": ("t.csv", "path,start,duration\na.wav,2,0\n", {}),
    "line 2 of t.jsonl is nested too deeply": ("t.jsonl", '{"path": "a.wav"}\n{"a": ' + "[" * 200_000 + "\n", {}),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_could_only_be_guessed_is_refused_with_its_place(items, words):
    name, text, job = REFUSED[words]
    with pytest.raises(JobError) as caught:
        items(name, text, **job)
    assert words in str(caught.value)


BOTH = "start_column, end_column in the job cut by them"
REMARKS = {
    "path,Start,End": f"columns Start, End are labels; {BOTH}",
    "path,start_time,end_time": f"columns start_time, end_time are labels; {BOTH}",
    "path,onset,duration": f"columns onset, duration are labels; {BOTH}",
    "path,Begin": "column Begin is a label; start_column in the job cuts by it",
    "path,STOP": "column STOP is a label; end_column in the job cuts by it",
    "path,start": "column start is a label; `end_column: null` in the job cuts from there to the end of the file",
    "path,duration": None,
}


@pytest.mark.parametrize("header", REMARKS)
def test_times_that_are_not_used_are_said(items, found, header):
    text = f"{header}\na.wav" + ",1" * header.count(",")
    assert items("t.csv", text) == ["a.wav"]
    assert found.remarks == [REMARKS[header]] * (REMARKS[header] is not None)
    assert items("t.csv", text, start_column=None) == ["a.wav"] and found.remarks == []


def test_rows_that_are_fewer_items_are_counted(items, found):
    assert items("t.csv", "path,label\na.wav,1\na.wav,2\nb.wav,3\n") == ["a.wav", "b.wav"]
    assert found.remarks == ["3 rows, 2 items"]
