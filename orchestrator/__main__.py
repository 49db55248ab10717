"""The `consort` command: parse, call, exit code. The verbs are in `orchestrator/cli`, one file each."""

import argparse
import contextlib
import difflib
import errno
import io
import os
import re
import sys
import typing as tp

import orchestrator
from orchestrator import errors

_EXIT = "exit codes: 0 all written; 1 some items failed; 2 wrong job or no audio; 3 an environment, device or\n\
checkpoint is missing; 4 shards lost or output unusable; 130 interrupted"


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code; only here are errors printed."""
    _begin(argv is None)
    try:
        return _call(_parse(argv))
    except errors.ConsortError as error:
        print(f"consort: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader went away, as `| head` does
        return errors.OK
    except PermissionError as error:
        if error.filename is None:
            raise
        print(f"consort: {os.fsdecode(error.filename)}: {error.strerror}; mend its rights", file=sys.stderr)
        return errors.LOST
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print("consort: no room on standard output or the disk; what was extracted is kept", file=sys.stderr)
        return errors.LOST
    except KeyboardInterrupt:
        print("consort: interrupted", file=sys.stderr)
        return errors.INTERRUPTED


def _prefer_own_modules() -> None:
    """Let no module on somebody's PYTHONPATH take the place of ours or of a package's, here or in a child."""
    given = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    theirs = {os.path.abspath(folder) for folder in given if folder}
    behind = [folder for folder in sys.path if os.path.abspath(folder) in theirs]
    images = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "images")
    sys.path[:] = [images, *(folder for folder in sys.path if folder not in behind), *behind] if behind else sys.path


class _Unheard(io.TextIOWrapper):
    """Standard error whose reader may go away: a run does not end for that."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)


def _begin(own: bool) -> None:
    """Make harmless what a caller has set or closed, where the process is our own; names need not be text."""
    if own:
        _prefer_own_modules()
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which the next file would have had
        sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
        sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
        raw = tp.cast(tp.BinaryIO, io.FileIO(2, "w", closefd=False))
        sys.stderr = _Unheard(raw, sys.stdout.encoding, write_through=True)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _call(arguments: argparse.Namespace) -> int:
    code = int(arguments.verb(arguments))
    sys.stdout.flush()  # here, where a reader that went away is no error
    return code


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments; names may stand on both sides of flags, where argparse takes them on one."""
    top, argv = parser(), sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-") and argv[0] not in (known := _verbs()):
        if argv[0].endswith((".yaml", ".yml")):
            top.error(f"{argv[0]} is no command; did you mean `consort extract {argv[0]}`?")
        from worker import schema

        top.error(f"{argv[0]!r}: {schema.unknown(argv[0], known, 'command')}")
    arguments, rest = top.parse_known_args(argv)
    if rest and (not hasattr(arguments, "names") or any(word.startswith("-") for word in rest)):
        known = re.findall(r"--[a-z][\w-]*", arguments.parser.format_help())
        close = [one for word in rest for one in difflib.get_close_matches(word.partition("=")[0], known, n=1)]
        hint = f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
        arguments.parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    if rest:
        arguments.names += rest
    return arguments


def _verbs() -> list[str]:
    from orchestrator.cli.verbs import VERBS

    return [verb.__name__.rpartition(".")[2] for verb in VERBS]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; abbreviations are not accepted."""
    from orchestrator.cli.verbs import VERBS  # here, where an interruption is told in one line

    top = argparse.ArgumentParser(
        prog="consort",
        description="Audio embeddings from models that cannot share one Python environment.",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"consort {orchestrator.__version__}")
    verbs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for verb in VERBS:
        verb.add(verbs)
    return top


if __name__ == "__main__":
    sys.exit(main())
