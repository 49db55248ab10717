"""GPUs that a framework cannot use, by everything that frameworks were seen to say of them.

There is no GPU here: nvidia-smi, the driver and the framework are those of `machine`.
"""

import os

import harness
import machine
import pytest
from machine import MESSAGES, UUIDS, failing

from orchestrator.checking import gpus as checking
from orchestrator.environments import definitions, devices

MEND = "install NVIDIA's driver (for containers also its nvidia-container-toolkit), or use `devices: auto` or `cpu`"
NEEDS = "own_gpu needs driver 580 or newer and a GPU of sm_75 to sm_90"
FULL = MESSAGES[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = machine.build(tmp_path_factory.mktemp("machine"))
    for variant in ("cpu", "cuda"):
        done = harness.consort("envs", "build", made.environment, "--variant", variant)
        assert done.returncode == 0, done.stderr
    yield made
    done = harness.consort("envs", "remove", made.environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def gpus(built, audio):
    """Return a machine with one GPU, on which a framework finds nothing wrong, and write two files."""
    built.list()
    built.declare()
    harness.write_wavs(audio, 2, seconds=1.0)
    return built


def computed_on(output):
    """Return {model: (device, whether a GPU was meant)} of all records."""
    found = {}
    for record in harness.manifest(output):
        context = harness.read(output / ".consort/contexts" / f"{record['context']}.json")
        found.setdefault(record["model"], set()).add((context["device"], "cpu_fallback" in record["flags"]))
    return found


GPU, FALLBACK = {("cuda NVIDIA Test", False)}, {("cpu", True)}


def test_a_gpu_that_can_be_used_is_used(gpus, audio, output):
    done = gpus.extract(gpus.job(output, audio, failing("fine", "never"), devices="cuda"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert computed_on(output) == {"fine": GPU} and "device: cuda NVIDIA Test;" in done.stdout


def test_what_fails_while_it_loads_goes_on_with_the_cpu_whatever_its_words(gpus, audio, output):
    names = [f"m{n:02}" for n in range(len(MESSAGES))]
    models = [failing(name, "load", says) for name, says in zip(names, MESSAGES, strict=True)]
    job = gpus.job(output, audio, *models, failing("fine", "never"), devices="auto")
    done = gpus.extract(job)
    assert done.returncode == 0, done.stderr + done.stdout
    assert computed_on(output) == {"fine": GPU, **dict.fromkeys(names, FALLBACK)}
    report = harness.read(harness.runs(output)[-1] / "report.json")
    states = harness.status(job)["models"]
    for name, says in zip(names, MESSAGES, strict=True):
        assert f"{name}: NO GPU: {says}; goes on with the CPU ({MEND}; {NEEDS})" in done.stderr
        for said in (done.stdout, report["placement"]["devices"]):
            assert f"{name} on the CPU (GPU {UUIDS[0]}: {says})" in said
        assert states[name]["devices"] == ["cpu (fallback)"]
    assert states["fine"]["devices"] == ["cuda NVIDIA Test"]

    done = gpus.extract(job, "--devices", "cuda", "--output", f"{output}-strict")
    assert done.returncode == 3, done.stderr + done.stdout
    for name, says in zip(names, MESSAGES, strict=True):
        assert f"missing     {name}: GPU {UUIDS[0]}: {says}; {MEND}; {NEEDS}" in done.stdout
    assert computed_on(output.with_name("out-strict")) == {"fine": GPU}, "the others go on"


@pytest.mark.parametrize("says", MESSAGES[:-1])
def test_what_fails_in_the_middle_goes_on_with_the_cpu(gpus, audio, output, says):
    job = gpus.job(output, audio, failing("broken", "extract", says), devices="auto")
    done = gpus.extract(job)
    assert done.returncode == 0, done.stderr + done.stdout
    assert computed_on(output) == {"broken": FALLBACK}
    assert f"own_gpu: NO GPU: {says}; goes on with the CPU ({MEND}; {NEEDS})" in done.stderr
    assert f"device: cpu (GPU {UUIDS[0]}: {says});" in done.stdout


@pytest.mark.parametrize("says", MESSAGES[:-1])
def test_what_fails_in_the_middle_ends_a_job_that_insists(gpus, audio, output, says):
    done = gpus.extract(gpus.job(output, audio, failing("broken", "extract", says), devices="cuda"))
    assert done.returncode == 3, done.stderr + done.stdout
    assert f"missing     broken: GPU {UUIDS[0]}: {says}; {MEND}; {NEEDS}" in done.stdout
    assert harness.manifest(output) == [] and harness.failures(output) == {}, "no item is blamed"


@pytest.mark.parametrize("devices", ["auto", "cuda"])
def test_want_of_memory_halves_the_batch_and_stays_on_the_gpu(gpus, audio, output, devices):
    done = gpus.extract(gpus.job(output, audio, failing("large", "extract", FULL, most=2), devices=devices))
    assert done.returncode == 0, done.stderr + done.stdout
    assert computed_on(output) == {"large": GPU}
    (log,) = (harness.runs(output)[-1] / "logs").glob("*own_gpu*.log")
    lines = log.read_text()
    for sizes in ("8 -> 4", "4 -> 2"):
        before, found, _ = lines.partition(f"batch {sizes}: {FULL}")
        assert found and before.count("the cache is emptied") == (1 if sizes[0] == "8" else 2)


@pytest.mark.parametrize("says", MESSAGES[::5])
def test_a_gpu_that_computes_nothing_is_known_before_any_model_loads(gpus, audio, output, says):
    gpus.list(2)
    gpus.declare(says)
    job = gpus.job(output, audio, failing("one", "never"), failing("two", "never"), harness.TONE, devices="auto")
    done = gpus.extract(job)
    assert done.returncode == 0, done.stderr + done.stdout
    assert computed_on(output) == {"one": FALLBACK, "two": FALLBACK, "tone": {("cpu", False)}}
    why = f"the framework cannot use its GPU: {says}"
    assert f" is left out: {why}\n" in done.stderr and f"own_gpu: NO GPU: {why};" in done.stderr
    done = gpus.extract(job, "--devices", "cuda", "--output", f"{output}-strict")
    assert done.returncode == 3, done.stderr + done.stdout
    assert f": {why}; {MEND}; {NEEDS}" in next(line for line in done.stdout.splitlines() if "missing     two: " in line)
    assert computed_on(output.with_name("out-strict")) == {"tone": {("cpu", False)}}


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ({"driver": "570.1"}, "driver 570.1 is too old: own_gpu needs 580 or newer"),
        ({"capability": "12.0"}, "NVIDIA Test is sm_120: own_gpu serves sm_75 to sm_90"),
    ],
)
def test_a_gpu_below_the_floor_is_refused_before_anything_starts(gpus, audio, output, listed, why):
    gpus.list(**listed)
    job = gpus.job(output, audio, failing("fine", "never"), devices="cuda")
    done = gpus.extract(job)
    assert done.returncode == 3 and not output.exists()
    assert done.stderr == f"consort: devices: GPU {UUIDS[0]}: {why}; {MEND}; {NEEDS}\n"
    done = gpus.extract(job, "--devices", "auto")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"device cpu (GPU {UUIDS[0]}: {why})" in done.stderr and f"cpu (GPU {UUIDS[0]}: {why})" in done.stdout
    assert computed_on(output) == {"fine": FALLBACK} and len(harness.launched(output)) == 1


def test_a_model_that_fails_on_the_cpu_too_is_told_as_it_is_without_a_gpu(gpus, audio, output):
    job = gpus.job(output, audio, failing("bad", "load everywhere", "no weights"), failing("fine", "never"))
    done = gpus.extract(job, "--devices", "auto")
    assert done.returncode == 3, done.stderr + done.stdout
    assert "missing     bad: cannot load: no weights\n" in done.stdout
    assert computed_on(output) == {"fine": GPU}


@pytest.mark.parametrize(
    ("says", "listed", "found"),
    [
        ("", {}, (True, "0 = NVIDIA Test: computes")),
        (
            MESSAGES[3],
            {},
            (False, f"0 = NVIDIA Test: the framework cannot use its GPU: {MESSAGES[3]}; {MEND}; {NEEDS}"),
        ),
        ("", {"driver": "570.1"}, (False, f"driver 570.1 is too old: own_gpu needs 580 or newer; {MEND}; {NEEDS}")),
        ("", {"capability": "12.0"}, (True, "NVIDIA Test is sm_120: own_gpu serves sm_75 to sm_90; ")),
        ("", {"count": 0}, (True, "none is here; it would need driver 580 or newer and a GPU of sm_75 to sm_90")),
    ],
)
def test_doctor_lets_each_gpu_compute(gpus, says, listed, found):
    gpus.list(**listed)
    gpus.declare(says)
    definitions.add([str(gpus.environment)])
    seen = devices.discover({"PATH": gpus.path}).gpus
    ((good, text),) = checking.examine(definitions.find("own_gpu"), seen)
    assert good is found[0] and found[1] in text


def test_doctor_says_what_each_environment_needs_and_how_to_mend_what_lacks(gpus, tmp_path):
    def doctor():
        done = harness.consort("doctor", PATH=gpus.path, CONSORT_CACHE=str(tmp_path / "empty"))
        return {(line[:4].strip(), line[6:18].strip()): line[20:] for line in done.stdout.splitlines() if "GPU" in line}

    gpus.list(driver="570.1", capability="12.0")
    said = doctor()
    assert said["ok", "GPU"] == f"0 = NVIDIA Test ({UUIDS[0]}), driver 570.1, sm_120"
    assert "570.1 is too old: torch-cuda needs 580 or newer; install NVIDIA's driver" in said["MEND", "torch-cuda o"]
    assert "sm_120: tf-cuda serves sm_60 to sm_90" in said["ok", "tf-cuda on G"]
    gpus.list()
    text = doctor()["ok", "torch-cuda o"]
    assert "has what is needed (driver 580 or newer and a GPU of sm_75 to sm_120); not tried" in text
    assert text.endswith("`consort envs build torch-cuda --variant cuda`")
    os.unlink(gpus.programs / "nvidia-smi")
    assert "none is here; it would need driver 525 or newer" in doctor()["ok", "tf-cuda on G"]


PLAYED = {
    "torch-cuda": """
import torch
from torch_models import devices
ones = torch.ones
torch.ones = lambda *size, device: ones(*size)
""",
    "tf-cuda": """
import contextlib
import tensorflow as tf
from tf_models import devices
devices.choose = lambda device: None
tf.device = lambda name: contextlib.nullcontext()
""",
}


@pytest.mark.parametrize("environment", PLAYED)
def test_what_a_real_framework_computes_to_try_a_gpu_is_right_and_without_one_it_says_so(environment, tmp_path):
    assert harness.consort("envs", "build", environment, timeout=1500).returncode == 0
    script = tmp_path / "script.py"
    module = f"{environment.partition('-')[0]}_models.devices"
    script.write_text(f"from worker.work import devices\ndevices.probe('{module}')\n")
    done = harness.consort("python", environment, script)
    assert "DeviceMissing: the framework cannot use its GPU: " in done.stderr
    script.write_text(f"{PLAYED[environment]}\ndevices.probe()\nprint('computes')\n")
    done = harness.consort("python", environment, script)
    assert done.stdout.endswith("computes\n"), done.stderr
