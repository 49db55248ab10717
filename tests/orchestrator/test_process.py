"""What a caller's process hands down: quotas and umasks."""

import os
import pathlib
import subprocess
import sys

import pytest

from orchestrator.running import cores
from orchestrator.weights import archives
from orchestrator.weights.lock import WeightsLock

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("own", "files", "granted"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n", "a/cpu.max": "max 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("4:cpu,cpuacct:/d\n1:a=b:/d\n", {f"cpu/d/cpu.cfs_{what}_us": "100000" for what in ("quota", "period")}, 1),
        ("4:cpu,cpuacct:/host/d\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu:/d\n", {"cpu/d/cpu.cfs_quota_us": "-1", "cpu/d/cpu.cfs_period_us": "100000"}, None),
        ("0::/a\n", {"a/cpu.max": "9900000 100000\n"}, None),
        ("0::/a\n", {"a/cpu.max": "nonsense\n"}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_a_quota_of_a_control_group_bounds_the_workers(tmp_path, monkeypatch, own, files, granted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert cores.available(tmp_path / "groups", tmp_path / "own") == (granted or 8)


@pytest.mark.parametrize(
    ("umask", "plain", "program"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
def test_files_of_the_cache_follow_the_umask(tmp_path, umask, plain, program):
    import hashlib
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"1")
        archive.writestr("two", b"2")
    sums = [hashlib.sha256(data).hexdigest() for data in (b"1", b"2")]
    before = os.umask(umask)
    try:
        members = {
            "one": archives.Member(tmp_path / "x" / "one", sums[0]),
            "two": archives.Member(tmp_path / "x" / "two", sums[1], True),
        }
        archives.take(tmp_path / "a.zip", members)
        WeightsLock(tmp_path / "x" / "weights.lock").add([])
    finally:
        os.umask(before)
    modes = [(tmp_path / "x" / name).stat().st_mode & 0o777 for name in ("one", "two", "weights.lock")]
    assert modes == [plain, program, plain]


def test_what_may_not_be_read_is_not_called_damaged(tmp_path):
    code = (
        "import os, sys, pathlib\n"
        "from orchestrator.weights.lock import WeightsLock\n"
        "os.setuid(65534) if os.getuid() == 0 else None\n"
        "try:\n    WeightsLock(pathlib.Path(sys.argv[1])).entries()\n"
        "except Exception as error:\n    print(error)\n"
    )
    lock = tmp_path / "weights.lock"
    lock.write_text("{}")
    lock.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and len(folder.parts) > 2:
            folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(lock)], cwd=REPOSITORY, capture_output=True, text=True)
    assert "weights.lock cannot be read: Permission denied; mend that" in done.stdout, done.stderr
