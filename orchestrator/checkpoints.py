"""What `consort weights` prints, pulls and verifies: the checkpoints of the models, and ffmpeg."""

import typing as tp

from orchestrator import errors, ffmpeg, transfer
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.preparation import size
from orchestrator.progress import Progress
from orchestrator.report import table
from orchestrator.weights import Weights
from worker import catalog, schema
from worker.extractor import Checkpoint


def of_model(name: str, checkpoint: str | None = None) -> tuple[Checkpoint, ...]:
    """Return all checkpoints that a model needs, for every output.

    Args:
        name: of a model, or ffmpeg.
        checkpoint: its parameter of that name; None takes the default.

    Raises:
        JobError: there is no such model, or no such checkpoint of it.
    """
    if name == "ffmpeg" and checkpoint is None:
        return (ffmpeg.checkpoint(),)
    try:
        model = catalog.build(name, {} if checkpoint is None else {"checkpoint": checkpoint})
    except (catalog.UnknownExtractor, schema.SchemaError) as error:
        raise JobError(str(error)) from error
    model.wanted = frozenset()
    return model.checkpoints()


def listing(names: list[str]) -> str:
    """Return a table of checkpoints: where from, whether they are here, their size and licence."""
    weights = Weights()
    rows = [("model", "source", "files", "here", "size", "licence", "folder")]
    for name in names:
        needed = of_model(name)
        if not needed:
            rows.append((name, "-", "0", "yes", "-", "none needed", "-"))
            continue
        here = [c for c in needed if weights.problem(c) is None]
        state = "yes" if len(here) == len(needed) else f"{len(here)} of {len(needed)}"
        rows.append((name, _source(needed[0]), str(len(needed)), state, _size(weights, needed), needed[0].licence,
                     str(weights.folder(needed[0]))))  # fmt: skip
    return table(rows)


def pull(names: list[str], shown: Progress, policy: str = "any", checkpoint: str | None = None) -> int:
    """Fetch what is missing; return the exit code.

    Args:
        names: of models.
        shown: says what happens.
        policy: `commercial` refuses weights whose licence forbids commercial use.
        checkpoint: another one than the default, where a single model is named.

    Raises:
        JobError: a name is wrong.
    """
    if checkpoint is not None and len(names) != 1:
        raise JobError("--checkpoint: name the one model that it is of")
    wanted = {name: of_model(name, checkpoint) for name in names}
    weights, code = Weights(), errors.OK
    for name, needed in wanted.items():
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


def verify(names: list[str]) -> tuple[str, int]:
    """Read every file again, and hold it to its declaration and to `weights.lock`.

    Args:
        names: of models, whose files must all be there; empty holds whatever is there.

    Returns:
        A table, and the exit code.
    """
    weights = Weights(fresh=True)
    rows = [("file", "state")]
    for label, checkpoint in _known(weights, names):
        missing = not weights.path(checkpoint).exists()
        problem = None if missing and not names else weights.problem(checkpoint)
        if problem or not missing:
            rows.append((label, problem or "right"))
    bad = [row for row in rows[1:] if row[1] != "right"]
    rows = bad or [rows[0], ("all", f"{len(rows) - 1} files are what they should be")]
    return table(rows), errors.UNAVAILABLE if bad else errors.OK


def _known(weights: Weights, names: list[str]) -> tp.Iterator[tuple[str, Checkpoint]]:
    """Yield the files of models, and without names everything else in the lock too."""
    seen = set()
    for name in names or [*catalog.names(), "ffmpeg"]:
        for checkpoint in of_model(name):
            seen.add(weights.path(checkpoint))
            yield f"{name}: {checkpoint.file}", checkpoint
    for entry in [] if names else weights.lock.entries():
        other = Checkpoint(entry.kind, entry.name, entry.revision, entry.file, "", entry.licence)
        if weights.path(other) not in seen:
            yield f"{entry.name}: {entry.file}", other


def _source(checkpoint: Checkpoint) -> str:
    if checkpoint.kind == "hub":
        return f"{checkpoint.name}@{checkpoint.revision[:7]}"
    return f"{checkpoint.name}=={checkpoint.revision}"


def _size(weights: Weights, checkpoints: tp.Iterable[Checkpoint]) -> str:
    """Return how large files are: on the disk, or as they are declared; `-` where nobody knows."""
    total = 0
    for checkpoint in checkpoints:
        path = weights.path(checkpoint)
        found = path.stat().st_size if path.is_file() else checkpoint.size
        if not found:
            return "-"
        total += found
    return size(total)
