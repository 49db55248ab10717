"""The processes that build environments and images: their lines are followed, and all can be ended at once."""

import re
import subprocess
import threading
import typing as tp

Say = tp.Callable[[str], None]  # gets a line of progress now and then
cancelled = threading.Event()  # from then on this process builds nothing
_RUNNING: set["subprocess.Popen[str]"] = set()
_ADDRESS = re.compile(r"(https?)://(?:[^\s/@]*@)?([^\s/]+)(/\S*)?|(with url: )\S+")
_FILE = re.compile(r"/[^/?#]+\.(?:whl|tar\.gz|zip)")


def run(
    command: tp.Sequence[str], variables: dict[str, str], out: tp.TextIO | None, follow: tp.Callable[[str], None]
) -> int:
    """Run a command to its end, and return its exit code.

    Args:
        command: what to run.
        variables: its whole environment.
        out: gets what it prints, without secrets.
        follow: is called with every line, as it comes.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=variables,
    ) as process:  # fmt: skip
        _RUNNING.add(process)
        if cancelled.is_set():
            process.kill()
        try:
            for line in process.stdout or ():
                if out:
                    out.write(redact(line))
                    out.flush()
                follow(line)
        except BaseException:
            process.kill()
            raise
        finally:
            _RUNNING.discard(process)
    return process.returncode


def cancel() -> None:
    """End all builds of this process, also those that wait; the next builder removes what they leave."""
    cancelled.set()  # first: what starts from here on ends itself
    for process in list(_RUNNING):
        process.kill()


def redact(line: str) -> str:
    """Return what a builder says without credentials and the paths of indexes, which may hold a token."""

    def shorten(found: "re.Match[str]") -> str:
        if found[4]:
            return f"{found[4]}..."
        name = _FILE.search(found[3] or "")
        return f"{found[1]}://{found[2]}/...{name[0] if name else ''}"

    return _ADDRESS.sub(shorten, line)
