"""What the end-to-end tests share: start the command, make audio, look at what was written."""

import hashlib
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time
import typing as tp
import wave

import numpy as np
import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PLUGINS = REPOSITORY / "tests" / "plugins"
COMMAND = [sys.executable, "-m", "orchestrator"]
TONE = {"name": "tone", "extractor": "tone:Tone"}
ELSEWHERE = {"name": "elsewhere", "extractor": "elsewhere:Elsewhere"}  # in the environment of `write_environment`
GOOD, BAD = 0.5, 0.9  # peaks; naughty misbehaves above 0.8


def consort(
    *arguments: tp.Any, timeout: float = 300, cwd: tp.Any = REPOSITORY, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def processor_seconds() -> float:
    """Return what all ended children of this process have computed: a busy machine changes little of it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Started:
    """The command in the background, with everything it starts."""

    def __init__(self, *arguments: tp.Any, cwd: tp.Any = REPOSITORY, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=cwd, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def children(self) -> tp.List[int]:
        """Return the processes below this one that live."""
        return descendants(self.process.pid)

    def kill(self) -> tp.List[int]:
        """Kill the command alone, as the system would; return the workers it leaves behind."""
        children = self.children()
        self.process.kill()
        self.process.wait(10)
        return children

    def kill_tree(self) -> None:
        """Kill the command and all it started, at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # or it could start another one meanwhile
            for pid in [*self.children(), self.process.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.process.wait(10)

    def wait(self, timeout: float = 60) -> int:
        """Return the exit code."""
        self.text = self.process.communicate(timeout=timeout)[0]
        return self.process.returncode

    def close(self) -> None:
        """Close the pipe."""
        if self.process.stdout:
            self.process.stdout.close()


def descendants(pid: int) -> tp.List[int]:
    """Return all living processes below `pid`."""
    parents = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    found, queue = [], [pid]
    while queue:
        above = queue.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        queue += below
    return found


def alive(pid: int) -> bool:
    """Return whether a process lives; one that only waits to be reaped does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: tp.Callable[[], tp.Any], seconds: float = 30) -> tp.Any:
    """Wait for `condition` and return what it says."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def write_job(output: pathlib.Path, audio: tp.Any, *models: tp.Any, **keys: tp.Any) -> pathlib.Path:
    """Write a job file beside the output folder and return it."""
    job = {"audio": str(audio), "output": str(output), "models": list(models), "plugins": [str(PLUGINS)], **keys}
    path = output.with_name(f"{output.name}.yaml")
    path.write_text(yaml.safe_dump(job), "utf-8")
    return path


def write_environment(folder: pathlib.Path) -> pathlib.Path:
    """Write an environment of nothing but what the worker needs, and a module of its own; return its folder."""
    (folder / "own_numbers").mkdir(parents=True)
    (folder / "own_numbers" / "__init__.py").write_text("GAIN = 3.0\n")
    needs = ("cffi", "numpy", "pycparser", "soundfile", "soxr", "typing-extensions")
    lock = (REPOSITORY / "images/tf-cuda/requirements.cpu.lock").read_text("utf-8")
    pins = [pin for pin in re.split(r"^(?=[a-z])", lock, flags=re.MULTILINE) if pin.partition("==")[0] in needs]
    (folder / "requirements.lock").write_text("".join(pins))
    (folder / "requirements.in").write_text("numpy\nsoundfile\nsoxr\n")
    declared = {"python": "3.11", "gpu": "none", "base_image": "python:3.11-slim-bookworm", "probes": ["numpy"]}
    declared.update(locks={"cpu": "requirements.lock"}, modules=["own_numbers"])
    (folder / "env.yaml").write_text(yaml.safe_dump(declared))
    return folder


def naughty(mode: str, **params: tp.Any) -> tp.Dict[str, tp.Any]:
    """Return the settings of the model that misbehaves."""
    return {"name": "naughty", "extractor": "naughty:Naughty", "params": {"mode": mode, **params}}


def write_wav(path: pathlib.Path, peak: float = GOOD, seconds: float = 0.5, pitch: float = 220.0) -> pathlib.Path:
    """Write a sine, mono at 16 kHz."""
    times = np.arange(round(seconds * 16000)) / 16000
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, 16000, 0, "NONE", ""))
        f.writeframes((np.sin(2 * np.pi * pitch * times) * peak * 32767).astype("<i2").tobytes())
    return path


def write_wavs(folder: pathlib.Path, count: int, **options: float) -> None:
    """Write `good_00.wav` and so on, all different."""
    for n in range(count):
        write_wav(folder / f"good_{n:02d}.wav", pitch=200 + 10 * n, **options)


def manifest(output: pathlib.Path) -> tp.List[tp.Dict[str, tp.Any]]:
    """Return the records."""
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text("ascii").splitlines()]


def written(output: pathlib.Path) -> tp.Set[tp.Tuple[str, str]]:
    """Return (model, item) of every record."""
    return {(record["model"], record["item"]) for record in manifest(output)}


def fingerprint(output: pathlib.Path) -> tp.Dict[str, str]:
    """Return the hash of every array and of the manifest, by path."""
    files = [path for path in output.rglob("*") if path.is_file() and ".consort" not in path.parts]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def leftovers(output: pathlib.Path) -> tp.List[str]:
    """Return everything that only a run under way may have."""
    inner = output / ".consort"
    partial = [p for p in output.rglob("*") if p.name.endswith(".part") or ".spool" in p.name]
    return [
        str(p.relative_to(output)) for p in [*partial, *(inner / "scratch").iterdir(), *(inner / "records").iterdir()]
    ]


def status(target: tp.Any) -> tp.Dict[str, tp.Any]:
    """Return what `status --json` says."""
    done = consort("status", target, "--json")
    assert done.returncode == 0, done.stderr
    return tp.cast(tp.Dict[str, tp.Any], json.loads(done.stdout))


def failures(output: pathlib.Path) -> tp.Dict[tp.Tuple[str, str], str]:
    """Return the class of every failure that status knows, by (model, item)."""
    return {(f["model"], f["item"]): f["kind"] for f in status(output)["failures"]}


def runs(output: pathlib.Path) -> tp.List[pathlib.Path]:
    """Return the folders of all runs, the newest last."""
    return sorted((output / ".consort" / "runs").iterdir())


def launched(output: pathlib.Path) -> tp.List[pathlib.Path]:
    """Return the shards that the newest run has started, one file per process."""
    return sorted((runs(output)[-1] / "shards").iterdir())


def read(path: pathlib.Path) -> tp.Any:
    """Return the contents of a JSON file."""
    return json.loads(path.read_text("ascii"))
