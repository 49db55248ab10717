"""Where PyTorch computes, and how exactly, said once for all models of a process."""

import gc

import torch


def switch_off_tf32() -> None:
    """Let a GPU multiply in full float32: TF32 rounds the inputs of its products to 10 bits, three digits less.

    Every model calls this before it computes, whatever its device: the switch is the process's, and on a CPU it
    means nothing.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def probe() -> None:
    """Multiply and convolve on the GPU, and read the numbers back: a driver may show a GPU that PyTorch cannot use.

    Raises:
        RuntimeError: it cannot, or computes something else.
    """
    switch_off_tf32()
    ones = torch.ones(1, 32, 32, device="cuda")
    found = torch.nn.functional.conv1d(ones @ ones, ones[:, :, :1].contiguous()).cpu()
    if not torch.equal(found, torch.full((1, 1, 32), 1024.0)):
        raise RuntimeError(f"the GPU computes wrongly: {found.flatten()[:4].tolist()} should be 1024")


def empty_cache() -> None:
    """Give the driver back what PyTorch keeps of freed memory: in pieces, it may not hold a smaller batch either."""
    gc.collect()  # an error and its frames refer to each other, and to what these had allocated
    torch.cuda.empty_cache()
