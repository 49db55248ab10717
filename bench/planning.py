"""What it costs to plan a large folder: processor time and peak memory of `consort plan`, as the command runs it.

::

    .venv/bin/python bench/planning.py --files 100000 FOLDER

FOLDER is made (files of 1 kB that all differ, an array for each of them as a run would have left it, and a table of
segments that names each file twice) and may be removed afterwards. The processor is named, as seconds are its own.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import pathlib
import platform
import subprocess
import sys
import typing as tp
import wave

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "images")]

from orchestrator.job import spec  # noqa: E402
from orchestrator.planning import plan, survey  # noqa: E402
from worker import protocol, schema  # noqa: E402

MODEL = {"name": "musicnn", "outputs": ["embedding"]}
PER_FOLDER = 1000


def main() -> None:
    """Make the folder and print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True)
    names = write_audio(folder / "audio", options.files)
    rows = (f"{name},{start},{start + 0.02}\n" for name in names for start in (0.0, 0.02))
    (folder / "segments.csv").write_text("path,start,end\n" + "".join(rows))
    print(f"{options.files} files, {processor()}")
    measure("nothing is done", write_job(folder, "audio", "none"))
    measure("rows of segments, nothing is done", write_job(folder, "segments.csv", "none", audio_root="audio"))
    job = write_job(folder, "audio", "done")
    writer = multiprocessing.get_context("spawn").Process(target=write_arrays, args=(job,))
    writer.start()  # a process of its own: the peak of a command begins with the memory of the one that starts it
    writer.join()
    if writer.exitcode:
        raise SystemExit(f"the arrays could not be written ({writer.exitcode})")
    measure("all is done", job)


def write_audio(folder: pathlib.Path, count: int) -> list[str]:
    """Write `count` files of 0.06 s, whose samples differ, and return their paths below `folder`."""
    names = []
    for number in range(count):
        name = f"{number // PER_FOLDER:04}/{number:06}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(number.to_bytes(4, "little") * 240)
        names.append(name)
    return names


def write_job(folder: pathlib.Path, audio: str, output: str, **keys: str) -> pathlib.Path:
    """Write the next job file and return its path."""
    path = folder / f"{len(list(folder.glob('*.json')))}.json"
    path.write_text(json.dumps({"audio": audio, "output": output, "models": [MODEL], "runtime": "venv", **keys}))
    return path


def write_arrays(job: pathlib.Path) -> None:
    """Leave what a run of the job would: an array and a record for each item."""
    text = json.loads(job.read_text())
    checked = spec.check({**text, "audio": str(job.parent / text["audio"]), "output": str(job.parent / text["output"])})
    found = survey.take(checked)
    found.output.create(checked.folders)
    (model,) = found.plan.models
    lines, facts = [], []
    for choice in found.plan.choices:
        source = hashlib.sha256((job.parent / "audio" / choice.source.id).read_bytes()).hexdigest()
        ((output, path),) = plan.paths_of(model, choice.name).items()
        array = found.output.root / path
        array.parent.mkdir(parents=True, exist_ok=True)
        array.write_bytes(source.encode())
        lines.append(protocol.canonical(schema.dump(_record(choice.source, model, output, path, source))) + "\n")
        seen = protocol.Facts(source, choice.source.size, choice.source.mtime_ns)
        facts.append(protocol.canonical({"item": choice.source.id, **schema.dump(seen)}) + "\n")
    found.output.manifest.write_text("".join(lines), "ascii")
    found.output.sources.write_text("".join(facts), "ascii")


def _record(source: tp.Any, model: tp.Any, output: str, path: str, sha256: str) -> protocol.Record:
    content = hashlib.sha256(sha256.encode()).hexdigest()
    key = protocol.key_of(model.task.key, output, sha256)
    made = {"path": path, "shape": [1, 200], "dtype": "float32", "axes": ["time", "feature"], "frame_rate": 1.0}
    heard = {"source": sha256, "duration": 0.06, "sample_rate": 8000, "channels": 1, "decoder": "soundfile"}
    kept = {"key": key, "sha256": content, "bytes": len(sha256), "context": "c", "start": 0.0, "flags": []}
    return protocol.Record(item=source.id, model=model.name, output=output, **made, **heard, **kept)


def measure(what: str, job: pathlib.Path) -> None:
    """Run `consort plan` twice, print what the second one took: the first one reads from a cold disk."""
    command = [sys.executable, "-m", "orchestrator", "plan", str(job)]
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        said = process.stdout.read().decode() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"consort plan ended with {process.returncode}: {said}")
    counts = said.splitlines()[1]
    print(f"{what:36} {used.ru_utime + used.ru_stime:5.1f} s of processor, {used.ru_maxrss / 1024:4.0f} MB   {counts}")


def processor() -> str:
    """Return the name of this machine's processor."""
    facts = pathlib.Path("/proc/cpuinfo")
    named = [line for line in facts.read_text().splitlines() if line.startswith("model name")] if facts.exists() else []
    return named[0].partition(": ")[2] if named else platform.processor()


if __name__ == "__main__":
    main()
