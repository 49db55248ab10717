"""Arrays that a run would replace: said before it happens, and asked where a flag is the cause and much would go."""

import argparse
import functools
import sys
import typing as tp

from orchestrator.cli import flags
from orchestrator.errors import ConsortError, JobError
from orchestrator.job import reading
from orchestrator.job.spec import JobSpec, ModelSpec
from orchestrator.planning import keys, survey
from orchestrator.planning.replaced import Replaced, replaced
from orchestrator.planning.survey import Survey
from orchestrator.text import duration

_ARRAYS, _SECONDS = 100, 3600.0  # so much is replaced without being asked


def told(found: tp.Sequence[Replaced]) -> list[str]:
    """Return a line for each model whose arrays would be replaced."""
    lines = []
    for one in found:
        kinds = ((one.settings, "other settings"), (one.raised, "an older version"), (one.audio, "other audio"))
        words = [f"{count} {'of' if what == 'other audio' else 'with'} {what}" for count, what in kinds if count]
        lines.append(f"replaces arrays of {one.model.name}: {', '.join(words)}")
    return lines


def agree(arguments: argparse.Namespace, surveyed: Survey) -> None:
    """Say what a run would replace, and ask where a flag is the cause of much of it.

    Raises:
        JobError: the person said no, or there is nobody to ask and no `--yes`.
    """
    found = replaced(surveyed)
    for line in told(found):
        print(line, file=sys.stderr, flush=True)
    if arguments.yes or not (reason := asked(arguments, surveyed, found)):
        return
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{reason}; replace them? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        raise JobError("nothing was replaced; `--output DIR` writes elsewhere")
    raise JobError(f"{reason}; add --yes to replace them, or --output DIR to write elsewhere")


def asked(arguments: argparse.Namespace, surveyed: Survey, found: tp.Sequence[Replaced]) -> str | None:
    """Return what flags would replace where that is to be asked: more than 100 arrays, or an hour of work."""
    found = [one for one in found if one.settings]
    if sum(one.settings for one in found) <= _ARRAYS and sum(one.seconds for one in found) < _SECONDS:
        return None  # whoever is the cause
    plain = _plain(arguments.job) if arguments.job else None
    elsewhere = "output" in dict(flags.changes(arguments)) and _is_another(plain, surveyed)
    if not elsewhere:
        found = [one for one in found if plain is None or _is_changed(one, plain, surveyed)]
    count, seconds = sum(one.settings for one in found), sum(one.seconds for one in found)
    if count <= _ARRAYS and seconds < _SECONDS:
        return None
    words = f"arrays of other settings: {count}, ~{duration(seconds)} of CPU time"
    return f"flags would replace {words} ({', '.join(one.model.name for one in found)})"


def _plain(path: str) -> JobSpec | None:
    """Return the job without its flags; None where it is none without them."""
    try:
        return reading.read(path)
    except ConsortError:
        return None


def _is_changed(one: Replaced, plain: JobSpec, surveyed: Survey) -> bool:
    """Return whether the flags are why a model writes what it does."""
    hash_of = functools.partial(survey.hash_of, surveyed.weights)
    return not any(_written(model, hash_of) == _written(one.model.spec, hash_of) for model in plain.models)


def _written(model: ModelSpec, hash_of: keys.HashOf) -> tuple[str, ...]:
    return model.name, keys.model_plan(model, hash_of).task.key, model.format, model.layout


def _is_another(plain: JobSpec | None, surveyed: Survey) -> bool:
    """Return whether the folder that a flag names holds the models of another job."""
    run = surveyed.output.last_run()
    try:
        kept = reading.read(str(run.job)) if run else None
    except ConsortError:
        return True
    own = {(model.name, model.reference) for model in (plain or surveyed.job).models}
    return kept is not None and not {(model.name, model.reference) for model in kept.models} <= own
