"""The spectrograms that OpenL3 reads, in numpy but for their Fourier transform.

Cramer, Wu, Salamon, Bello, "Look, Listen and Learn More: Design Choices for Deep Audio Embeddings", ICASSP
2019. Details as in version 0.4.2 of the published implementation with its default front end, kapre:

- every window of one second is transformed on its own, from its first sample on: nothing is centred;
- magnitudes, not powers, pass through Slaney's mel filters (see `log_mel.mel_filters`);
- yet `10 log10` is taken of them, so that the 80 decibels below a window's maximum are 160 in truth. Down
  there kapre hears the rounding of TensorFlow's float32 transform, which is why the caller brings that one;
  `log_mel.stft`, in float64, hears the audio: what resampling leaves above half of a lower sample rate.
"""

import typing as tp

import numpy as np

from worker.networks.log_mel import mel_filters

SAMPLE_RATE = 48000  # Hz
WINDOW = 48000  # samples

_HOP = 242  # samples between the frames of a window
_SMALLEST = np.float32(1e-10)  # magnitude
_RANGE = np.float32(80.0)  # decibels below the maximum of the window


class Layout(tp.NamedTuple):
    """The size of one kind of spectrogram."""

    fft_length: int  # samples
    bands: int
    frames: int
    mel: bool


LAYOUTS = {
    "mel256": Layout(2048, 256, -(-WINDOW // _HOP), True),  # a frame begins at every hop, zeros behind the end
    "mel128": Layout(2048, 128, -(-WINDOW // _HOP), True),
    "linear": Layout(512, 257, 1 + (WINDOW - 512) // _HOP, False),  # whole frames only
}


# (samples float32 [N], frame length, hop length) -> spectrum [frames, length // 2 + 1] of frames under a Hann window
Stft = tp.Callable[[np.ndarray, int, int], np.ndarray]


def transform(waves: np.ndarray, input_repr: str, stft: Stft) -> np.ndarray:
    """Return spectrograms float32 `[B, bands, frames]`, -80 to 0 dB below their maxima, of windows `[B, 48000]`.

    Zeros for silence. A row depends on its window alone.
    """
    layout = LAYOUTS[input_repr]
    spectrograms = np.empty((len(waves), layout.bands, layout.frames), np.float32)
    for spectrogram, wave in zip(spectrograms, waves):
        spectrogram[:] = _scale(_measure(wave, layout, stft)).T
    return spectrograms


def _measure(wave: np.ndarray, layout: Layout, stft: Stft) -> np.ndarray:
    """Return the magnitudes float32 `[frames, bands]` of one window `[48000]`."""
    extended = np.zeros((layout.frames - 1) * _HOP + layout.fft_length, np.float32)
    extended[:WINDOW] = wave[: len(extended)]
    magnitudes: np.ndarray = np.abs(stft(extended, layout.fft_length, _HOP)).astype(np.float32)
    if not layout.mel:
        return magnitudes
    filtered: np.ndarray = magnitudes @ mel_filters(SAMPLE_RATE, layout.fft_length, layout.bands).T
    return filtered


def _scale(magnitudes: np.ndarray) -> np.ndarray:
    """Return decibels below the maximum, as the first releases of kapre computed them."""
    decibels = np.float32(10.0) * np.log10(np.maximum(magnitudes, _SMALLEST))
    decibels -= decibels.max()
    scaled: np.ndarray = np.maximum(decibels, -_RANGE)
    return scaled
