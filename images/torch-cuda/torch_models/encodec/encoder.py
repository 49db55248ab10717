"""EnCodec's encoder: convolutions down to frames of 320 samples, an LSTM, and one more convolution.

A. Defossez, J. Copet, G. Synnaeve, Y. Adi, "High Fidelity Neural Audio Compression", 2022, section 3.1. The
order of operations is that of transformers' `EncodecEncoder`, whose results it repeats; kernels are folded once.
"""

import typing as tp

import torch
from torch.nn import functional

from torch_models.encodec.layout import HOP, EncodecConfig, Tensors, fold

State = dict[str, tp.Any]  # "lstm": its (h, c); "tail": the last frames that went into the last convolution


class Convolution:
    """One convolution with the padding and the norm that stand around it."""

    def __init__(
        self, settings: EncodecConfig, tensors: Tensors, name: str, device: str, stride: int = 1, dilation: int = 1
    ):
        """Take the tensors of the layer `name`."""
        self._kernel = fold(tensors, f"{name}.conv").to(device)
        self._bias = tensors[f"{name}.conv.bias"].to(device)
        self._stride, self._dilation = stride, dilation
        self.reach = (self._kernel.shape[2] - 1) * dilation + 1 - stride  # samples that it sees beyond its stride
        self._right = 0 if settings.use_causal_conv else self.reach // 2
        self._norm = None
        if settings.norm_type == "time_group_norm":
            self._norm = tensors[f"{name}.norm.weight"].to(device), tensors[f"{name}.norm.bias"].to(device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, C', ceil(T / stride)]` for `[B, C, T]`."""
        missing = -x.shape[2] % self._stride  # of the last step
        return self.run(pad(x, self.reach - self._right, self._right + missing))

    def run(self, padded: torch.Tensor) -> torch.Tensor:
        """Return `[B, C', T']` of what is already padded."""
        x = functional.conv1d(padded, self._kernel, self._bias, self._stride, dilation=self._dilation)
        return x if self._norm is None else functional.group_norm(x, 1, *self._norm)


class Residual:
    """Two convolutions beside a shortcut."""

    def __init__(self, settings: EncodecConfig, tensors: Tensors, name: str, device: str, dilation: int):
        """Take the tensors of the block `name`."""
        self._first = Convolution(settings, tensors, f"{name}.block.1", device, dilation=dilation)
        self._second = Convolution(settings, tensors, f"{name}.block.3", device)
        self._shortcut = None
        if settings.use_conv_shortcut:
            self._shortcut = Convolution(settings, tensors, f"{name}.shortcut", device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, C, T]`."""
        inner = self._second(functional.elu(self._first(functional.elu(x))))
        return (x if self._shortcut is None else self._shortcut(x)) + inner


class Encoder:
    """From audio to latents."""

    def __init__(self, settings: EncodecConfig, tensors: Tensors, device: str):
        """Take all tensors under `encoder.layers.`.

        Raises:
            KeyError: one is missing.
        """
        self._front: list[tp.Callable[[torch.Tensor], torch.Tensor]] = [Convolution(settings, tensors, "0", device)]
        index = 1
        for stride in settings.strides:
            for dilation in settings.dilations:
                self._front.append(Residual(settings, tensors, str(index), device, dilation))
                index += 1
            self._front.append(functional.elu)
            self._front.append(Convolution(settings, tensors, str(index + 1), device, stride))
            index += 2
        lstm = torch.nn.LSTM(settings.width, settings.width, settings.num_lstm_layers)
        lstm.load_state_dict({name: tensors[f"{index}.lstm.{name}"] for name in lstm.state_dict()})
        self._lstm = lstm.requires_grad_(False).to(device).eval()
        self._last = Convolution(settings, tensors, str(index + 2), device)

    def encode(self, wave: torch.Tensor) -> torch.Tensor:
        """Return latents `[B, D, ceil(N / 320)]` of audio `[B, C, N]` that stands alone."""
        return self._last(functional.elu(self._remember(self._reduce(wave), {})))

    def encode_block(self, wave: torch.Tensor, state: State, warm_up: int) -> torch.Tensor:
        """Return the latents `[1, D, T]` of the next block of a stream, equal to those of the whole audio.

        Args:
            wave: `[1, C, N]`; begins with audio that earlier blocks have already seen.
            state: empty at the first block; what the next one needs afterwards.
            warm_up: samples that belong to earlier blocks, a multiple of 320: with three frames of them the
                convolutions have forgotten where the block begins.
        """
        hidden = functional.elu(self._remember(self._reduce(wave)[:, :, warm_up // HOP :], state))
        tail = state.get("tail")
        if tail is not None:
            hidden = torch.cat([tail, hidden], 2)
        state["tail"] = hidden[:, :, -self._last.reach :]
        return self._last(hidden) if tail is None else self._last.run(hidden)

    def _reduce(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, C', T]`, a frame for every 320 samples."""
        for layer in self._front:
            x = layer(x)
        return x

    def _remember(self, x: torch.Tensor, state: State) -> torch.Tensor:
        """Return the LSTM's output beside its input `[B, C, T]`; its memory goes on in `state`."""
        steps = x.permute(2, 0, 1)
        found: torch.Tensor
        found, state["lstm"] = self._lstm(steps, state.get("lstm"))
        return (found + steps).permute(1, 2, 0)


def pad(x: torch.Tensor, left: int, right: int) -> torch.Tensor:
    """Return `[B, C, left + T + right]`, mirrored at both ends.

    Where there is too little to mirror, zeros take part: they are put behind the audio, mirrored with it,
    and as many are cut off again.
    """
    lacking = max(0, max(left, right) + 1 - x.shape[2])
    if lacking:
        x = functional.pad(x, (0, lacking))
    padded = functional.pad(x, (left, right), mode="reflect") if left or right else x
    return padded[:, :, : padded.shape[2] - lacking]
