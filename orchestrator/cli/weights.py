"""`consort weights`: the checkpoints of the models, and ffmpeg, with their licences."""

import argparse
import typing as tp
from pathlib import Path

from orchestrator import errors
from orchestrator.cli import flags
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.running import progress
from orchestrator.text import size, table
from worker import catalog
from worker.errors import SchemaError, UnknownExtractor
from worker.extractor import Checkpoint

if tp.TYPE_CHECKING:
    from orchestrator.weights.store import Weights


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "weights", "list, pull or verify the checkpoints, with their licences", run)
    verb.add_argument("action", nargs="?", choices=("list", "pull", "verify"), default="list")
    verb.add_argument("names", nargs="*", metavar="MODEL", help="default: all, and ffmpeg")
    verb.add_argument("--checkpoint", metavar="NAME", help="this one of a model: m-a-p/MERT-v1-330M")
    verb.add_argument("--licence_policy", "--licence-policy", choices=("any", "commercial"), default="any",
                      help="of pull; commercial: no others")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    if arguments.action != "pull" and arguments.licence_policy != "any":
        raise JobError("--licence_policy: of `consort weights pull` alone")
    if arguments.action == "verify":
        text, code = verify(arguments.names, arguments.checkpoint)
        print(text)
        return code
    names = arguments.names or [*catalog.names(), "ffmpeg"]
    if arguments.action == "list":
        print(listing(names, arguments.checkpoint))
        return errors.OK
    with progress.choose() as shown:
        return pull(names, shown, arguments.licence_policy, arguments.checkpoint)


def of_model(name: str, checkpoint: str | None = None) -> tuple[Checkpoint, ...]:
    """Return all checkpoints that a model, or ffmpeg, needs for every output; `checkpoint` is its parameter.

    Raises:
        JobError: there is no such model, or no such checkpoint of it.
    """
    from orchestrator.weights import ffmpeg

    if name == "ffmpeg" and checkpoint is None:
        return (ffmpeg.checkpoint(),)
    try:
        model = catalog.build(name, {} if checkpoint is None else {"checkpoint": checkpoint})
    except (UnknownExtractor, SchemaError) as error:
        raise JobError(str(error)) from error
    return model.asked(outputs=frozenset()).checkpoints()


def _of_models(names: list[str], checkpoint: str | None) -> dict[str, tuple[Checkpoint, ...]]:
    if checkpoint is not None and len(names) != 1:
        raise JobError("--checkpoint: name the one model that it is of")
    return {name: of_model(name, checkpoint) for name in names}


def listing(names: list[str], checkpoint: str | None = None) -> str:
    """Return a table of the checkpoints of models: where from, whether they are here, their size and licence."""
    from orchestrator.weights.store import Weights

    weights = Weights()
    rows = [("model", "source", "files", "here", "size", "licence", "folder")]
    for name, needed in _of_models(names, checkpoint).items():
        if not needed:
            rows.append((name, "-", "0", "yes", "-", "none needed", "-"))
            continue
        here = [c for c in needed if weights.problem(c) is None]
        state = "yes" if len(here) == len(needed) else f"{len(here)} of {len(needed)}"
        licences = ", ".join(dict.fromkeys(c.licence for c in needed))
        rows.append((name, source(needed[0]), str(len(needed)), state, _size(weights, needed), licences,
                     str(_folder(weights, needed[0]))))  # fmt: skip
    return table(rows)


def pull(names: list[str], shown: progress.Progress, policy: str = "any", checkpoint: str | None = None) -> int:
    """Fetch what models lack; return the exit code. The policy `commercial` refuses what may not be used so."""
    from orchestrator.weights import transfer
    from orchestrator.weights.store import Weights

    weights, code = Weights(), errors.OK
    for name, needed in _of_models(names, checkpoint).items():
        barred = sorted({c.licence for c in needed if not c.commercial})
        try:
            if policy == "commercial" and barred:
                raise EnvironmentUnavailable(f"licence_policy is commercial, but its weights are {', '.join(barred)}")
            for line in weights.licence_news(needed):
                shown.say(f"licence: {line}")
            weights.pull(needed, lambda *file: shown.stage("weights", transfer.share(*file)))
        except EnvironmentUnavailable as error:
            shown.say(f"{name}: {error}")
            code = errors.UNAVAILABLE
            continue
        shown.say(f"{name}: {len(needed)} files here")
    return code


def verify(names: list[str], checkpoint: str | None = None) -> tuple[str, int]:
    """Read every file again, and hold it to its declaration and to `weights.lock`; return a table and the exit code.

    The files of models that are named must all be there; without names what is there is held, and what is gone of it.
    """
    from orchestrator.weights.store import Weights

    weights = Weights(fresh=True)
    rows = [("file", "state")]
    for label, one in _known(weights, names, checkpoint):
        missing = not weights.path(one).exists()
        problem = None if missing and not names and not _is_gone(weights, one) else weights.problem(one)
        if problem or not missing:
            rows.append((label, problem or "right"))
    bad = [row for row in rows[1:] if row[1] != "right"]
    rows = bad or [rows[0], ("all", f"{len(rows) - 1} files are what they should be")]
    return table(rows), errors.UNAVAILABLE if bad else errors.OK


def _known(weights: "Weights", names: list[str], checkpoint: str | None) -> tp.Iterator[tuple[str, Checkpoint]]:
    """Yield the files of models, and without names everything else in the lock too."""
    seen = set()
    everything = [] if names or checkpoint else [*catalog.names(), "ffmpeg"]
    for name, needed in _of_models(names or everything, checkpoint).items():
        for one in needed:
            seen.add(weights.path(one))
            yield f"{name}: {one.file}", one
    for other in _locked(weights) if everything else []:
        if weights.path(other) not in seen:
            yield f"{other.name}: {other.file}", other


def _locked(weights: "Weights") -> list[Checkpoint]:
    return [Checkpoint(e.kind, e.name, e.revision, e.file, "", e.licence) for e in weights.lock.entries()]


def _is_gone(weights: "Weights", checkpoint: Checkpoint) -> bool:
    """Return whether a file was here once, and others of its repository still are: then nobody removed them all."""
    beside = [c for c in _locked(weights) if c[:3] == checkpoint[:3]]
    return any(c.file == checkpoint.file for c in beside) and any(weights.path(c).exists() for c in beside)


def _folder(weights: "Weights", checkpoint: Checkpoint) -> Path:
    own = {"file": Path(checkpoint.name).parent, "folder": Path(checkpoint.name)}
    return own.get(checkpoint.kind) or weights.folder(checkpoint)


def source(checkpoint: Checkpoint) -> str:
    """Return where a checkpoint comes from, with its revision."""
    if checkpoint.own:
        return "your own"
    if checkpoint.kind != "pypi":
        return f"{checkpoint.name}@{checkpoint.revision[:7]}"
    return f"{checkpoint.name}=={checkpoint.revision}"


def _size(weights: "Weights", checkpoints: tp.Iterable[Checkpoint]) -> str:
    """Return how large files are: on the disk, as declared, or once fetched; `-` where nobody knows."""
    total = 0
    for checkpoint in checkpoints:
        path = weights.path(checkpoint)
        locked = weights.lock.find(checkpoint)
        found = path.stat().st_size if path.is_file() else checkpoint.size or (locked.size if locked else 0)
        if not found:
            return "-"
        total += found
    return size(total)
