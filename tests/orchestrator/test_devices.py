"""Which GPUs a job is granted. `nvidia-smi` is played by a script that prints what the real one prints."""

import pytest

from orchestrator.environments import definitions, devices
from orchestrator.environments.devices import Found, Gpu, discover, grant
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.job import spec
from orchestrator.running import placement

FIRST = Gpu(0, "GPU-11111111-0000-4000-8000-000000000001", "NVIDIA H200", 143771)
SECOND = Gpu(1, "GPU-22222222-0000-4000-8000-000000000002", "NVIDIA H200", 143771)
B200 = Gpu(0, "GPU-1", "NVIDIA B200", 183359, "580.65.06", "10.0")
HOPPER = Gpu(1, "GPU-2", "NVIDIA H200", 143771, "580.65.06", "9.0")
LISTED = "".join(f"{g.index}, {g.uuid}, {g.name}, {g.memory}\n" for g in (FIRST, SECOND))


def two():
    return Found((FIRST, SECOND))


def none():
    return Found((), "no NVIDIA driver")


@pytest.fixture
def smi(tmp_path):
    """Return a function that puts an `nvidia-smi` on a PATH of its own, and returns that environment."""

    def put(text, code=0, **variables):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}

    return put


def test_gpus_are_read_from_nvidia_smi(smi):
    assert discover(smi(LISTED)).gpus == (FIRST, SECOND)


def test_driver_and_capability_are_read_where_nvidia_smi_tells_them(tmp_path, smi):
    assert discover(smi("0, GPU-1, NVIDIA B200, 183359, 580.65.06, 10.0\n")).gpus == (B200,)
    environ = smi("")
    old = 'Field "compute_cap" is not a valid field to query.\n'
    script = f"#!/bin/sh\ncase $1 in *compute_cap*) printf '{old}'; exit 2;; esac\necho 0, GPU-1, K80, 1, 440.33\n"
    (tmp_path / "nvidia-smi").write_text(script)
    assert discover(environ).gpus == (Gpu(0, "GPU-1", "K80", 1, "440.33"),)


@pytest.mark.parametrize(
    ("environment", "driver", "capability", "why"),
    [
        ("torch-cuda", "580.65.06", "7.5", None),
        ("torch-cuda", "590.1", "12.1", None),  # of the last generation that there are kernels for
        ("torch-cuda", "575.57.08", "9.0", "driver 575.57.08 is too old: torch-cuda needs 580 or newer"),
        ("torch-cuda", "580.65.06", "7.0", "NVIDIA X is sm_70: torch-cuda serves sm_75 to sm_120"),
        ("torch-cuda", "580.65.06", "13.0", "NVIDIA X is sm_130: torch-cuda serves sm_75 to sm_120"),
        ("torch-cuda", "", "", None),
        ("torch-cuda", "[N/A]", "[N/A]", None),
        ("tf-cuda", "525.60.13", "6.0", None),
        ("tf-cuda", "580.65.06", "10.0", "NVIDIA X is sm_100: tf-cuda serves sm_60 to sm_90"),
        ("tf-cuda", "520.1", "9.0", "driver 520.1 is too old: tf-cuda needs 525 or newer"),
        ("legacy-py37", "1.0", "1.0", None),
    ],
)
def test_a_gpu_below_the_floor_of_an_environment_is_no_gpu_for_it(environment, driver, capability, why):
    gpu = Gpu(0, "GPU-1", "NVIDIA X", 1, driver, capability)
    assert devices.unfit(gpu, definitions.find(environment)) == why


def place(monkeypatch, tmp_path, gpus, asked):
    """Return where crepe, of TensorFlow, and mert, of PyTorch, run on a machine with some GPUs."""
    monkeypatch.setattr(placement.devices, "grant", lambda asked: grant(asked, lambda: Found(gpus)))
    places = {"audio": str(tmp_path), "output": str(tmp_path / "out"), "runtime": "venv"}
    return placement.choose(spec.check({**places, "models": ["crepe", "mert"], "devices": asked}))


def test_auto_uses_the_cpu_for_an_environment_that_cannot_use_the_gpu(monkeypatch, tmp_path):
    placed = place(monkeypatch, tmp_path, (B200,), "auto")
    assert (placed.device("tf-cuda"), placed.device("torch-cuda")) == ("cpu", "cuda")
    assert (placed.flags("tf-cuda"), placed.flags("torch-cuda")) == (["cpu_fallback"], [])
    why = "tf-cuda on the CPU (GPU GPU-1: NVIDIA B200 is sm_100: tf-cuda serves sm_60 to sm_90)"
    assert placed.devices == f"cuda NVIDIA B200; {why}"


