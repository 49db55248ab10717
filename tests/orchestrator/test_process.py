"""What a caller's process hands down: modules of others, closed streams, quotas, umasks."""

import os
import subprocess
import sys

import pytest

from orchestrator.running import cores
from orchestrator.weights import archives
from orchestrator.weights.lock import WeightsLock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def job(tmp_path, write_wav):
    write_wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "job.yaml").write_text("audio: audio\noutput: out\nmodels: [prosody]\nruntime: venv\n")
    return tmp_path / "job.yaml"


def command(job, *shell, **variables):
    """Run `consort plan` as the shell would, with the streams that it says."""
    line = f'exec "$0" -m orchestrator plan "$1" {" ".join(shell)}'
    env = {**os.environ, "CONSORT_CACHE": str(job.parent / "cache"), **variables}
    return subprocess.run(
        ["sh", "-c", line, sys.executable, str(job)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )


def test_modules_of_others_do_not_break_the_command(job, tmp_path):
    for name in ("yaml", "numpy", "worker", "docker", "requests", "rich", "uuid"):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        (tmp_path / "theirs" / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    plain, done = command(job), command(job, PYTHONPATH=str(tmp_path / "theirs"))
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr
    assert "prosody" in done.stdout


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "0<&-", "0<&- 2>&-"])
def test_closed_streams_do_not_break_the_command(job, shell):
    done = command(job, shell)
    assert (done.returncode, done.stderr) == (0, "") and "prosody" in done.stdout


def test_an_error_that_nobody_can_read_keeps_its_code(job):
    job.write_text("nonsense: 1\n")
    done = command(job, "2>&-")
    assert (done.returncode, done.stdout) == (2, "")


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
    done = subprocess.run([sys.executable, "-c", code, str(lock)], cwd=ROOT, capture_output=True, text=True)
    assert "weights.lock cannot be read: Permission denied; mend that" in done.stdout, done.stderr
