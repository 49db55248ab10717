"""The `consort` command: parse, call, print, exit code. The verbs are in `orchestrator.cli.commands`."""

import argparse
import errno
import os
import sys
import typing as tp

from orchestrator import errors

_EXIT = "exit codes: 0 all written; 1 some items failed; 2 wrong job or no audio; 3 an environment, device or\n\
checkpoint is missing; 4 shards lost or output unusable; 130 interrupted"

# The flags of `extract` set keys of the job; the second names are the spellings of the models' own scripts.
_FLAGS: list[tuple[tuple[str, ...], dict[str, tp.Any]]] = [
    (("--audio", "--audio_dir", "--input"), {"metavar": "PATH", "help": "folder, file, list.txt or table.csv"}),
    (("--output", "--output_dir", "--output_base"), {"metavar": "DIR", "help": "where arrays are written"}),
    (
        ("--models",),
        {
            "nargs": "+",
            "action": "extend",
            "metavar": "NAME",
            "help": "only these of the job; see `consort models`",
        },
    ),
    (("--limit", "--max_samples"), {"type": int, "metavar": "N", "help": "at most N items that are not done yet"}),
    (("--devices", "--device"), {"metavar": "D", "help": "auto | cpu | cuda | cuda:N"}),
    (("--runtime",), {"metavar": "R", "help": "auto | docker | venv"}),
    (("--resume",), {"metavar": "R", "help": "key | strict | exists | never"}),
    (("--workers",), {"type": int, "metavar": "N", "help": "worker processes side by side (default: cores)"}),
    (("--memory",), {"metavar": "SIZE", "help": "memory that one worker may take, such as 8GB"}),
    (("--timeout_per_item", "--timeout-per-item"), {"type": float, "metavar": "S", "help": "seconds"}),
    (("--licence_policy", "--licence-policy"), {"metavar": "P", "help": "any | commercial"}),
]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code; only here are errors printed."""
    arguments = _parse(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        from orchestrator.cli import commands

        code = int(getattr(commands, arguments.command)(arguments))
        if sys.stdout is not None:  # as it is where the caller closed it
            sys.stdout.flush()  # here, where a reader that went away is no error
        return code
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


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments; names may stand on both sides of flags, where argparse takes them on one."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and (not hasattr(arguments, "names") or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.names += rest
    return arguments


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; abbreviations are not accepted."""
    top = argparse.ArgumentParser(
        prog="consort",
        description="Audio embeddings from models that cannot share one Python environment.",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    extract = _verb(verbs, "extract", "run a job: every model over every audio file")
    _add_job(extract)
    extract.add_argument("--offline", action="store_true", help="fetch no weights")
    extract.add_argument("--force", action="store_true", help="start although the disk looks too small")
    extract.add_argument(
        "--verbose", "--debug", action="store_true", help="list every array with its shape, and every failure"
    )
    _add_job(_verb(verbs, "plan", "show what a job would do, and start nothing"))
    status = _verb(verbs, "status", "show what is done, pending, failed, stale and orphaned")
    status.add_argument("job", metavar="JOB|OUTPUT", help="a job file or an output folder")
    status.add_argument("--verbose", "--debug", action="store_true", help="list every failure")
    status.add_argument("--json", action="store_true", help="print JSON")
    _add_verify(_verb(verbs, "verify", "hash the arrays of a run again, or compare two runs"))
    compose = _verb(verbs, "compose", "the first and last step of docker-compose.yml, around its workers")
    compose.add_argument(
        "action",
        choices=("plan", "report", "root", "write"),
        help="root: the folder of a job's own files; write: the file itself",
    )
    _add_job(compose)
    models = _verb(verbs, "models", "list the models, or show one with its parameters and outputs")
    models.add_argument("name", nargs="?", help="show only this one")
    models.add_argument("--markdown", action="store_true", help="print the README's table")
    envs = _verb(verbs, "envs", "list, build or remove the environments")
    envs.add_argument("action", nargs="?", choices=("list", "build", "remove"), default="list")
    envs.add_argument("names", nargs="*", metavar="ENVIRONMENT", help="or a folder of your own (default: all)")
    envs.add_argument("--runtime", choices=("venv", "docker"), default="venv", help="docker: container images")
    envs.add_argument(
        "--variant", dest="variants", action="append", choices=("cpu", "cuda"), help="default: what this machine has"
    )
    weights = _verb(verbs, "weights", "list, pull or verify the checkpoints, with their licences")
    weights.add_argument("action", nargs="?", choices=("list", "pull", "verify"), default="list")
    weights.add_argument("names", nargs="*", metavar="MODEL", help="default: all, and ffmpeg")
    weights.add_argument("--checkpoint", metavar="NAME", help="this one of a model: m-a-p/MERT-v1-330M")
    weights.add_argument(
        "--licence_policy",
        "--licence-policy",
        choices=("any", "commercial"),
        default="any",
        help="of pull; commercial: no others",
    )
    _add_fit(_verb(verbs, "fit", "fit a token model, or an encoder of tokens, to the prosody that a job has written"))
    python = _verb(verbs, "python", "run your own script with an environment's interpreter and modules")
    python.add_argument("--runtime", choices=("venv", "docker"), help="default: venv where it can be had")
    python.add_argument("environment", metavar="ENVIRONMENT", help="see `consort envs`; or a folder of your own")
    python.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="as for python: SCRIPT.py ...")
    _verb(verbs, "doctor", "look whether everything is there, and say how to mend what is not")
    return top