def test_a_job_that_insists_is_refused_with_the_way_to_mend_it(monkeypatch, tmp_path):
    words = r"GPU GPU-1: NVIDIA B200 is sm_100: .*; install NVIDIA's driver .*; tf-cuda needs driver 525 or newer and a"
    with pytest.raises(EnvironmentUnavailable, match=words):
        place(monkeypatch, tmp_path, (B200,), "cuda")


def test_of_two_gpus_each_environment_has_those_that_serve_it(monkeypatch, tmp_path):
    placed = place(monkeypatch, tmp_path, (B200, HOPPER), "cuda")
    assert (placed.gpus("tf-cuda"), placed.gpus("torch-cuda")) == (["GPU-2"], ["GPU-1", "GPU-2"])
    assert placed.devices == "cuda NVIDIA B200, NVIDIA H200" and placed.flags("tf-cuda") == []


@pytest.mark.parametrize(
    ("variable", "seen"),
    [("MIG-5f1c", (Gpu(-1, "MIG-5f1c", "MIG", 0),)),
     ("0,1", (FIRST, SECOND)), ("1", (SECOND,)), (SECOND.uuid, (SECOND,)), ("GPU-1", (FIRST,)), ("1,7,0", (SECOND,)),
     ("", ()), ("-1", ())],
)  # fmt: skip
def test_gpus_that_a_scheduler_hides_are_not_seen(smi, variable, seen):
    found = discover(smi(LISTED, CUDA_VISIBLE_DEVICES=variable))
    assert found.gpus == seen
    assert bool(found.reason) is not bool(seen)


def test_a_machine_without_a_driver_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_WSL", str(tmp_path / "absent"))
    assert "nvidia-smi is not there" in discover({"PATH": str(tmp_path)}).reason


def test_a_warning_does_not_hide_the_other_gpus(smi):
    assert discover(smi(LISTED + "Unable to determine the device handle for GPU0000:02:00.0\n", 6)).gpus == (
        FIRST,
        SECOND,
    )


def test_a_broken_driver_says_what_nvidia_smi_says(smi):
    found = discover(smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9))
    assert not found.gpus and "couldn't communicate" in found.reason


@pytest.mark.parametrize(
    ("asked", "uuids", "strict"),
    [
        ("auto", [FIRST.uuid, SECOND.uuid], False),
        ("cuda", [FIRST.uuid, SECOND.uuid], True),
        ("cuda:1", [SECOND.uuid], True),
        ([1, FIRST.uuid], [SECOND.uuid, FIRST.uuid], True),
        (["cuda:0", 0], [FIRST.uuid, FIRST.uuid], True),
        (["MIG-5f1c"], ["MIG-5f1c"], True),
    ],
)
def test_a_job_is_granted_what_it_asks_for(asked, uuids, strict):
    given = grant(asked, two)
    assert ([gpu.uuid for gpu in given.gpus], given.strict) == (list(dict.fromkeys(uuids)), strict)


def test_the_cpu_is_granted_without_looking():
    assert grant("cpu", lambda: pytest.fail("looked")).gpus == ()


def test_auto_says_why_there_is_no_gpu():
    given = grant("auto", none)
    assert (given.gpus, given.reason, given.strict) == ((), "auto: no NVIDIA driver", False)


@pytest.mark.parametrize("asked", ["cuda", "cuda:0", [0]])
def test_a_gpu_that_is_not_there_is_one_line_with_the_way_to_mend_it(asked):
    with pytest.raises(EnvironmentUnavailable, match=r"no NVIDIA driver; install NVIDIA's driver .*`devices: auto`"):
        grant(asked, none)


def test_an_unknown_gpu_is_refused_with_the_known_ones():
    with pytest.raises(EnvironmentUnavailable, match=rf"no GPU 7 here; there is 0 = {FIRST.uuid} \(NVIDIA H200\), 1"):
        grant("cuda:7", two)


@pytest.mark.parametrize(
    "words",
    [
        'could not select device driver "nvidia" with capabilities: [[gpu]]',
        "OCI runtime create failed: nvidia-container-cli: initialization error: driver not loaded",
        "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0",
    ],
)
def test_what_an_engine_says_about_gpus_is_known(words):
    assert devices.problem(words) == words


@pytest.mark.parametrize("words", [None, "", "no space left on device"])
def test_other_troubles_are_not_about_gpus(words):
    assert devices.problem(words) is None
