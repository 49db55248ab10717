"""How exactly PyTorch computes, said once for all models of a process."""

import torch


def switch_off_tf32() -> None:
    """Let a GPU multiply in full float32: TF32 rounds the inputs of its products to 10 bits, three digits less.

    Every model calls this before it computes, whatever its device: the switch is the process's, and on a CPU it
    means nothing.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
