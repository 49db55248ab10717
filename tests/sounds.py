"""What the tests of decoding share: sounds, files of them, and the decoder with its errors."""

import os
import subprocess

import numpy as np
import pytest
import soundfile

from worker.audio import decode as audio
from worker.errors import AudioError

RATE = 16000
FORMATS = [(RATE, 1)]
SINE = np.sin(np.arange(RATE, dtype=np.float64) / 8)[:, None]

needs_ffmpeg = pytest.mark.skipif(
    not os.path.isfile(os.environ.get("CONSORT_FFMPEG", "")), reason="CONSORT_FFMPEG names no ffmpeg"
)


def noise(frames, channels=1, seed=0):
    return np.random.RandomState(seed).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def pcm16(frames, channels=1, seed=0):
    return np.random.RandomState(seed).randint(-30000, 30000, (frames, channels)).astype(np.int16)


def write(path, samples, rate=RATE, subtype="PCM_16", container="WAV", endian=None):
    soundfile.write(str(path), samples, rate, subtype, endian, format=container)
    return str(path)


def decode(path, formats=FORMATS, **settings):
    return audio.decode(str(path), formats, os.path.dirname(str(path)), **settings)


def fail(path, **settings):
    with pytest.raises(AudioError) as caught:
        decode(path, **settings).close()
    assert "\n" not in str(caught.value)
    return caught.value


def open_bytes(path):
    with open(path, "rb") as source:
        return source.read()


def encode(path, *options, seconds=3, rate=44100):
    """Write two tones by ffmpeg, and return the path."""
    times = np.arange(seconds * rate) / rate
    tones = np.stack([np.sin(2 * np.pi * 440 * times), np.sin(2 * np.pi * 660 * times)], 1) * 0.3
    source = write(str(path) + ".source", tones, rate)
    quiet = [os.environ["CONSORT_FFMPEG"], "-nostdin", "-v", "error", "-y", "-bitexact"]
    subprocess.run([*quiet, "-i", source, *options, str(path)], check=True)
    os.unlink(source)
    return str(path)
