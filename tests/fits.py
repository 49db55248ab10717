"""What tests of fitting share: a corpus with something to learn, and the process that learns from it."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np

PARAMETERS = {"frame_ms": 50.0, "hop_ms": 16.0, "emphasize_ratio": 0.7, "smoothing_level": "light",
              "output_normalize": True}  # fmt: skip
TINY = {"hidden_dim": 16, "num_layers": 1, "nhead": 2}
TOKENS = 8


def make_features(count=24, seed=0):
    """Return items whose frames walk around eight places in a fixed order, so that there is something to learn."""
    random = np.random.default_rng(seed)
    places = random.random((TOKENS, 6))
    found = {}
    for number in range(count):
        steps = (random.integers(TOKENS) + np.arange(random.integers(20, 60)) // 3) % TOKENS
        noise = 0.01 * random.standard_normal((len(steps), 6))
        found[f"{number:02d}.wav"] = (places[steps] + noise).clip(0, 1).astype(np.float32)
    return found


def write_corpus(folder, arrays, suffix=".npy"):
    """Write arrays as a job does, and return the entries of a request."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for item, values in arrays.items():
        path = folder / (pathlib.Path(item).stem + suffix)
        if suffix == ".npz":
            np.savez(path, values=values)
        elif suffix == ".txt":
            np.savetxt(path, np.atleast_2d(values), fmt="%.9g", delimiter=",")
        else:
            np.save(path, values)
        shape, dtype = list(values.shape), values.dtype.name
        files.append({"item": item, "path": path.name, "sha256": "0" * 64, "shape": shape, "dtype": dtype})
    return files


def command(folder, request, *options):
    """Return a command that fits, after writing its request."""
    path = folder / "request.json"
    path.write_text(json.dumps({"parameters": PARAMETERS, **request}))
    roots = ["--corpus", str(folder / "corpus"), *map(str, options)]
    return [sys.executable, "-m", "prosody_toolkit.fitting", str(path), *roots]


def start(argv):
    """Start a fit."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)


def finish(process, timeout=120):
    """Return code, events and stderr; standard input stays open until the process has ended."""
    collected = {}
    readers = [
        threading.Thread(target=lambda name=name: collected.update({name: getattr(process, name).read()}))
        for name in ("stdout", "stderr")
    ]
    for reader in readers:
        reader.start()
    code = process.wait(timeout)
    for reader in readers:
        reader.join()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    events = [json.loads(line) for line in collected["stdout"].decode().splitlines()]
    return code, events, collected["stderr"].decode()


def fit(folder, request, *options):
    """Fit, and return what `finish` does."""
    return finish(start(command(folder, request, *options)))


def make_corpus(folder):
    """Write features and fit clusters to them; return the folder and the request for an encoder."""
    files = write_corpus(folder / "corpus", make_features())
    code, _, errors = fit(folder, {"files": files, "n_clusters": TOKENS}, "--model", folder / "clusters")
    assert code == 0, errors
    encoder = {**TINY, "window": 40, "plan": {"epochs": 4, "batch_tokens": 64, "checkpoint_seconds": 0.0}}
    return folder, {"stage": "encoder", "files": files, "encoder": encoder}


def run_encoder(folder, request, name="encoder"):
    """Fit an encoder to a corpus of `make_corpus`."""
    return fit(folder, request, "--clusters", folder / "clusters", "--model", folder / name)


def wait_for(condition, process, seconds=60):
    """Wait for a condition while a process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
