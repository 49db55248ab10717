"""Pictures of prosody: the six features under waveform and spectrogram, and tokens as a strip of colours.

The ending of the file chooses the format, .png or .svg. Nothing is shown on a screen.
"""

import os
import pathlib
import typing as tp

import numpy as np

from prosody_toolkit import features, smoothing

if tp.TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Path = tp.Union[str, "os.PathLike[str]"]
FORMATS = (".png", ".svg")

_UNITS = ("Hz", "Hz", "Hz", "Hz", "dB", "dB")
_STEPS = (150.0, 100.0, 500.0, 2000.0, 40.0, 20.0)  # between the ticks of a feature
_COLOURS = ("#1b6ca8", "#5fa8d3", "#c1121f", "#e07a5f", "#3d405b", "#588157")
_WIDTH = 10.0  # inches
_DYNAMIC = 70.0  # dB that a spectrogram shows


def draw_features(
    values: tp.Mapping[str, np.ndarray],
    path: Path,
    frame_rate: float,
    normalized: bool = True,
    wave: tp.Optional[np.ndarray] = None,
    sample_rate: int = features.SAMPLE_RATE,
    tokens: tp.Optional[np.ndarray] = None,
    start: float = 0.0,
) -> pathlib.Path:
    """Draw features over time and return the file.

    Args:
        values: float32 `[T]` by name, as `ProsodicFeatureExtractor.extract` gives them.
        path: of the picture.
        frame_rate: frames per second.
        normalized: whether values are 0 .. 1, or Hz and dB.
        wave: `[N]`; adds a waveform and a spectrogram.
        sample_rate: of the wave.
        tokens: `[T]`; adds a strip.
        start: time of the first frame in seconds.
    """
    _check(path)
    heights = ([1.0, 1.6] if wave is not None else []) + [1.0] * len(features.NAMES) + ([0.4] * (tokens is not None))
    figure, axes = _panels(heights)
    times = start + np.arange(len(values["f0"])) / frame_rate
    rest = iter(axes)
    if wave is not None:
        _draw_wave(next(rest), wave, sample_rate, start)
        _draw_spectrogram(next(rest), wave, sample_rate, start)
    voiced = np.asarray(values["f0"]) > 0
    for index, name in enumerate(features.NAMES):
        panel = next(rest)
        _set_scale(panel, index, normalized)
        _draw_contour(panel, times, np.asarray(values[name]), voiced, index)
    if tokens is not None:
        _draw_strip(next(rest), np.asarray(tokens), frame_rate, start=start)
    axes[-1].set_xlim(start, start + max(len(times), 1) / frame_rate)
    axes[-1].set_xlabel("seconds (shaded: voiced)")
    return _save(figure, path)


def draw_tokens(tokens: np.ndarray, path: Path, frame_rate: float, count: tp.Optional[int] = None) -> pathlib.Path:
    """Draw a sequence of tokens `[T]` as a strip of colours, one for each of `count`, and return the file."""
    _check(path)
    figure, axes = _panels([0.8])
    _draw_strip(axes[0], np.asarray(tokens), frame_rate, count)
    axes[0].set_xlabel("seconds")
    return _save(figure, path)


def _panels(heights: tp.Sequence[float]) -> tp.Tuple["Figure", tp.List["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 0.6 + 0.95 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))[:, 0]
    return figure, list(axes)


def _name(axes: "Axes", text: str) -> None:
    """Label a panel upright, so that low panels have room for their names."""
    axes.set_ylabel(text, rotation=0, ha="right", va="center")


def _draw_wave(axes: "Axes", wave: np.ndarray, sample_rate: int, start: float) -> None:
    step = max(1, len(wave) // 4000)  # what fits a page: the envelope of each step
    cut = wave[: len(wave) // step * step].reshape(-1, step)
    times = start + np.arange(len(cut)) * step / sample_rate
    axes.fill_between(times, cut.min(1), cut.max(1), color="#3d405b", linewidth=0.3)
    axes.set_yticks([0])
    _name(axes, "wave")


def _draw_spectrogram(axes: "Axes", wave: np.ndarray, sample_rate: int, start: float) -> None:
    """Draw the power of 25 ms Hann windows, `_DYNAMIC` dB down from the loudest, up to 5 kHz."""
    size = round(0.025 * sample_rate)
    hop = max(1, round(0.005 * sample_rate), len(wave) // 3000)
    padded = np.pad(wave, (size // 2, size))
    starts = np.arange(0, len(wave), hop)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts] * np.hanning(size)
    level = 10 * np.log10(np.abs(np.fft.rfft(frames, 2 * size)) ** 2 + 1e-12).T
    top = float(level.max())
    left, right = (start + (edge - 0.5) * hop / sample_rate for edge in (0, len(starts)))
    axes.imshow(
        level, origin="lower", aspect="auto", cmap="magma", extent=(left, right, 0.0, sample_rate / 2000),
        vmin=top - _DYNAMIC, vmax=top, interpolation="bilinear",
    )  # fmt: skip
    axes.set_ylim(0, min(5.0, sample_rate / 2000))
    _name(axes, "kHz")


def _set_scale(axes: "Axes", index: int, normalized: bool) -> None:
    """Show a feature over the range that is normalised; outliers lie outside."""
    low, high = (0.0, 1.0) if normalized else features.RANGES[index]
    step = 0.5 if normalized else _STEPS[index]
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_yticks(np.arange(low, high + 0.5 * step, step))
    axes.grid(axis="y", linewidth=0.3, alpha=0.6)
    _name(axes, features.NAMES[index] + ("" if normalized else f"\n[{_UNITS[index]}]"))


def _draw_contour(axes: "Axes", times: np.ndarray, values: np.ndarray, voiced: np.ndarray, index: int) -> None:
    """Draw one feature; where there is no voice only `power` means something, and the rest is left out."""
    shown = values if features.NAMES[index] == "power" else np.where(voiced, values, np.nan)
    axes.plot(times, shown, color=_COLOURS[index], linewidth=1.2, marker=".", markersize=2)
    half = 0.5 * (times[1] - times[0]) if len(times) > 1 else 0.5
    runs = smoothing.find_runs(voiced.astype(np.uint8))
    spans = [(times[a] - half, times[b - 1] - times[a] + 2 * half) for a, b in runs if voiced[a]]
    axes.broken_barh(spans, (0, 1), transform=axes.get_xaxis_transform(), color="#000000", alpha=0.05, linewidth=0)


def _draw_strip(
    axes: "Axes", tokens: np.ndarray, frame_rate: float, count: tp.Optional[int] = None, start: float = 0.0
) -> None:
    size = count or int(tokens.max(initial=0)) + 1
    left, right = (start + (edge - 0.5) / frame_rate for edge in (0, len(tokens)))
    # neighbouring numbers are no similar sounds: a step of the golden ratio makes their colours differ
    hues = (np.arange(size) * 0.618034) % 1.0
    axes.imshow(
        hues[tokens][None], aspect="auto", cmap="hsv", extent=(left, right, 0.0, 1.0), vmin=0.0, vmax=1.0,
        interpolation="nearest",
    )  # fmt: skip
    axes.set_yticks([])
    _name(axes, "tokens")


def _check(path: Path) -> None:
    """Refuse what no picture can be written as, before any work is done."""
    target = pathlib.Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"{target.name}: a picture ends in {' or '.join(FORMATS)}")


def _save(figure: "Figure", path: Path) -> pathlib.Path:
    import matplotlib

    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if target.suffix.lower() == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "consort"}):  # the same picture is the same file
        figure.savefig(target, dpi=140, metadata=metadata)
    return target
