"""The `consort` command: parse, call, exit code. The verbs are in `orchestrator/cli`, one file each."""

import argparse
import difflib
import errno
import os
import re
import sys

import orchestrator
from orchestrator import errors
from worker import schema

_EXIT = "exit codes: 0 all written; 1 some items failed; 2 wrong job or no audio; 3 an environment, device or\n\
checkpoint is missing; 4 shards lost or output unusable; 130 interrupted"


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code; only here are errors printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
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


def _call(arguments: argparse.Namespace) -> int:
    code = int(arguments.verb(arguments))
    if sys.stdout is not None:  # as it is where the caller closed it
        sys.stdout.flush()  # here, where a reader that went away is no error
    return code


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments; names may stand on both sides of flags, where argparse takes them on one."""
    top, argv = parser(), sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-") and argv[0] not in (known := _verbs()):
        if argv[0].endswith((".yaml", ".yml")):
            top.error(f"{argv[0]} is no command; did you mean `consort extract {argv[0]}`?")
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
