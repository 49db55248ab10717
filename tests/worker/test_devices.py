"""What a worker finds when it looks for its GPU. The driver is played by functions with its signatures."""

import ctypes
import pathlib
import sys
import types
import uuid

import pytest

from worker.errors import DeviceError
from worker.work import devices
from worker.work.devices import Device

# What frameworks were seen to say, in issues of theirs; the last is out-of-memory, which breaks nothing.
MESSAGES = (pathlib.Path(__file__).parent / "data" / "gpu_messages.txt").read_text("utf-8").splitlines()
FIRST = uuid.UUID("4a1c3f10-0000-4000-8000-000000000001")
SECOND = uuid.UUID("4a1c3f10-0000-4000-8000-000000000002")


class Driver:
    """`libcuda` of a machine with some GPUs of one kind."""

    def __init__(self, *uuids, code=0, version=2):
        self.uuids = uuids
        self.code = code
        name = "cuDeviceGetUuid_v2" if version == 2 else "cuDeviceGetUuid"
        setattr(self, name, self.get_uuid)

    def cuInit(self, flags):  # noqa: N802 - the driver's own name
        return self.code

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.uuids)
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, length, device):  # noqa: N802
        name.value = b"NVIDIA H200"
        return 0

    def get_uuid(self, number, device):
        ctypes.memmove(number._obj, self.uuids[device.value].bytes, 16)
        return 0


def test_a_cpu_needs_no_driver():
    assert devices.look("cpu", library=Driver(code=999)) == Device("cpu", "cpu")


@pytest.mark.parametrize("version", [1, 2])
def test_the_granted_gpu_is_found_and_named_by_its_kind(version):
    driver = Driver(FIRST, SECOND, version=version)
    assert devices.look("cuda", ["GPU-{}".format(SECOND)], driver) == Device("cuda", "cuda NVIDIA H200")


def test_a_part_of_a_gpu_is_known_by_its_number():
    assert devices.look("cuda", ["MIG-{}".format(SECOND)], Driver(SECOND)).kind == "cuda"


@pytest.mark.parametrize(
    "words,yes",
    [
        ("CUDA error: an illegal memory access was encountered", True),
        ("Failed call to cuInit: CUDA_ERROR_NO_DEVICE", True),
        *[(message, True) for message in MESSAGES[:-1]],
        (MESSAGES[-1], False),  # out of memory
        ("shapes cannot be multiplied", False),
        ("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!", False),
        ("Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) should be the same", False),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. You may have passed in a non-contiguous input.", False),
        ("cuDNN error: CUDNN_STATUS_BAD_PARAM", False),
        ("Dst tensor is not initialized; the audio holds NaN", False),
    ],
)
def test_a_broken_gpu_is_told_from_a_broken_item(words, yes):
    assert devices.is_broken(RuntimeError(words)) is yes


def test_any_gpu_will_do_where_the_host_did_not_choose():
    assert devices.look("cuda", (), Driver(FIRST)).kind == "cuda"


def test_another_gpu_than_the_granted_one_is_an_error():
    with pytest.raises(DeviceError, match=r"was granted GPU-4a1c.*2, but sees GPU-4a1c.*1"):
        devices.look("cuda", ["GPU-{}".format(SECOND)], Driver(FIRST))


def test_no_gpu_is_an_error():
    with pytest.raises(DeviceError, match="the driver shows none"):
        devices.look("cuda", (), Driver())


def test_a_broken_driver_is_an_error():
    with pytest.raises(DeviceError, match="answers with error 999"):
        devices.look("cuda", (), Driver(FIRST, code=999))


def test_a_missing_driver_is_an_error(monkeypatch):
    monkeypatch.setattr(devices, "_LIBRARY", "libnothing.so.1")
    with pytest.raises(DeviceError, match=r"has no libnothing\.so\.1"):
        devices.look("cuda")


class ResourceExhaustedError(Exception):
    """As TensorFlow names it."""


@pytest.mark.parametrize(
    "error,yes",
    [
        (ResourceExhaustedError("OOM"), True),
        (RuntimeError("OOM"), False),
        (RuntimeError(MESSAGES[-1]), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Failed to allocate: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        *[(RuntimeError(message), False) for message in MESSAGES[:-1]],
    ],
)
def test_the_errors_of_frameworks_are_known_by_their_names(error, yes):
    assert devices.is_out_of_memory(error) is yes


@pytest.fixture
def framework(monkeypatch):
    """Return a module of an environment, which can be imported."""
    monkeypatch.setitem(sys.modules, "consort_gpu", types.ModuleType("consort_gpu"))
    return sys.modules["consort_gpu"]


@pytest.mark.parametrize("error", [*map(RuntimeError, MESSAGES), ImportError("libcublas.so.13"), SystemExit(1)])
def test_a_gpu_that_the_framework_cannot_use_is_none(framework, error):
    def probe():
        raise error

    framework.probe = probe
    with pytest.raises(DeviceError, match="the framework cannot use its GPU: ") as caught:
        devices.probe("consort_gpu")
    assert str(error) in str(caught.value)


def test_a_gpu_that_computes_is_left_alone(framework):
    calls = []
    framework.probe = lambda: calls.append("probe")
    devices.probe("consort_gpu")
    devices.empty_cache("consort_gpu")  # it has none
    framework.empty_cache = lambda: calls.append("empty")
    devices.empty_cache("consort_gpu")
    devices.probe("")
    devices.empty_cache("")
    assert calls == ["probe", "empty"]
    with pytest.raises(DeviceError, match="No module named 'consort_absent'"):
        devices.probe("consort_absent")
