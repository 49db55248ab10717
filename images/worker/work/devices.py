"""The device that a worker was granted, asked of the driver itself before any framework is imported.

A container that was to have a GPU may have been started without one, and a framework that finds none
computes on the CPU without a word: a worker therefore looks, and says what it has in its `hello`.
Functions of the CUDA driver API (`libcuda`), which needs no framework and no toolkit.
"""

import ctypes
import typing as tp
import uuid

from worker.errors import DeviceMissing

_LIBRARY = "libcuda.so.1"
_NAME_LENGTH = 256
# Names of the errors of frameworks that none of this code imports.
_BROKEN = ("CUDA error", "CUDA_ERROR_", "cuDNN error", "CUBLAS_STATUS_", "cudaError")
_OUT_OF_MEMORY = ("OutOfMemoryError", "ResourceExhaustedError")


class Device(tp.NamedTuple):
    """What a worker computes on: `kind` is cpu or cuda, `name` what records say."""

    kind: str
    name: str


CPU = Device("cpu", "cpu")


def look(kind: str, granted: tp.Sequence[str] = (), library: tp.Any = None) -> Device:
    """Return the device that a worker really has.

    Args:
        kind: "cpu" or "cuda".
        granted: UUIDs of the GPUs that the host meant; none where it did not choose.
        library: of the driver; None loads the system's.

    Raises:
        DeviceMissing: there is no GPU, or another one.
    """
    if kind == "cpu":
        return CPU
    found = _gpus(library or _load())
    if not found:
        raise DeviceMissing("was granted a GPU, but the driver shows none")
    missing = [one for one in granted if _number(one) not in [_number(seen) for seen in found]]
    if missing:
        raise DeviceMissing("was granted {}, but sees {}".format(", ".join(missing), ", ".join(found)))
    return Device("cuda", "cuda " + next(iter(found.values())))


def is_broken(error: BaseException) -> bool:
    """Return whether a framework says that its GPU is of no use to this process any more."""
    words = str(error)
    return not is_out_of_memory(error) and any(sign in words for sign in _BROKEN)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a framework says that its device has no memory left; a smaller batch may fit."""
    return any(kind.__name__ in _OUT_OF_MEMORY for kind in type(error).__mro__)


def _number(name: str) -> str:
    """Return a UUID without the word before it: GPU, or MIG for a part of one."""
    return name.partition("-")[2].lower()


def _load() -> tp.Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise DeviceMissing("was granted a GPU, but has no {}: {}".format(_LIBRARY, error)) from error


def _gpus(library: tp.Any) -> tp.Dict[str, str]:
    """Return {UUID: name} of all GPUs that this process may use."""
    _call(library.cuInit, 0)
    count = ctypes.c_int()
    _call(library.cuDeviceGetCount, ctypes.byref(count))
    found = {}
    for index in range(count.value):
        device = ctypes.c_int()
        _call(library.cuDeviceGet, ctypes.byref(device), index)
        name = ctypes.create_string_buffer(_NAME_LENGTH)
        _call(library.cuDeviceGetName, name, _NAME_LENGTH, device)
        found[_uuid(library, device)] = name.value.decode("utf-8", "replace")
    return found


def _uuid(library: tp.Any, device: ctypes.c_int) -> str:
    """Return the UUID as nvidia-smi prints it. Version 2 of the function tells the parts of a GPU (MIG) apart."""
    number = (ctypes.c_ubyte * 16)()
    function = getattr(library, "cuDeviceGetUuid_v2", None) or library.cuDeviceGetUuid
    _call(function, ctypes.byref(number), device)
    return "GPU-{}".format(uuid.UUID(bytes=bytes(number)))


def _call(function: tp.Any, *arguments: tp.Any) -> None:
    code = function(*arguments)
    if code:
        raise DeviceMissing("was granted a GPU, but the driver answers with error {}".format(code))
