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


OPTIONS = ("seed", "n_clusters", "reduced_dims", "max_iter", "encoder", "colour")


class Started:
    """A worker with a shard of kind `fit`, started by hand as the host does it."""

    def __init__(self, command, events):
        self.events = events
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command[0], stdin=pipe, stdout=pipe, stderr=pipe, env={**env, **command[1]})
        self.stdin, self.kill, self.poll, self.wait = (
            self.process.stdin, self.process.kill, self.process.poll, self.process.wait,
        )  # fmt: skip

    def told(self):
        """Return the events so far, without heartbeats."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] not in ("hello", "heartbeat")]


def shard(request):
    """Return the shard that asks for a fit; beside options a request may hold `stage`, `holds`, `parameters`."""
    asked = {key: request[key] for key in OPTIONS if key in request}
    stage, holds = request.get("stage", "clusters"), request.get("holds", "features")
    fit = {"stage": stage, "holds": holds, "files": request["files"], "options": asked}
    task = {"name": "m", "extractor": "prosody", "key": "", "params": request.get("parameters", PARAMETERS)}
    task["files"] = {os.path.basename(path): path for path in request.get("own", [])}
    shard = {"id": "s", "attempt": 1, "environment": "torch-cuda", "items": [], "tasks": [task]}
    return {**shard, "kind": "fit", "fit": fit}


def command(folder, request, model, clusters=None):
    """Return a command that fits, with its environment, after writing its shard."""
    own = [str(folder / clusters / name) for name in ("kmeans_model.json", "cluster_centers.pt")] if clusters else []
    path = folder / "shard.json"
    path.write_text(json.dumps(shard({**request, "own": own})))
    (folder / model).mkdir(exist_ok=True)
    roots = {"AUDIO": folder / "corpus", "OUTPUT": folder / model, "WEIGHTS": "", "SCRATCH": folder}
    return [sys.executable, "-m", "worker", str(path)], {f"CONSORT_{key}": str(root) for key, root in roots.items()}


def start(command):
    """Start a fit; its events go to a file of its own."""
    events = pathlib.Path(command[1]["CONSORT_SCRATCH"], f"events-{time.monotonic_ns()}.jsonl")
    return Started((command[0], {**command[1], "CONSORT_EVENTS": str(events)}), events)


def finish(started, timeout=120):
    """Return code, events and stderr; standard input stays open until the process has ended."""
    out, errors = [], []
    readers = [
        threading.Thread(target=lambda: out.append(started.process.stdout.read())),
        threading.Thread(target=lambda: errors.append(started.process.stderr.read())),
    ]
    for reader in readers:
        reader.start()
    code = started.wait(timeout)
    for reader in readers:
        reader.join()
    for stream in (started.process.stdin, started.process.stdout, started.process.stderr):
        stream.close()
    assert out == [b""], "what libraries print belongs in the log"
    return code, started.told(), errors[0].decode()


def fit(folder, request, model, clusters=None):
    """Fit, and return what `finish` does."""
    return finish(start(command(folder, request, model, clusters)))


def outcome(events):
    """Return the facts of a fit that has ended well."""
    assert [event["kind"] for event in events[-2:]] == ["fitted", "finished"]
    return events[-2]["outcome"]


def make_corpus(folder):
    """Write features and fit clusters to them; return the folder and the request for an encoder."""
    files = write_corpus(folder / "corpus", make_features())
    code, _, errors = fit(folder, {"files": files, "n_clusters": TOKENS}, "clusters")
    assert code == 0, errors
    encoder = {**TINY, "window": 40, "plan": {"epochs": 4, "batch_tokens": 64, "checkpoint_seconds": 0.0}}
    return folder, {"stage": "encoder", "files": files, "encoder": encoder}


def run_encoder(folder, request, name="encoder"):
    """Fit an encoder to a corpus of `make_corpus`."""
    return fit(folder, request, name, "clusters")


def wait_for(condition, process, seconds=60):
    """Wait for a condition while a process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
