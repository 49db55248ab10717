"""A source is the one that was planned, if its time is, as far as the share that it lies on can tell."""

import os

import numpy as np
import pytest
import soundfile

from worker.audio.decode import decode
from worker.errors import AudioError


@pytest.mark.parametrize(
    ("planned", "now", "same"),
    [
        (1_700_000_001_123_456_789, 1_700_000_001_123_456_700, True),  # SMB keeps 100 ns
        (1_700_000_001_123_456_789, 1_700_000_001_123_457_000, True),  # others microseconds, rounded up
        (1_700_000_001_123_456_789, 1_700_000_001_000_000_000, True),  # whole seconds
        (1_700_000_001_000_000_000, 1_700_000_001_123_456_789, True),  # the plan saw the share, the worker the disk
        (1_700_000_001_123_456_789, 1_700_000_002_000_000_000, True),  # FAT keeps two seconds
        (1_700_000_001_123_456_789, 1_700_000_001_123_456_790 + 200, False),
        (1_700_000_001_000_000_000, 1_700_000_002_000_000_000, False),  # written a second later
        (1_700_000_001_123_456_789, 1_700_000_003_000_000_000 + 10**9, False),
        (1_700_000_001_100_000_000, 1_700_000_001_200_000_000, False),
    ],
)
def test_times_are_compared_as_a_share_keeps_them(tmp_path, planned, now, same):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.full(100, 0.25), 16000)
    os.utime(path, ns=(now, now))
    if same:
        decode(path, [(16000, 1)], str(tmp_path), os.path.getsize(path), planned).close()
        return
    with pytest.raises(AudioError, match="changed since the job was planned") as caught:
        decode(path, [(16000, 1)], str(tmp_path), os.path.getsize(path), planned)
    assert caught.value.kind == "changed"
