"""Which GPU a container is given. There is none here: the engine has a stand-in for NVIDIA's hook, and says which.

`nvidia-smi` is a script that lists two GPUs; the image for GPUs is that for the CPU under its other name, whose worker
notices that it has none. Where a worker is to have one, the driver and the framework are those of `machine`.
"""

import os
import pathlib
import subprocess

import harness
import machine
import pytest
from engine import docker
from harness import TONE
from machine import MESSAGES, UUIDS, failing

from orchestrator.checking import gpus as checking
from orchestrator.environments import definitions, devices

FIRST, SECOND = "GPU-11111111-0000-4000-8000-000000000001", "GPU-22222222-0000-4000-8000-000000000002"
GRAPHIC = {"name": "graphic", "extractor": "prying:Graphic"}
SMI = f"#!/bin/sh\nprintf '0, {FIRST}, NVIDIA H200, 143771\\n1, {SECOND}, NVIDIA H200, 143771\\n'\n"


@pytest.fixture
def path(tmp_path):
    """Return a PATH on which nvidia-smi lists two GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def cuda_image():
    """Give the image for the CPU the name and the lock of the one for GPUs."""
    environment = definitions.find("torch-cuda")
    lock, tag = environment.lock("cuda"), "consort/torch-cuda:cuda"
    text = f"""FROM consort/torch-cuda:cpu
