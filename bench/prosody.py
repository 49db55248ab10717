"""Accuracy and speed of prosody beside Praat's and librosa's, in one process and on one core.

::

    python3.11 -m venv VENV && VENV/bin/pip install praat-parselmouth librosa soundfile soxr
    OMP_NUM_THREADS=1 VENV/bin/python bench/prosody.py AUDIO

AUDIO holds `pitch/` and `prosody/` with files beside `<name>.f0.csv` or `<name>_f0.csv` (seconds, Hz; 0 is unvoiced),
and `CATALOGUE.csv`, whose column label (JSON) gives f0_hz, F1 and F2 of vowels, and f0_hz of notes from onset_s to
offset_s: what a note does before and after is not known, so that its voicing counts in between alone.
Praat is the program behind parselmouth (GPL, in a process of this benchmark alone). Only frames whose truth lies in
the range of speech that all three are told, 65 to 450 Hz, count for the pitch.
"""

import argparse
import csv
import json
import pathlib
import sys
import time
import typing as tp

import librosa
import numpy as np
import parselmouth
import soundfile
import soxr

sys.path[:0] = [str(pathlib.Path(__file__).parents[1] / "images" / folder) for folder in ("", "torch-cuda")]

from prosody_toolkit import features  # noqa: E402

RATE = features.SAMPLE_RATE
HOP = 256
FLOOR, CEILING = 65.0, 450.0
Contour = tuple[np.ndarray, np.ndarray]  # seconds, Hz


def ours(wave: np.ndarray) -> Contour:
    """Return the pitch of this project, unsmoothed."""
    settings = features.Settings(output_normalize=False, smoothing_level="none")
    found = features.analyse(wave, settings)[0]
    return np.arange(len(found)) * HOP / RATE, found[:, 0]


def praat(wave: np.ndarray) -> Contour:
    """Return Praat's pitch by autocorrelation, at the same hop."""
    pitch = parselmouth.Sound(wave.astype(np.float64), RATE).to_pitch_ac(HOP / RATE, FLOOR, pitch_ceiling=CEILING)
    return pitch.xs(), pitch.selected_array["frequency"]


def pyin(wave: np.ndarray) -> Contour:
    """Return librosa's probabilistic YIN, at the same hop."""
    f0, voiced, _ = librosa.pyin(wave, fmin=FLOOR, fmax=CEILING, sr=RATE, frame_length=1024, hop_length=HOP)
    return np.arange(len(f0)) * HOP / RATE, np.where(voiced, np.nan_to_num(f0), 0.0)


METHODS: dict[str, tp.Callable[[np.ndarray], Contour]] = {"ours": ours, "Praat": praat, "pyin": pyin}


