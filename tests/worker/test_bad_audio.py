"""Every file of a collection of hostile audio, which is not in the repository, does what its table says."""

import csv
import os
import re

import numpy as np
import pytest

from worker.audio.decode import decode
from worker.errors import AudioError

FOLDER = os.environ.get("CONSORT_SHARED_AUDIO", "")
TABLE = os.path.join(FOLDER, "BAD.csv")
LONG = "silence_3h"  # gigabytes on the disk; test_audio.py covers one hour

if not os.path.isfile(TABLE):
    pytest.skip("CONSORT_SHARED_AUDIO names no folder with BAD.csv", allow_module_level=True)
if not os.path.isfile(os.environ.get("CONSORT_FFMPEG", "")):
    pytest.skip("CONSORT_FFMPEG names no ffmpeg", allow_module_level=True)


def read_table():
    with open(TABLE, encoding="utf-8", newline="") as source:
        rows = [row for row in csv.DictReader(source) if LONG not in row["path"]]
    return [row for row in rows if os.path.isfile(os.path.join(FOLDER, row["path"]))]


@pytest.mark.parametrize("row", read_table(), ids=lambda row: ascii(row["path"]))
def test_hostile_file(row, tmp_path):
    path = os.path.join(FOLDER, row["path"])
    try:
        found = decode(path, [(16000, 1), (48000, 2)], str(tmp_path))
    except AudioError as error:
        assert row["expected"] != "process", str(error)
        assert error.kind in ("decode", "empty", "nonfinite") and "\n" not in str(error)
        return
    assert row["expected"] != "skip"
    with found:
        check_length(found, row)
        for wanted in ((16000, 1), (48000, 2)):
            assert np.isfinite(found.wave(*wanted)).all()


def check_length(found, row):
    """Never shorter than ffmpeg says, and flagged where the table's words say that something is missing."""
    seconds = re.match(r"([\d.]+)s", row["ffmpeg_5_1"])
    assert seconds is None or found.duration > float(seconds.group(1)) - 0.01
    lossy = re.search(r"/(truncated|corrupt_middle)", row["path"])
    assert ("truncated" in found.flags) == bool(lossy)


def test_the_table_was_read():
    assert len(read_table()) > 80
