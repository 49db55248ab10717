"""Kaldi's log mel filter bank, with the sizes that EnCodecMAE was trained on."""

import math

import torch
from torch.nn import functional

SAMPLE_RATE = 24000  # Hz
FRAME_LENGTH = 637  # samples: 26.56 ms, rounded down
HOP_LENGTH = 318  # samples: 13.28 ms, rounded down
BANDS = 256

_FFT_LENGTH = 1024
_LOWEST = 20.0  # Hz
_HIGHEST = SAMPLE_RATE / 2
_EMPHASIS = 0.97
_FLOOR = torch.finfo(torch.float32).eps  # of the power, before the logarithm
_MEAN, _DEVIATION = -6.12, 4.82  # of the training set's log mel


def count_frames(length: int) -> int:
    """Return how many whole frames `length` samples hold."""
    return 0 if length < FRAME_LENGTH else 1 + (length - FRAME_LENGTH) // HOP_LENGTH


class LogMel(torch.nn.Module):
    """Waveform `[B, N]` at 24 kHz -> normalised log mel `[B, T, 256]`, T = `count_frames(N)`.

    Every frame on its own: mean removed, pre-emphasis, symmetric Hann window, power spectrum of 1024
    points, triangles that are even on the mel scale, natural logarithm. Kaldi speech recognition toolkit,
    `feat/feature-window.cc` and `feat/mel-computations.cc`, as `--htk-compat --dither=0` sets them.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(FRAME_LENGTH, periodic=False), persistent=False)
        self.register_buffer("filters", _make_filters(), persistent=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Return log mel in units of the training set's deviation."""
        frames = wave.unfold(-1, FRAME_LENGTH, HOP_LENGTH)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first sample precedes itself
        frames = (frames - _EMPHASIS * before) * self.window
        power = torch.fft.rfft(frames, _FFT_LENGTH).abs().square()
        logarithm: torch.Tensor = (power @ self.filters).clamp_min(_FLOOR).log()
        return (logarithm - _MEAN) / _DEVIATION


def _mel(hertz: float) -> float:
    return 1127 * math.log(1 + hertz / 700)


def _make_filters() -> torch.Tensor:
    """Return the triangles `[513, 256]`; the line at the Nyquist frequency has no weight.

    In float32 and in Kaldi's order of operations: neighbours lie 12 mel apart near 3300, so that the
    slopes carry a rounding of 1e-5, which the logarithm would show in another order.
    """
    step = (_mel(_HIGHEST) - _mel(_LOWEST)) / (BANDS + 1)
    band = torch.arange(BANDS)[:, None]
    left, centre, right = (_mel(_LOWEST) + (band + edge) * step for edge in (0.0, 1.0, 2.0))
    lines = SAMPLE_RATE / _FFT_LENGTH * torch.arange(_FFT_LENGTH // 2)
    mel = 1127 * (1 + lines / 700).log()
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp_min(0)
    return functional.pad(triangles, (0, 1)).T.contiguous()