def _verb(verbs: tp.Any, name: str, text: str) -> argparse.ArgumentParser:
    return tp.cast(
        argparse.ArgumentParser,
        verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False),
    )


def _add_verify(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="an output folder or a job file")
    verb.add_argument("other", nargs="?", metavar="OTHER", help="compare with this one, array by array")
    verb.add_argument("--repair", action="store_true", help="remove damaged files, so that `extract` renews them")
    verb.add_argument("--recompute", type=_positive, metavar="N", help="compute N items again, and compare")
    verb.add_argument("--seed", type=int, metavar="S", help="of --recompute: draw the items; default: evenly spread")
    verb.add_argument("--runtime", choices=("auto", "docker", "venv"), help="of --recompute; default: the job's")
    text = "count other bytes as the same within X, and X of the value (default 1e-5)"
    verb.add_argument("--tolerance", nargs="?", type=_tolerance, const=1e-5, metavar="X", help=text)
    verb.add_argument("--verbose", "--debug", action="store_true", help="list every file and array")
    verb.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of items; the least is 1")
    return int(text)


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number; --tolerance=1e-4, or the flag alone after the folders")
    return value


def _add_job(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("job", nargs="?", metavar="JOB.yaml", help="without it the flags are the job")
    for names, options in _FLAGS:
        verb.add_argument(*names, dest=names[0].lstrip("-"), **options)
    verb.add_argument("--skip_existing", "--skip-existing", action="store_true", help="same as --resume exists")
    verb.add_argument("--retry_failed", "--retry-failed", action="store_true", help="try failed items again")
    _add_set(verb)


def _add_set(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key: --set crepe.params.viterbi=false"
    )


def _add_fit(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("job", metavar="JOB.yaml", help="has been run with the model `prosody`")
    verb.add_argument("--stage", choices=("clusters", "encoder"), default="clusters", help="default: clusters")
    verb.add_argument("--output", metavar="DIR", help="the model's folder (default: the job's, or models/STAGE)")
    verb.add_argument("--model", metavar="NAME", help="the job's model to learn from, where it has several")
    verb.add_argument("--clusters", type=int, metavar="N", help="number of tokens (default: 120)")
    verb.add_argument("--max_iter", "--max-iter", type=int, metavar="N", help="iterations at most (default: 1000)")
    verb.add_argument("--cluster_model", "--cluster-model", metavar="DIR", help="the encoder's token model")
    verb.add_argument("--size", choices=("small", "default", "large"), help="of the encoder (default: small)")
    verb.add_argument("--epochs", type=int, metavar="N", help="of the encoder's training (default: 40)")
    verb.add_argument("--steps", type=int, metavar="N", help="end the training after these instead")
    verb.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    verb.add_argument("--runtime", choices=("auto", "docker", "venv"), help="default: the job's")
    _add_set(verb)


if __name__ == "__main__":
    sys.exit(main())