USER 0
COPY {lock.name} /opt/consort/requirements.lock
RUN python -m worker.fingerprint >/opt/consort/made-of.json
LABEL consort.variant=cuda
USER 65534:65534
"""
    command = ["docker", "build", "-q", "-t", tag, "-f", "-", str(environment.folder)]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    yield
    docker("image", "rm", tag)


@pytest.fixture
def hook():
    """Skip where the engine was not started with the stand-in; CI starts it so."""
    asked = ["docker", "run", "--rm", "--gpus", "device=0", "--entrypoint", "printenv", "consort/torch-cuda:cpu"]
    done = subprocess.run([*asked, "NVIDIA_VISIBLE_DEVICES"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("the engine has neither a GPU nor the stand-in of .ci/stub on its PATH")
    assert done.stdout.strip() == "0"


def logs(output: pathlib.Path) -> list[str]:
    return [path.read_text() for path in sorted((harness.runs(output)[-1] / "logs").glob("*.log"))]


@pytest.mark.parametrize(("devices", "uuid"), [("cuda:1", SECOND), ([FIRST], FIRST)])
def test_a_worker_is_started_with_the_gpu_that_was_asked_for(audio, output, path, cuda_image, hook, devices, uuid):
    harness.write_wavs(audio, 1)
    job = harness.write_job(output, audio, GRAPHIC, TONE, runtime="docker", devices=devices)
    done = harness.consort("extract", job, PATH=path)
    assert done.returncode == 3, done.stderr + done.stdout
    assert "device cuda NVIDIA H200" in done.stderr
    (log,) = [text for text in logs(output) if "device cuda" in text]
    assert f"NVIDIA_VISIBLE_DEVICES: {uuid}\n" in log
    assert f"GPU {uuid}: was granted a GPU, but has no libcuda.so.1" in done.stdout
    assert "install NVIDIA's driver (for containers also its nvidia-container-toolkit)" in done.stdout
    assert harness.written(output) == {("tone", "good_00.wav")}, "what needs no GPU goes on"


def test_auto_goes_on_with_the_cpu_and_says_so_everywhere(audio, output, path, cuda_image, hook):
    harness.write_wavs(audio, 3)
    job = harness.write_job(output, audio, GRAPHIC, TONE, runtime="docker", devices="auto")
    done = harness.consort("extract", job, PATH=path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert " is left out: was granted a GPU" in done.stderr  # one of the two, then there is none
    assert "NO GPU: was granted a GPU, but has no libcuda.so.1" in done.stderr
    assert "device: cpu (GPU GPU-" in done.stdout
    flags = {r["model"]: r["flags"] for r in harness.manifest(output)}
    assert "cpu_fallback" in flags["graphic"] and "cpu_fallback" not in flags["tone"]
    contexts = [harness.read(file) for file in (output / ".consort/contexts").glob("*.json")]
    assert {context["model"]: context["device"] for context in contexts} == {"graphic": "cpu", "tone": "cpu"}
    assert harness.status(output)["models"]["graphic"]["devices"] == ["cpu (fallback)"]
    assert "cpu (fallback)" in harness.consort("status", output).stdout
    report = harness.read(harness.runs(output)[-1] / "report.json")
    assert report["placement"]["devices"].startswith("cpu (GPU GPU-")


def test_without_a_gpu_auto_says_why_and_cuda_ends_with_3(audio, output):
    harness.write_wavs(audio, 1)
    job = harness.write_job(output, audio, GRAPHIC, runtime="docker", devices="cuda")
    nowhere = {"PATH": os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not has_smi(p))}
    done = harness.consort("extract", job, **nowhere)
    assert done.returncode == 3 and not output.exists()
    assert len(done.stderr.splitlines()) == 1
    assert "devices: cuda: no NVIDIA driver (nvidia-smi is not there); install NVIDIA's driver" in done.stderr
    done = harness.consort("extract", job, "--devices", "auto", **nowhere)
    assert done.returncode == 0, done.stderr
    assert "device cpu (auto: no NVIDIA driver" in done.stderr and "device: cpu (auto: no NVIDIA" in done.stdout


@pytest.fixture
def gpus(tmp_path, audio):
    """Return a machine with one GPU, whose environment is built as an image by the job, and write a file."""
    made = machine.build(tmp_path)
    harness.write_wavs(audio, 1, seconds=1.0)
    yield made
    assert harness.consort("envs", "remove", made.environment, "--runtime", "docker").returncode == 0


def test_what_a_framework_cannot_do_in_a_container_is_done_on_the_cpu(audio, output, hook, gpus):
    loading, working, full = failing("a", "load", MESSAGES[8]), failing("b", "extract", MESSAGES[14]), MESSAGES[-1]
    job = gpus.job(output, audio, loading, failing("c", "extract", full, most=4), runtime="docker")
    done = gpus.extract(job, "--devices", "auto")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"a: NO GPU: {MESSAGES[8]}; goes on with the CPU (install NVIDIA's driver" in done.stderr
    assert {r["model"]: "cpu_fallback" in r["flags"] for r in harness.manifest(output)} == {"a": True, "c": False}
    assert harness.status(output)["models"]["c"]["devices"] == ["cuda NVIDIA Test"]
    assert any(f"batch 8 -> 4: {full}" in text for text in logs(output))
    job = gpus.job(output, audio, loading, working, runtime="docker", devices="cuda")
    done = gpus.extract(job, "--output", f"{output}-strict")
    assert done.returncode == 3, done.stderr + done.stdout
    for name, said in (("a", MESSAGES[8]), ("b", MESSAGES[14])):
        assert f"missing     {name}: GPU {UUIDS[0]}: {said}; install NVIDIA's driver" in done.stdout

    definitions.add([str(gpus.environment)])
    ((good, text),) = checking.examine(definitions.find("own_gpu"), devices.discover({"PATH": gpus.path}).gpus)
    assert not good and "0 = NVIDIA Test: was granted a GPU, but has no libcuda.so.1" in text, "doctor mounts none"

    gpus.declare(says=MESSAGES[0])
    done = gpus.extract(job, "--output", f"{output}-auto", "--devices", "auto")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"own_gpu: NO GPU: the framework cannot use its GPU: {MESSAGES[0]}; goes on" in done.stderr
    assert all("cpu_fallback" in record["flags"] for record in harness.manifest(output.with_name("out-auto")))


def has_smi(folder):
    return os.path.exists(os.path.join(folder, "nvidia-smi"))
