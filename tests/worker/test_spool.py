import os
import subprocess
import sys

import numpy as np

import worker
from worker.audio import spool

IMAGES = os.path.dirname(os.path.dirname(os.path.abspath(worker.__file__)))
DISK_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
import worker
from worker.audio import spool
try:
    spool.allocate((1 << 20,), "float32", sys.argv[1], limit=1)[:] = 1
except MemoryError as error:
    print(error)
"""


def fill(array):
    array[:] = np.arange(array.size, dtype=array.dtype).reshape(array.shape)
    return array.sum(dtype=np.float64)


def test_small_array_stays_in_memory(tmp_path):
    array = spool.allocate((3, 4), "float32", str(tmp_path / "missing"), limit=48)
    assert array.dtype == np.float32
    assert array.shape == (3, 4)
    assert not array.any()
    assert array.flags.owndata


def test_large_array_is_on_the_disk_and_behaves_the_same(tmp_path):
    array = spool.allocate((100, 13), np.int16, str(tmp_path), limit=2599)
    assert not array.flags.owndata
    assert array.shape == (100, 13)
    assert array.dtype == np.int16
    assert not array.any()
    assert fill(array) == 1300 * 1299 / 2
    assert array[99, 12] == 1299


def test_nothing_is_left_in_the_folder_even_while_it_lives(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    array = spool.allocate((1000, 1000), "float32", str(tmp_path), limit=1)
    fill(array)
    assert os.listdir(str(tmp_path)) == []
    del array
    assert len(os.listdir("/proc/self/fd")) == before


def test_room_is_taken_at_once(tmp_path, monkeypatch):
    taken = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda fd: [taken.append(os.fstat(fd).st_blocks * 512), close(fd)])
    spool.allocate((1 << 20,), "uint8", str(tmp_path), limit=1)
    assert taken[0] >= 1 << 20


def test_sizes_beyond_32_bits_do_not_wrap(tmp_path):
    sizes = []
    real, spool._reserve = spool._reserve, lambda fd, size: sizes.append(size) or os.ftruncate(fd, size)  # sparse
    try:
        array = spool.allocate((3 << 20, 1 << 10), np.uint8, str(tmp_path))
    finally:
        spool._reserve = real
    assert sizes == [3 << 30]
    array[-1, -1] = 7
    assert array[-1].sum() == 7


def test_disk_without_room_is_an_error_and_not_the_end_of_the_process(tmp_path):
    command = [sys.executable, "-c", DISK_FULL, str(tmp_path)]
    done = subprocess.run(command, env=dict(os.environ, PYTHONPATH=IMAGES), stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert done.stdout.startswith(b"no room in ")
    assert b"for 4 MB: File too large" in done.stdout
    assert os.listdir(str(tmp_path)) == []
