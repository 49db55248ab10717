"""Output folders that cannot be used: exit code 4, and the next run goes on."""

import os
import pathlib
import subprocess

import harness
import pytest
from harness import TONE, written


@pytest.fixture
def disk(tmp_path):
    """Return a function that mounts a small file system of so many kilobytes."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(kilobytes: int, option: str = "") -> pathlib.Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k{option}", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            who = "this root may not" if os.geteuid() == 0 else "only root may"
            pytest.skip(f"{who} mount a disk: {done.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def refuse(job, *flags):
    """Run the job, which must fail for its output folder in plain words."""
    done = harness.consort("extract", job, *flags)
    assert done.returncode == 4, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("consort: "), done.stderr
    assert any(words in last for words in ("run again", "choose another")), last
    return last


def test_a_file_where_the_folder_should_be(audio, output):
    harness.write_wav(audio / "a.wav")
    output.write_text("mine")
    job = harness.write_job(output, audio, TONE)
    refuse(job)
    assert output.read_text() == "mine"
    output.unlink()
    assert harness.consort("extract", job).returncode == 0


def test_a_file_where_the_folder_of_a_model_should_be(audio, output):
    harness.write_wav(audio / "a.wav")
    output.mkdir()
    (output / "tone").write_text("mine")
    job = harness.write_job(output, audio, TONE)
    done = harness.consort("extract", job)
    assert done.returncode in (1, 4) and "Traceback" not in done.stderr
    (output / "tone").unlink()
    assert harness.consort("extract", job).returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(audio, output):
    harness.write_wav(audio / "a.wav")
    output.mkdir(mode=0o555)
    job = harness.write_job(output, audio, TONE)
    refuse(job)
    output.chmod(0o755)
    assert harness.consort("extract", job).returncode == 0


def test_a_disk_that_may_only_be_read(audio, output, disk):
    harness.write_wavs(audio, 2)
    place, job = disk(100000), harness.write_job(output, audio, TONE)
    assert harness.consort("extract", job, "--output", place, "--limit", 1).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    refuse(job, "--output", place)
    refuse(job, "--output", place / "new")
    assert harness.status(place)["models"]["tone"] == {
        "done": 1,
        "pending": 1,
        "failed": {},
        "stale": 0,
        "orphaned": 0,
        "waiting": 0,
        "devices": ["cpu"],
    }
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    assert harness.consort("extract", job, "--output", place).returncode == 0


def test_a_disk_that_is_too_small_is_refused_before_the_start(audio, output, disk):
    harness.write_wav(audio / "a.wav")
    job = harness.write_job(output, audio, TONE)
    line = refuse(job, "--output", disk(200) / "out")
    assert "are needed" in line and "--force" in line


@pytest.mark.parametrize("kilobytes", [20, 120, 180])
def test_a_disk_that_fills_up_during_the_run(kilobytes, audio, output, disk):
    harness.write_wavs(audio, 30, seconds=10)
    place = disk(kilobytes)
    job = harness.write_job(place.parent / "full", audio, {**TONE, "params": {"pause": 0.02}})
    out = place / "out"
    refuse(job, "--output", out, "--force")
    subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    done = harness.consort("extract", job, "--output", out, "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(written(out)) == 30
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}.items()
    assert harness.leftovers(out) == []
    calm = harness.consort("extract", job, "--output", output)
    assert calm.returncode == 0 and harness.fingerprint(out) == harness.fingerprint(output)


def test_a_name_that_is_too_long_for_the_output_fails_alone(audio, output):
    harness.write_wav(audio / "a.wav")
    harness.write_wav(audio / ("n" * 251 + ".wav"))
    harness.write_wav(audio / ("n" * 251 + ".WAV"))
    done = harness.consort("extract", harness.write_job(output, audio, TONE))
    assert done.returncode == 1, done.stdout + done.stderr
    assert ("tone", "a.wav") in written(output)
    assert set(harness.failures(output).values()) == {"write"}
