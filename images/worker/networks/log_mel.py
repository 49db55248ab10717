"""The log-mel spectrogram that MusiCNN was trained on, in numpy alone.

It repeats `librosa.feature.melspectrogram` of librosa 0.8.1 (512-sample periodic Hann window, hop of
256 samples, power, 96 Slaney mel bands) and the two steps that MusiCNN adds: storage as float16, and
`log10(10000 x + 1)`. Values are rounded to float32 where librosa rounds them, because that decides to
which float16 value a band goes: about 5 bands in 100,000 differ from librosa's, by one float16 step.
"""

import functools

import numpy as np

SAMPLE_RATE = 16000  # Hz
FFT_LENGTH = 512  # samples
HOP_LENGTH = 256  # samples
BANDS = 96

_LINEAR_STEP = 200.0 / 3.0  # Hz per mel below 1 kHz
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _LINEAR_STEP
_LOG_STEP = np.log(6.4) / 27.0  # natural logarithm of the frequency ratio per mel above 1 kHz


def transform(waves: np.ndarray) -> np.ndarray:
    """Return the log-mel spectrograms float32 `[B, 1 + (W - 512) // 256, 96]` of windows `[B, W]` at 16 kHz.

    No padding happens here: frame `f` covers the samples `256 f .. 256 f + 511` of its window, so a window cut
    256 samples ahead of a patch gives the frames of the whole file's centred transform. Bands of more power than
    float16 holds (65504, about 21 dB over full scale) are infinite, as they are upstream.
    """
    with np.errstate(over="ignore"):
        stored = mel_power(waves).astype(np.float16)
    # Back to float32 before scaling: 10000 * float16 stays float16 under NumPy 2 and overflows at 6.55.
    bands: np.ndarray = np.log10(stored.astype(np.float32) * np.float32(10000.0) + np.float32(1.0))
    return bands


def mel_power(waves: np.ndarray) -> np.ndarray:
    """Return the power in each mel band, `[B, W]` -> float32 `[B, F, 96]`, frames as in `transform`."""
    spectrum = stft(np.ascontiguousarray(waves, dtype=np.float32), FFT_LENGTH, HOP_LENGTH).astype(np.complex64)
    power = np.abs(spectrum) ** 2
    # A sum in double precision rounds to the same float32 whatever the blocking of the BLAS, so that
    # equal frames give equal bytes in any window and on any machine.
    filters = mel_filters(SAMPLE_RATE, FFT_LENGTH, BANDS).astype(np.float64)
    summed: np.ndarray = np.matmul(power.astype(np.float64), filters.T)
    return summed.astype(np.float32)


@functools.lru_cache(maxsize=None)
def mel_filters(sample_rate: int, fft_length: int, bands: int) -> np.ndarray:
    """Return triangular filters of equal area between 0 Hz and half the rate, float32 `[bands, fft_length // 2 + 1]`.

    The scale is that of Slaney's Auditory Toolbox (Interval Research TR 1998-010): linear below 1 kHz,
    logarithmic above. Each triangle is divided by half its width in Hz. Read-only because it is shared.
    """
    bins = np.linspace(0.0, sample_rate / 2.0, 1 + fft_length // 2)
    edges = mel_to_hz(np.linspace(0.0, float(hz_to_mel(np.array(sample_rate / 2.0))), bands + 2))
    widths = np.diff(edges)
    rising = (bins - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - bins) / widths[1:, None]
    filters: np.ndarray = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    filters.flags.writeable = False
    return filters


def hz_to_mel(frequency: np.ndarray) -> np.ndarray:
    """Return Slaney's mel value of each frequency in Hz."""
    above = np.log(np.maximum(frequency, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(frequency >= _KNEE_HZ, _KNEE_MEL + above, frequency / _LINEAR_STEP)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Return the frequency in Hz of each of Slaney's mel values."""
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mel >= _KNEE_MEL, above, mel * _LINEAR_STEP)


def stft(waves: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Return the spectrum complex128 `[..., F, length // 2 + 1]` of the whole frames of `waves` `[..., N]`.

    The float64 window keeps the transform in double precision on every NumPy: from 2.0 on, float32 input would
    be transformed in single precision.
    """
    frames = np.lib.stride_tricks.sliding_window_view(waves, length, axis=-1)[..., ::hop, :]
    spectrum: np.ndarray = np.fft.rfft(frames * _hann(length), axis=-1)
    return spectrum


@functools.lru_cache(maxsize=None)
def _hann(length: int) -> np.ndarray:
    """Return the periodic Hann window, float64 `[length]`, read-only because it is shared."""
    window: np.ndarray = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
    window.flags.writeable = False
    return window
