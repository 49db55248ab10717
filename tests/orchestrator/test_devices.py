"""Which GPUs a job is granted. `nvidia-smi` is played by a script that prints what the real one prints."""

import pytest

from orchestrator.environments import devices
from orchestrator.environments.devices import Found, Gpu, discover, grant
from orchestrator.errors import EnvironmentUnavailable

FIRST = Gpu(0, "GPU-11111111-0000-4000-8000-000000000001", "NVIDIA H200", 143771)
SECOND = Gpu(1, "GPU-22222222-0000-4000-8000-000000000002", "NVIDIA H200", 143771)
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