def read(path: pathlib.Path) -> np.ndarray:
    """Return mono audio float32 at 16 kHz."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(wave.mean(1), rate, RATE).astype(np.float32)


def truth_of(path: pathlib.Path, label: dict[str, tp.Any]) -> np.ndarray | None:
    """Return the truth `[T, 2]` (seconds, Hz) beside a file, or of the note that its label tells."""
    for name in (f"{path.stem}.f0.csv", f"{path.stem}_f0.csv"):
        if (path.parent / name).is_file():
            lines = (path.parent / name).read_text().splitlines()
            return np.array([[float(cell) for cell in line.split(",")] for line in lines if line[0] in "0123456789"])
    if "onset_s" not in label:
        return None
    times = np.arange(label["onset_s"] + 0.05, label["offset_s"] - 0.05, 0.01)
    return np.stack([times, np.full(len(times), label["f0_hz"])], axis=1)


def score(contour: Contour, truth: np.ndarray) -> tuple[float, float, int]:
    """Return raw pitch accuracy (within 50 cents of voiced truth), voicing accuracy, and how many frames count."""
    times, hz = contour
    nearest = np.abs(times[None] - truth[:, :1]).argmin(1)
    found, true = hz[nearest], truth[:, 1]
    counts = (true == 0) | ((true >= FLOOR) & (true <= CEILING))
    voiced = counts & (true > 0)
    cents = 1200 * np.abs(np.log2(np.maximum(found, 1e-3) / np.maximum(true, 1e-3)))
    return float((cents < 50)[voiced].mean()), float(((found > 0) == (true > 0))[counts].mean()), int(voiced.sum())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio for the speed")
    arguments = parser.parse_args()
    compare_pitch(arguments.audio)
    compare_vowels(arguments.audio)
    compare_speed(arguments.audio, arguments.seconds)


def labels_of(folder: pathlib.Path) -> dict[str, dict[str, tp.Any]]:
    """Return the labels of all files by their paths."""
    with open(folder / "CATALOGUE.csv", newline="", encoding="utf-8") as f:
        return {row["path"]: json.loads(row["label"] or "{}") for row in csv.DictReader(f)}


def compare_pitch(folder: pathlib.Path) -> None:
    """Print raw pitch accuracy and voicing accuracy by folder."""
    groups: dict[str, dict[str, list[tuple[float, float, int]]]] = {}
    for name, label in sorted(labels_of(folder).items()):
        truth = truth_of(folder / name, label) if name.startswith(("pitch/", "prosody/")) else None
        if truth is None or not ((truth[:, 1] >= FLOOR) & (truth[:, 1] <= CEILING)).any():
            continue
        wave = read(folder / name)
        rows = groups.setdefault(pathlib.PurePath(name).parent.name, {method: [] for method in METHODS})
        for method, find in METHODS.items():
            rows[method].append(score(find(wave), truth))
    print(f"{'pitch':16}{'files':>8}{'frames':>8}" + "".join(f"{name:>20}" for name in METHODS))
    for group, rows in groups.items():
        files, frames = len(rows["ours"]), sum(row[2] for row in rows["ours"])
        means = [np.average([r[:2] for r in found], axis=0, weights=[r[2] for r in found]) for found in rows.values()]
        text = "".join(f"{f'{accuracy:.3f} / {voicing:.3f}':>20}" for accuracy, voicing in means)
        print(f"{group:16}{files:8d}{frames:8d}{text}")
    print("(raw pitch accuracy within 50 cents / voicing accuracy)\n")


def compare_vowels(folder: pathlib.Path) -> None:
    """Print the errors of f0, F1 and F2 on synthetic vowels."""
    labels = labels_of(folder)
    print(f"{'vowel':20}{'':8}{'f0 error, Hz':>14}{'F1 error':>10}{'F2 error':>10}")
    for path in sorted((folder / "prosody").glob("*.wav")):
        truth = labels.get(f"prosody/{path.name}", {})
        if not {"f0_hz", "F1", "F2"} <= set(truth):  # the glide, whose f0 has a file of its own
            continue
        wave = read(path)
        for name, (f0, f1, f2) in (("ours", formants_of_ours(wave)), ("Praat", formants_of_praat(wave))):
            errors = (f0 - truth["f0_hz"], f1 / truth["F1"] - 1, f2 / truth["F2"] - 1)
            print(f"{path.stem:20}{name:8}{errors[0]:+14.2f}{errors[1]:+10.1%}{errors[2]:+10.1%}")
    print()


def formants_of_ours(wave: np.ndarray) -> list[float]:
    """Return medians of f0, F1 and F2 over voiced frames."""
    found, voiced = features.analyse(wave, features.Settings(output_normalize=False))
    return [float(np.median(found[voiced > 0, i])) for i in (0, 2, 3)]


def formants_of_praat(wave: np.ndarray) -> list[float]:
    """Return the same of Praat, told to look for five formants below 5 kHz, as ours does."""
    sound = parselmouth.Sound(wave.astype(np.float64), RATE)
    pitch = sound.to_pitch_ac(HOP / RATE, FLOOR, pitch_ceiling=CEILING)
    formant = sound.to_formant_burg(HOP / RATE, 5, 5000.0, 0.025, 50.0)
    times = [t for t, hz in zip(pitch.xs(), pitch.selected_array["frequency"], strict=True) if hz > 0]
    values = [[formant.get_value_at_time(n, t) for t in times] for n in (1, 2)]
    hz = pitch.selected_array["frequency"]
    return [float(np.median(hz[hz > 0])), *(float(np.nanmedian(v)) for v in values)]


def compare_speed(folder: pathlib.Path, seconds: float) -> None:
    """Print x real time per core, the best of three runs each, taken in turns."""
    files = sorted((folder / "speech").rglob("*.wav"))
    wave = np.concatenate([read(path) for path in files[:400]])[: int(seconds * RATE)]
    tasks: dict[str, tp.Callable[[], tp.Any]] = {
        "ours, all six features": lambda: features.analyse(wave, features.Settings()),
        "Praat, pitch + formants + harmonicity": lambda: all_of_praat(wave),
        "librosa.pyin, pitch alone": lambda: pyin(wave),
    }
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(3):
        for name, task in tasks.items():
            began = time.process_time()
            task()
            best[name] = min(best[name], time.process_time() - began)
    print(f"speed on {len(wave) / RATE:.0f} s of speech, one core")
    for name, spent in best.items():
        print(f"  {name:40}{len(wave) / RATE / spent:8.0f} x real time")


def all_of_praat(wave: np.ndarray) -> None:
    """Compute what Praat has of the six features: no width of the pitch's peak, and no power."""
    sound = parselmouth.Sound(wave.astype(np.float64), RATE)
    sound.to_pitch_ac(HOP / RATE, FLOOR, pitch_ceiling=CEILING)
    sound.to_formant_burg(HOP / RATE, 5, 5000.0, 0.025, 50.0)
    sound.to_harmonicity_ac(HOP / RATE, FLOOR)


if __name__ == "__main__":
    main()
