"""This machine: one worker process per slot, watched through its event file.

The workers' standard input is a pipe that only this process holds: whatever kills it closes the pipe,
and the workers end by themselves.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import time
import typing as tp

from orchestrator import files
from orchestrator.errors import RunFailed
from orchestrator.running.engines.base import Ended, Engine, Happening, Job, Site
from orchestrator.running.runtimes.base import Command, Mounts, Resources, own_paths
from worker import protocol, regular, schema
from worker.protocol import Event

_GRACE = 30.0  # seconds a worker gets to commit and end when it is asked to
_KILLING = 15.0  # seconds in which what a command has started elsewhere must have ended when it is killed
_PIECE = 1 << 24  # bytes of events that are read at once
_LOADING = 600.0  # seconds a model may take to load, however short an item's time limit is
_LIMITS = (600.0, 30.0)  # seconds of any step (decoding, a model on an item), and what a second of audio adds
_LEARNING = (86400.0, 0.0)  # of a fit, which validates a whole epoch, or seeds, without a word; nothing waits for it


class LocalEngine(Engine):
    """Runs as many workers as there are slots; kills one that shows no progress for its item's time limit."""

    def __init__(self, site: Site, limits: tuple[float, float] = _LIMITS) -> None:
        """Take seconds of any one step but loading, and what a second of audio adds; the job's limit replaces both."""
        limit = site.spec.timeout_per_item
        self.slots = site.spec.workers or default_slots()
        self._site = site
        self._limits = (limit, 0.0) if limit else limits
        self._running: list[_Process] = []

    def takes(self, gpu: bool) -> bool:
        return gpu or sum(not process.job.gpus for process in self._running) < self.slots

    def busy(self) -> bool:
        return bool(self._running)

    def submit(self, jobs: tp.Sequence[Job]) -> None:
        for job in jobs:
            self._running.append(self._start(job))

    def poll(self) -> tp.Iterator[Happening]:
        for process in list(self._running):
            code = process.poll()  # before the events are read, so that none can be missed
            for event in process.events():
                yield process.job, event
            if code is not None:
                self._running.remove(process)
                process.close()
                yield process.job, self._end(process, code)

    def cancel(self, kill: bool = False) -> None:
        for process in self._running:
            process.kill() if kill else process.ask()

    def close(self) -> None:
        super().close()
        self._site.runtime.close()

    def _start(self, job: Job) -> "_Process":
        """Make the files of an attempt, and start the command that runs it."""
        site = self._site
        self._refuse_moved()
        scratch = site.output.scratch / job.name
        site.output.make(scratch, new=True)
        file, events = site.run.shards / f"{job.name}.json", site.output.records / f"{job.name}.jsonl"
        log = site.run.log(job.name)
        for path, text in ((file, protocol.canonical(schema.dump(job.shard))), (events, ""), (log, "")):
            files.write_new(path, text)
        weights, ffmpeg = (str(site.weights.root), site.weights.program()) if site.weights else ("", "")
        own = tuple(own_paths(job.shard.plugins, job.shard.tasks))
        mounts = Mounts(site.audio, str(site.output.root), weights, str(scratch), ffmpeg, own)
        resources = Resources(job.gpus, job.memory, job.threads)
        command = site.runtime.command(job.shard, mounts, file, events, resources)
        return _Process(job, command, events, log, _LEARNING if job.shard.kind == "fit" else self._limits)

    def _end(self, process: "_Process", code: int) -> Ended:
        self._refuse_moved()
        shutil.rmtree(self._site.output.scratch / process.job.name, ignore_errors=True)
        cause = self._site.runtime.end(process.job.name, code, process.log)
        how = process.finished, process.hung, process.log
        return Ended(code, *how, cause.out_of_memory, cause.problem, cause.limit)

    def _refuse_moved(self) -> None:
        """A worker may have changed what it writes into: nothing is made or removed through a link of its."""
        run = self._site.run
        self._site.output.refuse_moved(run.root, run.shards, run.logs)


class _Process:
    """A worker, the tail of its events, and how long it may go on without any."""

    def __init__(
        self, job: Job, command: Command, events: pathlib.Path, log: pathlib.Path, limits: tuple[float, float]
    ) -> None:
        self.job = job
        self.log = log
        self.finished = False
        self.hung = False
        self._command = command
        self._limits = limits
        self._durations: dict[str, float] = {}
        self._item = ""  # what the model is busy with; decoding ahead and writing behind speak of others
        self._rest = ""
        self._deadline = time.monotonic() + max(limits[0], _LOADING)
        self._killer: subprocess.Popen[bytes] | None = None
        # opened once: whatever a worker puts in its place later is not read, nor waited for
        self._events = os.fdopen(_open(events, os.O_RDONLY), "rb")
        out = _open(log, os.O_WRONLY | os.O_APPEND)
        try:
            self._process = subprocess.Popen(
                command.argv, env=command.env, cwd=command.cwd, stdin=subprocess.PIPE, stdout=out, stderr=out,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends them in order
            )  # fmt: skip
        finally:
            os.close(out)

    def poll(self) -> int | None:
        if time.monotonic() > self._deadline and self._process.poll() is None:
            if self._killer is None:
                self.hung = True
                self.kill()
            else:
                self._kill_group()
        return self._process.poll()

    def events(self) -> tp.Iterator[Event]:
        while piece := self._events.read(_PIECE):
            *lines, self._rest = (self._rest + piece.decode("ascii", errors="replace")).split("\n")
            self._rest = self._rest[:_PIECE]  # no event is as long: what a worker has broken is damaged, and no more
            for line in lines:
                try:
                    event = protocol.decode(line)
                except ValueError:
                    continue
                self._note(event)
                yield event

    def _note(self, event: Event) -> None:
        seconds, per_second = self._limits
        item = event.item or ""
        match event.kind:
            case "heartbeat":
                return
            case "finished":
                self.finished = True
            case "hello" | "loading":
                seconds = max(seconds, _LOADING)
            case "decoded":
                self._durations[item] = event.seconds or 0.0
            case "opened":
                self._item = item if event.model else self._item
            case "loaded" | "batch_reduced" | "wrote" | "failed" | "device_missing" | "device_lost":
                pass
            case "model_refused" | "output_lost" | "progress" | "note" | "fitted":
                pass
            case _:
                protocol.refuse_kind(event.kind)
        longest = max(self._durations.get(one, 0.0) for one in (item, self._item))
        self._deadline = time.monotonic() + seconds + per_second * longest

    def ask(self) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
            self._deadline = min(self._deadline, time.monotonic() + _GRACE)

    def close(self) -> None:
        self._events.close()
        if self._process.stdin:
            self._process.stdin.close()
        if self._killer:
            try:
                self._killer.wait(_KILLING)
            except subprocess.TimeoutExpired:
                self._killer.kill()
                self._killer.wait()

    def kill(self) -> None:
        """End the worker at once: by its runtime's own command, after which the process here ends by itself."""
        if not self._command.kill:
            self._kill_group()
        elif self._killer is None and self._process.poll() is None:
            quiet = subprocess.DEVNULL
            self._killer = subprocess.Popen(self._command.kill, stdin=quiet, stdout=quiet, stderr=quiet)
            self._deadline = time.monotonic() + _KILLING

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _open(path: pathlib.Path, flags: int) -> int:
    try:
        return regular.open_file(path, flags)
    except OSError as error:
        raise RunFailed(f"{path.name}: {error.strerror}; run again") from error


def default_slots() -> int:
    """Return the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
