"""What verbs share of the command line: how one is added, the flags of a job, and the job that they make."""

import argparse
import json
import os
import sys
import typing as tp

from orchestrator.cli import old_flags, words
from orchestrator.errors import JobError
from orchestrator.job import reading
from orchestrator.job.spec import JobSpec
from orchestrator.text import printable

Verbs: tp.TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# They set keys of the job; the second names are the spellings of the models' own scripts.
_FLAGS: dict[tuple[str, ...], dict[str, tp.Any]] = {
    ("--audio", "--audio_dir", "--input"): {"metavar": "PATH", "help": "folder, file, list.txt or table.csv"},
    ("--output", "--output_dir", "--output_base"): {"metavar": "DIR", "help": "where arrays are written"},
    ("--models",): {"nargs": "+", "action": "extend", "metavar": "NAME",
                    "help": "only these of the job; see `consort models`"},
    ("--limit", "--max_samples"): {"type": int, "metavar": "N", "help": "at most N items that are not done yet"},
    ("--devices", "--device"): {"metavar": "D", "help": "auto | cpu | cuda | cuda:N"},
    ("--runtime",): {"metavar": "R", "help": "auto | docker | venv"},
    ("--resume",): {"metavar": "R", "help": "key | strict | exists | never"},
    ("--workers",): {"type": int, "metavar": "N", "help": "worker processes side by side (default: cores)"},
    ("--memory",): {"metavar": "SIZE", "help": "memory that one worker may take, such as 8GB"},
    ("--timeout_per_item", "--timeout-per-item"): {"type": float, "metavar": "S", "help": "seconds"},
    ("--licence_policy", "--licence-policy"): {"metavar": "P", "help": "any | commercial"},
}  # fmt: skip


def verb(verbs: Verbs, name: str, text: str, run: tp.Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    """Return the parser of a new verb, which `run` answers; abbreviations are not accepted."""
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.set_defaults(verb=run, parser=parser)
    return parser


def add_job(parser: argparse.ArgumentParser) -> None:
    """Take a job file, or the flags that are the job."""
    parser.add_argument("job", nargs="?", metavar="JOB.yaml", help="without it the flags are the job")
    for names, options in _FLAGS.items():
        parser.add_argument(*names, **options)
    parser.add_argument("--skip_existing", "--skip-existing", action="store_true", help="same as --resume exists")
    parser.add_argument("--retry_failed", "--retry-failed", action="store_true", help="try failed items again")
    old_flags.add(parser)
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """Take `--set`, as often as it is given."""
    text = "any key: --set crepe.params.viterbi=false"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)


def job(arguments: argparse.Namespace) -> JobSpec:
    """Return the job of a file and flags; a flag's path is relative to the current folder.

    What flags change of the file is said.

    Raises:
        JobError: what is wrong with it.
    """
    set_by = changes(arguments)
    for name in arguments.models or ():
        if "," in name:
            raise JobError(f"--models {name}: separate names by blanks: --models {' '.join(name.split(','))}")
    if not arguments.job:
        _refuse_part(arguments.models or [""], dict(set_by))
    found = reading.read(arguments.job, set_by)
    if old := old_flags.changes(arguments, found):
        arguments.old = old
        found = reading.read(arguments.job, changes(arguments))
    from orchestrator.running import placement

    placement.check(found, arguments.job or "flags")
    for name in reading.lacking(arguments.job, arguments.models) if arguments.job and arguments.models else ():
        print(f"--models: {arguments.job} has no {name}; it is taken with its defaults", file=sys.stderr)
    return found


def changes(arguments: argparse.Namespace) -> list[tuple[str, tp.Any]]:
    """Return what the flags set, in the order in which it counts.

    Raises:
        JobError: a `--set` that is none.
    """
    keys = [names[0].lstrip("-") for names in _FLAGS]
    found = [(key, value) for key in keys if (value := getattr(arguments, key)) is not None]
    if arguments.skip_existing:
        found.append(("resume", "exists"))
    if arguments.retry_failed:
        found.append(("retry_failed", True))
    return [*found, *getattr(arguments, "old", []), *settings(arguments)]


def differences(arguments: argparse.Namespace) -> list[str]:
    """Return a line for each key of the job file that the flags have changed; none where they are the job."""
    lines = []
    for key, old, new in reading.differences(arguments.job, changes(arguments)) if arguments.job else ():
        if key == "models":
            out, added = ([str(n) for n in a if n not in b] for a, b in ((old, new), (new, old)))
            words = [f"{', '.join(names)} {what}" for names, what in ((out, "left out"), (added, "added")) if names]
            lines.append(f"flag: models: {'; '.join(words)}")
        else:
            lines.append(f"flag: {key}: {_words(old)} -> {_words(new)}")
    return lines


def _words(value: tp.Any) -> str:
    if isinstance(value, str):
        return printable(words.near(value) if os.path.isabs(value) else value)
    if isinstance(value, float):
        return f"{value:g}"
    return "not said" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _refuse_part(models: list[str], changes: dict[str, tp.Any]) -> None:
    """Refuse flags that are no whole job."""
    if models[-1].endswith((".yaml", ".yml")):
        raise JobError(f"--models took {models[-1]} for a model; write the job file first")
    if not changes:
        raise JobError("no job: give a job file, or --audio, --output and --models; see `consort extract --help`")
    missing = [f"--{key}" for key in ("audio", "output", "models") if key not in changes]
    if missing:
        raise JobError(f"without a job file the flags are the job: {' and '.join(missing)} missing")


def given(arguments: argparse.Namespace) -> set[str]:
    """Return the names of the flags of a job that stand on the command line."""
    names = [names[0].lstrip("-") for names in _FLAGS]
    others = ("skip_existing", "retry_failed", "set", *old_flags.NAMES)
    return {name for name in (*names, *others) if getattr(arguments, name)}


def settings(arguments: argparse.Namespace) -> list[tuple[str, tp.Any]]:
    """Return what `--set` says.

    Raises:
        JobError: it is no KEY=VALUE, or the value is no YAML.
    """
    changes = []
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise JobError(f"--set {text}: write KEY=VALUE, such as --set crepe.params.viterbi=false")
        try:
            changes.append((key, reading.parse_yaml(value)))
        except JobError as error:
            quoted = f'["{value}"]' if key in ("include", "exclude") else f'"{value}"'
            raise JobError(f"--set {text}: {error}; quote what is text: --set '{key}={quoted}'") from error
    return changes
