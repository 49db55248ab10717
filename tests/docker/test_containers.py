"""What a container may do, what it gives back, and that both runtimes give the same bytes."""

import json
import os
import pathlib
import re
import tempfile

import harness
import numpy as np
import pytest
from engine import containers, docker
from harness import TONE, fingerprint, until

PRYING = {"name": "prying", "extractor": "prying:Prying"}


def test_the_quickstart_is_the_same_in_both_runtimes(quickstart, output):
    job = harness.REPOSITORY / "config/quickstart.yaml"
    done = harness.consort("extract", job, "--runtime", "docker", "--output", output, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "runtime docker (asked for)" in done.stderr
    assert len(harness.manifest(output)) == 28
    assert fingerprint(output) == quickstart
    assert harness.leftovers(output) == []


def test_auto_takes_docker_where_the_images_are_there_and_says_so(audio, output):
    harness.write_wavs(audio, 1)
    done = harness.consort("extract", harness.write_job(output, audio, TONE))
    assert done.returncode == 0, done.stderr
    assert "runtime docker (auto: " in done.stderr and "device cpu (auto: " in done.stderr
    report = harness.read(harness.runs(output)[-1] / "report.json")
    assert report["placement"]["runtime"] == "docker" and report["devices"] == {"legacy-py37": "cpu"}


def test_auto_stays_with_the_runtime_of_the_output_folder(audio, output):
    harness.write_wavs(audio, 2)
    job = harness.write_job(output, audio, TONE)
    for flags, said in (
        (("--runtime", "venv"), "runtime venv (asked for)"),
        ((), "runtime venv (auto: the output folder was made with it; `--runtime docker` would serve as well)"),
    ):
        done = harness.consort("extract", job, "--limit", 1, *flags)
        assert done.returncode == 0 and said in done.stderr, done.stderr


def test_a_worker_cannot_leave_its_container(audio, output, start):
    harness.write_wavs(audio, 1)
    before = sorted(os.listdir(audio))
    running = start("extract", harness.write_job(output, audio, {**PRYING, "params": {"pause": 3}}, runtime="docker"))
    (name,) = until(lambda: containers("status=running"))
    (facts,) = json.loads(docker("inspect", name))
    assert running.wait() == 0, running.text

    host, config = facts["HostConfig"], facts["Config"]
    assert host["NetworkMode"] == "none" and host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert not host["Privileged"] and not host["CapAdd"] and "no-new-privileges" in host["SecurityOpt"]
    assert host["PidsLimit"] >= 512 and 0 < host["Memory"] == host["MemorySwap"]
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {"core": 0, "nofile": 1024}
    assert config["User"] == f"{os.getuid()}:{os.getgid()}"
    writable = {mount["Destination"]: mount["RW"] for mount in facts["Mounts"]}
    assert writable.pop("/output") is True
    assert {str(audio), "/weights"} <= set(writable) and not any(writable.values())

    found = np.load(output / "prying" / "good_00.npy")
    assert found[:5].tolist() == [0, 0, 0, 0, 1], "audio, weights, root, network, /tmp"
    assert found[5:].tolist() == [os.getuid(), os.getgid()]
    assert sorted(os.listdir(audio)) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make folders of others")
def test_root_writes_as_the_owner_of_the_output_folder(audio, output):
    harness.write_wavs(audio, 1)
    output.mkdir()
    os.chown(output, 1234, 2345)
    done = harness.consort("extract", harness.write_job(output, audio, PRYING, runtime="docker"))
    assert done.returncode == 0, done.stderr + done.stdout
    array = output / "prying" / "good_00.npy"
    assert np.load(array)[5:].tolist() == [1234, 2345]
    assert (array.stat().st_uid, array.stat().st_gid) == (1234, 2345)


def test_paths_with_every_kind_of_character_reach_the_container(tmp_path):
    audio = tmp_path / 'a, "b" =c' / "ü ~"
    output = tmp_path / "o,ut put"
    harness.write_wav(audio / "x, y.wav")
    harness.write_wav(tmp_path / "audio" / "elsewhere.wav")
    (audio / "absolute.wav").symlink_to(audio / "x, y.wav")
    (audio / "relative.wav").symlink_to("x, y.wav")
    done = harness.consort("extract", harness.write_job(output, audio, TONE, runtime="docker"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert sorted(item for _, item in harness.written(output)) == ["absolute.wav", "relative.wav", "x, y.wav"]


def test_weights_of_the_users_own_are_mounted_or_refused(audio, output, tmp_path):
    harness.write_wavs(audio, 1)

    def own(name, folder):
        (folder / "pytorch_model.bin").write_bytes(b"own")
        return {"name": name, "extractor": "weighted:Weighted", "params": {"checkpoint": str(folder)}}

    with tempfile.TemporaryDirectory(dir="/dev/shm") as reserved:
        models = own("mine", tmp_path), own("theirs", pathlib.Path(reserved))
        done = harness.consort("extract", harness.write_job(output, audio, *models, runtime="docker"))
    assert done.returncode == 3, done.stderr
    assert harness.written(output) == {("mine", "good_00.wav")}, "the others go on"
    assert f"{reserved}/pytorch_model.bin would hide a part of the container; move it" in done.stdout


def test_memory_that_is_too_small_for_a_batch_is_enough_for_a_smaller_one(audio, output, tmp_path):
    harness.write_wav(audio / "a.wav", seconds=20)
    model = {"name": "hungry", "extractor": "prying:Hungry", "batch_size": 16}
    job = harness.write_job(output, audio, model, runtime="docker", memory="512MB")
    done = harness.consort("extract", job)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "legacy-py37: a worker ended (out of memory); goes on with 1 items" in done.stderr
    sizes = [harness.read(path)["tasks"][0]["batch_size"] for path in harness.launched(output)]
    assert sorted(sizes) == [1, 8, 16]
    calm = harness.consort("extract", job, "--runtime", "venv", "--output", tmp_path / "calm", "--memory", "8GB")
    assert calm.returncode == 0, calm.stderr
    small, large = (np.load(folder / "hungry" / "a.npy") for folder in (output, tmp_path / "calm"))
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_a_share_of_the_memory_that_is_too_small_is_named(audio, output):
    harness.write_wav(audio / "a.wav", seconds=80)
    model = {"name": "hungry", "extractor": "prying:Hungry", "batch_size": 80}  # 5 GB
    done = harness.consort("extract", harness.write_job(output, audio, model, runtime="docker", workers=64))
    assert done.returncode == 0, done.stderr + done.stdout
    share = re.search(r"up to 64 workers, each may take (.*; `memory:` sets another limit)\n", done.stderr)
    assert share is not None
    assert f"a worker ended (out of memory: it may take {share[1]}); goes on with 1 items" in done.stderr


def test_links_that_lead_out_are_followed_into_containers_too(audio, output, tmp_path):
    harness.write_wav(audio / "real.wav")
    harness.write_wav(tmp_path / "blobs" / "4f1c", pitch=300)
    (audio / "deep").mkdir()
    (audio / "deep" / "one.wav").symlink_to("../../blobs/4f1c")
    (audio / "rows.csv").write_text("path,start,end\nreal.wav,,\ndeep/one.wav,0.1,0.4\ndeep/one.wav,,\n")
    made = {}
    for runtime in ("docker", "venv"):
        made[runtime] = output.with_name(runtime)
        job = harness.write_job(made[runtime], audio / "rows.csv", TONE, links="follow", runtime=runtime)
        done = harness.consort("extract", job)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(harness.manifest(made["docker"])) == 3
    assert fingerprint(made["docker"]) == fingerprint(made["venv"])
