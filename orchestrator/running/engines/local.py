"""This machine: one worker process per slot, watched through its event file.

The workers' standard input is a pipe that only this process holds: whatever kills it closes the pipe,
and the workers end by themselves.
"""

import os
import pathlib
import signal
import subprocess
import time
import typing as tp

from orchestrator.errors import RunFailed
from orchestrator.running.engines.base import Ended, Engine, Happening, Launch
from worker import protocol, regular
from worker.protocol import Event

_GRACE = 30.0  # seconds a worker gets to commit and end when it is asked to
_KILLING = 15.0  # seconds in which what a command has started elsewhere must have ended when it is killed
_LOADING = 600.0  # seconds a model may take to load, however short an item's time limit is


class LocalEngine(Engine):
    """Runs up to `slots` workers; kills one that shows no progress for its item's time limit."""

    def __init__(self, slots: int, seconds: float = 600.0, per_second: float = 30.0) -> None:
        """Set the limits.

        Args:
            slots: workers side by side.
            seconds: time limit of any one step: decoding, a model on an item; loading has its own.
            per_second: what a second of audio adds to it.
        """
        self.slots = slots
        self._limits = (seconds, per_second)
        self._running: list[_Process] = []

    def free(self) -> int:
        return self.slots - sum(not process.launch.gpus for process in self._running)

    def busy(self) -> bool:
        return bool(self._running)

    def launch(self, launch: Launch) -> None:
        self._running.append(_Process(launch, *self._limits))

    def poll(self) -> tp.Iterator[Happening]:
        for process in list(self._running):
            shard = process.launch.shard
            code = process.poll()  # before the events are read, so that none can be missed
            for event in process.events():
                yield shard, event
            if code is not None:
                self._running.remove(process)
                process.close()
                yield shard, Ended(code, process.finished, process.hung, process.launch.log)

    def stop(self, kill: bool = False) -> None:
        for process in self._running:
            process.kill() if kill else process.ask()


class _Process:
    """A worker, the tail of its events, and how long it may go on without any."""

    def __init__(self, launch: Launch, seconds: float, per_second: float) -> None:
        self.launch = launch
        self.finished = False
        self.hung = False
        self._limits = (seconds, per_second)
        self._durations: dict[str, float] = {}
        self._item = ""  # what the model is busy with; decoding ahead and writing behind speak of others
        self._rest = ""
        self._deadline = time.monotonic() + max(seconds, _LOADING)
        self._killer: subprocess.Popen[bytes] | None = None
        # opened once: whatever a worker puts in its place later is not read, nor waited for
        self._events = os.fdopen(_open(launch.events, os.O_RDONLY), "rb")
        log = _open(launch.log, os.O_WRONLY | os.O_APPEND)
        try:
            self._process = subprocess.Popen(
                launch.command.argv,
                env=launch.command.env,
                cwd=launch.command.cwd,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends them in order
            )
        finally:
            os.close(log)

    def poll(self) -> int | None:
        if time.monotonic() > self._deadline and self._process.poll() is None:
            if self._killer is None:
                self.hung = True
                self.kill()
            else:
                self._kill_group()
        return self._process.poll()

    def events(self) -> tp.Iterator[Event]:
        text = self._events.read().decode("ascii", errors="replace")
        *lines, self._rest = (self._rest + text).split("\n")
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
            case "model_refused" | "output_lost":
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
        if not self.launch.command.kill:
            self._kill_group()
        elif self._killer is None and self._process.poll() is None:
            quiet = subprocess.DEVNULL
            self._killer = subprocess.Popen(self.launch.command.kill, stdin=quiet, stdout=quiet, stderr=quiet)
            self._deadline = time.monotonic() + _KILLING

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _open(path: pathlib.Path, flags: int) -> int:
    try:
        return regular.open_file(path, flags | os.O_CREAT)
    except OSError as error:
        raise RunFailed(f"{path.name}: {error.strerror}; run again") from error


def default_slots() -> int:
    """Return the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
