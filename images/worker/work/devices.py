"""The device that a worker was granted, asked of the driver itself before any framework is imported.

A container that was to have a GPU may have been started without one, and a framework that finds none
computes on the CPU without a word: a worker therefore looks, and says what it has in its `hello`.
Functions of the CUDA driver API (`libcuda`), which needs no framework and no toolkit. What a driver shows may still
be of no use to the framework, which therefore computes something before any model is loaded.
"""

import ctypes
import importlib
import sys
import typing as tp
import uuid

from worker.errors import DeviceMissing
from worker.protocol import one_line

_LIBRARY = "libcuda.so.1"
_NAME_LENGTH = 256
# What frameworks that none of this code imports say of a GPU that fails them (tests/worker/data/gpu_messages.txt).
_BROKEN = (
    "CUDA error",
    "CUDA_ERROR_",
    "cudaError",
    "cudaGetDeviceCount",
    "CUDA driver",
    "NVIDIA driver",
    "finds no GPU",
    "GPU sync failed",
    "cuDNN error",
    "cuDNN failed",
    "CUDNN_STATUS_",
    "DNN library initialization failed",
    "No DNN in stream executor",
    "CUBLAS_STATUS_",
    "cublas runtime error",
    "without BLAS support",
)
# What they say of a call that no GPU would take: the model's fault.
_ASKED_WRONGLY = ("CUDNN_STATUS_NOT_SUPPORTED", "CUDNN_STATUS_BAD_PARAM")
_FULL = ("OutOfMemoryError", "ResourceExhaustedError")  # by their type, or by their words
_SAYS_FULL = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


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
    if is_out_of_memory(error) or any(sign in words for sign in _ASKED_WRONGLY):
        return False
    return any(sign in words for sign in _BROKEN)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a framework says that its device has no memory left; a smaller batch may fit."""
    named = any(kind.__name__ in _FULL for kind in type(error).__mro__)
    return named or (isinstance(error, Exception) and any(sign in str(error) for sign in _SAYS_FULL))


def probe(module: str) -> None:
    """Let the framework of this environment compute something on the GPU and read it back.

    Args:
        module: of the environment, whose `probe()` does that; "" where it has none.

    Raises:
        DeviceMissing: it cannot; the message is the framework's.
    """
    if not module:
        return
    try:
        importlib.import_module(module).probe()
    except (Exception, SystemExit) as error:
        raise DeviceMissing("the framework cannot use its GPU: {}".format(one_line(error))) from error


def empty_cache(module: str) -> None:
    """Let the framework give back the memory that it keeps, where `module` has an `empty_cache()`."""
    empty = getattr(sys.modules.get(module), "empty_cache", None)
    if empty is not None:
        empty()


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
