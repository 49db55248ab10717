"""`extract_encodec`: the latents of one file as text, one file per fragment, without a job."""

import functools
import os
import pathlib
import sys
import tempfile
import threading

import numpy as np
import torch

from worker import formats
from worker.audio.decode import decode
from worker.extractors.encodec import Encodec
from worker.request import WindowChoice
from worker.work import extraction, store


def extract_encodec(
    audio_path: str | os.PathLike[str],
    freq: int = 24,
    output_dir: str | os.PathLike[str] = "encodec_latents",
    window_sec: float = 5.0,
    verbose: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[tuple[str, tuple[int, int]]]:
    """Write `<name of the file>_frag<i>.txt`, the latents `[C, T]` of each fragment as comma-separated rows.

    Fragments touch, and know nothing of each other; the last one is filled with its own mirror image. The audio
    is mixed to one channel. A GPU is used where there is one.

    Args:
        audio_path: any file that can be decoded.
        freq: 24 or 48, the model in kHz.
        output_dir: made if it is not there.
        window_sec: length of a fragment, a whole number of frames (1/75 s or 1/150 s).
        verbose: read every file back and say how far it is from what was computed.
        checkpoint: folder of the model; default: where `consort weights pull encodec` puts it.

    Returns:
        The path and the shape of each fragment, in order.

    Raises:
        FileNotFoundError: the checkpoint is not there.
        ValueError: there is no such model or window.
        worker.errors.AudioError: the file gives no audio.
    """
    if freq not in (24, 48):
        raise ValueError(f"freq must be 24 or 48, not {freq!r}")
    if checkpoint is None:
        name = f"facebook/encodec_{freq}khz"
        folder = _find_folder(Encodec(name))
    else:
        name = folder = os.path.abspath(os.path.expanduser(checkpoint))
    extractor = _load(name, folder, float(window_sec), freq)
    with tempfile.TemporaryDirectory() as scratch:
        with decode(os.fspath(audio_path), [(freq * 1000, 1)], scratch) as source:
            wave = source.wave(freq * 1000, 1)
            arrays, _ = extraction.extract(extractor, wave, None, scratch, threading.Event())
        stem = pathlib.Path(audio_path).stem
        return [_write(output_dir, f"{stem}_frag{i}", latent, verbose) for i, latent in enumerate(arrays["latents"])]


def _write(folder: str | os.PathLike[str], name: str, latent: np.ndarray, verbose: bool) -> tuple[str, tuple[int, int]]:
    """Write one fragment, whole or not at all, and say so."""
    data = store.encode(latent, "txt")
    stored = store.write(os.fspath(folder), f"{name}.txt", data, f"{name}-{os.getpid()}")
    store.commit([stored])
    channels, frames = latent.shape
    sys.stdout.write(f"{name}.txt | latent=({channels}, {frames}) | {len(data) / 1024:.1f} KB\n")
    if verbose:
        again = formats.read(stored.final, "float32", latent.shape)
        sys.stdout.write(
            f"  mean {latent.mean():.4g}, deviation {latent.std():.4g}, from {latent.min():.4g} to {latent.max():.4g}; "
            f"the file differs by at most {np.abs(again - latent).max():.3g}\n"
        )
    return stored.final, (channels, frames)


@functools.lru_cache(maxsize=1)
def _load(name: str, folder: str, seconds: float, freq: int) -> Encodec:
    """Return the extractor, loaded; the next file with the same settings finds it so."""
    plain = Encodec(checkpoint=name, context="fragment", channels="mono")
    extractor = plain.asked(outputs=frozenset(["latents"]), window=WindowChoice(seconds), layout="per-window")
    if extractor.sample_rate != freq * 1000:
        raise ValueError(f"{name}: freq is {freq}, so the folder's name must hold {freq}khz")
    extractor.framing()
    files = {one.file: os.path.join(folder, one.file) for one in extractor.checkpoints()}
    for path in files.values():
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{path} is not there; run `consort weights pull encodec --checkpoint facebook/encodec_{freq}khz`, "
                "or give the model's folder as `checkpoint`"
            )
    extractor.load("cuda" if torch.cuda.is_available() else "cpu", files)
    return extractor


def _find_folder(extractor: Encodec) -> str:
    """Return where the weights of the hub are kept, which the same variables name as for the host."""
    weights = os.environ.get("CONSORT_WEIGHTS")
    if not weights:
        cache = os.environ.get("CONSORT_CACHE")
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
        weights = os.path.join(cache or os.path.join(base, "consort"), "weights")
    pinned = extractor.checkpoints()[0]
    return os.path.abspath(os.path.join(os.path.expanduser(weights), pinned.kind, pinned.name, pinned.revision))
