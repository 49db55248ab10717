"""Where a computation runs: what was asked for, or an error; never something else without a word."""

import warnings

import torch
from torch_models import devices


class DefaultDevice(str):
    """A device that nobody asked for: it may be replaced, with a warning."""


CUDA = DefaultDevice("cuda")


def choose(device: str) -> str:
    """Return the device to use: "cpu", "cuda" or "cuda:N"; the default of a signature falls back to the CPU.

    Raises:
        ValueError: no device, or one that is not here.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is none of cpu, cuda and cuda:N") from error
    devices.switch_off_tf32()
    if kind == "cpu" or (kind == "cuda" and torch.cuda.is_available()):
        return str(device)
    if isinstance(device, DefaultDevice):
        warnings.warn("no CUDA device is here, so the CPU is used; say device='cpu' to agree", stacklevel=3)
        return "cpu"
    raise ValueError(f"device {str(device)!r} is not available here; use device='cpu'")
