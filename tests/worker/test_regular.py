"""Files that must be files."""

import os

import pytest

from worker import regular


@pytest.fixture(params=["link", "dangling", "fifo", "folder", "socket"])
def planted(request, tmp_path, monkeypatch):
    """Return the path of something that is no regular file."""
    monkeypatch.chdir(str(tmp_path))
    (tmp_path / "real").write_bytes(b"mine")
    path = str(tmp_path / "planted")
    if request.param in ("link", "dangling"):
        os.symlink("real" if request.param == "link" else "nowhere", path)
    elif request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "folder":
        os.mkdir(path)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("planted")
    return path


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
def test_what_is_no_regular_file_is_refused_without_waiting(planted, flags, tmp_path):
    with pytest.raises(OSError):
        regular.open_file(planted, flags)
    assert (tmp_path / "real").read_bytes() == b"mine" and not os.path.exists("nowhere")


def test_nothing_that_is_there_is_created_again(planted, tmp_path):
    with pytest.raises(FileExistsError):
        regular.create_file(planted)
    with pytest.raises(FileExistsError):
        regular.create_file(str(tmp_path / "real"))


def test_files_are_opened_made_and_named_at_random(tmp_path):
    path = str(tmp_path / regular.random_part())
    with os.fdopen(regular.create_file(path), "wb") as f:
        f.write(b"data")
    with os.fdopen(regular.open_file(path), "rb") as f:
        assert f.read() == b"data"
    assert len({regular.random_part() for _ in range(1000)}) == 1000
