"""The process that fits a model: started, listened to, and judged by its end."""

import json
import pathlib
import subprocess
import typing as tp

from orchestrator.errors import JobError, RunFailed
from orchestrator.running.progress import Progress
from orchestrator.running.runtimes.base import Command
from worker import protocol

_GRACE = 30.0  # seconds that it gets to write its state when it is asked to end


def follow(command: Command, log: pathlib.Path, shown: Progress) -> dict[str, tp.Any]:
    """Run a fit to its end and return its facts.

    Standard input is a pipe that only this process holds: whatever ends this one, the fit writes its state
    and ends by itself.

    Args:
        command: prints JSON lines.
        log: file for everything else that it says.
        shown: says where it stands.

    Raises:
        JobError: it refuses the data or an option.
        RunFailed: its folder cannot be written, or it was lost.
    """
    facts: dict[str, tp.Any] | None = None
    message = ""
    with open(log, "ab") as errors:
        process = subprocess.Popen(
            command.argv, env=command.env, cwd=command.cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=errors, start_new_session=True, encoding="ascii", errors="replace",
        )  # fmt: skip
        try:
            for event in _events(process.stdout or ()):
                if event.get("kind") == "progress":
                    shown.stage("fit", _words(event))
                elif event.get("kind") == "note":
                    shown.say(f"fit: {event['text']}")
                facts = event.get("facts") if event.get("kind") == "finished" else facts
                message = event.get("message") or message
            code = process.wait()
        finally:
            _end(process)
    if code == protocol.EXIT_OK and facts is not None:
        return facts
    raise _trouble(code, message, log)


def _events(lines: tp.Iterable[str]) -> tp.Iterator[dict[str, tp.Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut short by a death
        if isinstance(event, dict):
            yield event


def _words(event: dict[str, tp.Any]) -> str:
    share = event.get("share") or 0.0
    return f"{100 * share:.0f} %  {event['text']}" if share else str(event["text"])


def _end(process: "subprocess.Popen[str]") -> None:
    """Ask a process to end by closing its input, and kill it when it does not."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(_GRACE if process.poll() is None else None)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def _trouble(code: int, message: str, log: pathlib.Path) -> Exception:
    if code == protocol.EXIT_PERMANENT and message:
        return JobError(message)
    if code == protocol.EXIT_OUTPUT and message:
        return RunFailed(message)
    if code == protocol.EXIT_AGAIN:
        return RunFailed("the fit was stopped; repeat the command (an encoder goes on where it stood)")
    end = f"signal {-code}" if code < 0 else f"code {code}"
    return RunFailed(f"the fit ended by {end}; repeat the command to go on where it stood, or see {log}")
