"""The input of madmom's beat networks: log-filtered spectra at three resolutions, and their rises.

Per frame size: magnitude spectrum, overlapping triangular filters spaced logarithmically, log10(1 + x),
and next to it the positive difference to an earlier frame (Boeck, Schedl: Enhanced Beat Tracking with
Context-Aware Neural Networks, DAFx 2011, section 3.1; Boeck, Krebs, Widmer: Joint Beat and Downbeat
Tracking with Recurrent Neural Networks, ISMIR 2016, section 2.1). The numbers are those of madmom 0.16.1.
"""

import typing as tp

import numpy as np

SAMPLE_RATE = 44100  # Hz
HOP_LENGTH = 441  # samples, 100 frames per second
FRAME_SIZES = (1024, 2048, 4096)  # samples
LOWEST, HIGHEST, TUNING = 30.0, 17000.0, 440.0  # Hz
FULL_SCALE = 32767.0  # upstream scales int16 by its largest value, not by 32768
CHUNK = 256  # frames transformed at a time


class BeatFeatures:
    """Turns int16 audio into the features of one set of networks."""

    def __init__(self, bands: tp.Sequence[int]) -> None:
        """Prepare windows and filters, so many `bands` per octave for each of `FRAME_SIZES`."""
        self._resolutions = [_Resolution(size, per_octave) for size, per_octave in zip(FRAME_SIZES, bands)]

    @property
    def width(self) -> int:
        """Number of features F."""
        return sum(2 * resolution.filters.shape[1] for resolution in self._resolutions)

    def __call__(self, signal: np.ndarray) -> np.ndarray:
        """Return the features float32 `[ceil(N / 441), F]` of int16 `[N]` at 44.1 kHz, N > 0.

        For each frame size its bands stand there, then their differences.
        """
        frames = -(-len(signal) // HOP_LENGTH)
        features = np.empty((frames, self.width), np.float32)
        column = 0
        for resolution in self._resolutions:
            count = resolution.filters.shape[1]
            bands = features[:, column : column + count]
            rises = features[:, column + count : column + 2 * count]
            resolution.fill_bands(signal, bands)
            resolution.fill_rises(bands, rises)
            column += 2 * count
        return features


class _Resolution:
    """One frame size with its window, filters and lag."""

    def __init__(self, frame_size: int, per_octave: int) -> None:
        self.frame_size = frame_size
        self.window = np.hanning(frame_size) / FULL_SCALE
        self.filters = log_filters(frame_size, per_octave)
        self.lag = lag_frames(frame_size)

    def fill_bands(self, signal: np.ndarray, bands: np.ndarray) -> None:
        """Write the logarithmic band magnitudes of `signal` to `bands` `[T, bands]`."""
        for start in range(0, len(bands), CHUNK):
            count = min(CHUNK, len(bands) - start)
            # float64 is what upstream transforms in, and what makes every numpy agree: from 2.0 on
            # numpy transforms float32 in float32.
            windowed = self._frames(signal, start, count) * self.window
            spectrum = np.fft.rfft(windowed, axis=1)[:, : self.frame_size // 2]
            magnitude = np.abs(spectrum.astype(np.complex64))
            rows = np.matmul(magnitude, self.filters)
            rows += np.float32(1)
            bands[start : start + count] = np.log10(rows, out=rows)

    def fill_rises(self, bands: np.ndarray, rises: np.ndarray) -> None:
        """Write `max(0, bands[t] - bands[t - lag])`; the first `lag` frames rise by nothing."""
        rises[: self.lag] = 0
        later = rises[self.lag :]
        np.subtract(bands[self.lag :], bands[: -self.lag], out=later)
        np.maximum(later, 0, out=later)

    def _frames(self, signal: np.ndarray, start: int, count: int) -> np.ndarray:
        """Return frames `[count, frame_size]`, centred on every 441st sample, with zeros outside."""
        first = start * HOP_LENGTH - self.frame_size // 2
        block = np.zeros((count - 1) * HOP_LENGTH + self.frame_size, signal.dtype)
        begin, end = max(0, first), min(len(signal), first + len(block))
        block[begin - first : end - first] = signal[begin:end]
        return np.lib.stride_tricks.sliding_window_view(block, self.frame_size)[::HOP_LENGTH]


def lag_frames(frame_size: int) -> int:
    """Return how many frames back the difference reaches.

    It is the distance from the window's centre to where the window first exceeds half of its maximum, in
    frames and at least one (DAFx 2011, section 3.1: the frames then overlap by half).
    """
    window = np.hanning(frame_size)
    rise = int(np.argmax(window > 0.5 * window.max()))
    return int(max(1, round((frame_size / 2 - rise) / HOP_LENGTH)))


def log_filters(frame_size: int, per_octave: int) -> np.ndarray:
    """Return triangular filters float32 `[frame_size // 2, bands]`, each of area 1.

    The centres are `440 Hz * 2 ** (k / per_octave)` between 30 Hz and 17 kHz, moved to the closest bin of
    the Fourier transform; where several fall on one bin it counts once. A filter spans its two neighbours.
    """
    bins = _centre_bins(frame_size, per_octave)
    filters = np.zeros((frame_size // 2, len(bins) - 2), np.float32)
    for band in range(len(bins) - 2):
        low, centre, high = (int(position) for position in bins[band : band + 3])
        if high - low < 2:
            centre, high = low, low + 1
        rising = np.linspace(0, 1, centre - low, endpoint=False)
        falling = np.linspace(1, 0, high - centre, endpoint=False)
        triangle = np.concatenate([rising, falling]).astype(np.float32)
        filters[low:high, band] = triangle / np.sum(triangle)
    return filters


def _centre_bins(frame_size: int, per_octave: int) -> np.ndarray:
    """Return the distinct bins, ascending, that are closest to the logarithmic frequencies."""
    low = np.floor(np.log2(LOWEST / TUNING) * per_octave)
    high = np.ceil(np.log2(HIGHEST / TUNING) * per_octave)
    centres = TUNING * 2.0 ** (np.arange(low, high) / per_octave)
    centres = centres[(centres >= LOWEST) & (centres <= HIGHEST)]
    grid = np.arange(frame_size // 2) * (SAMPLE_RATE / frame_size)
    right = np.clip(np.searchsorted(grid, centres), 1, len(grid) - 1)
    is_left = centres - grid[right - 1] < grid[right] - centres
    return np.unique(right - is_left)
