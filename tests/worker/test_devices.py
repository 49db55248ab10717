"""What a worker finds when it looks for its GPU. The driver is played by functions with its signatures."""

import ctypes
import uuid

import pytest

from worker.errors import DeviceError
from worker.work import devices
from worker.work.devices import Device

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
        ("shapes cannot be multiplied", False),
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


@pytest.mark.parametrize("error,yes", [(ResourceExhaustedError("OOM"), True), (RuntimeError("OOM"), False)])
def test_the_errors_of_frameworks_are_known_by_their_names(error, yes):
    assert devices.is_out_of_memory(error) is yes
