"""Copy the arrays of renamed and moved files, which need not be computed; the host's own part of a run."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import typing as tp

from orchestrator import files
from orchestrator.job.items import Source
from orchestrator.output.folder import OutputDir, RunDir
from orchestrator.planning.reuse import Copy
from orchestrator.planning.survey import Survey
from worker import protocol, regular
from worker.protocol import Event


class _Damaged(OSError):
    """An array is not what its record says."""


def copy(surveyed: Survey, run: RunDir, say: tp.Callable[[str], None]) -> Survey:
    """Do what a plan says about copies; what cannot be copied is to do in the plan that is returned.

    The output folder's lock is held. `say` hears of arrays that are damaged; they are to do as well.

    Raises:
        OSError: records cannot be written there.
    """
    plan, output = surveyed.plan, surveyed.output
    if not plan.copies:
        return surveyed
    sources = {choice.source.id: choice.source for choice in plan.choices}
    owners = surveyed.ledger.records.values()
    needed = {one.path for copies in plan.copies.values() for one in copies}
    lost, aside = set(), []  # two files may have exchanged their names: nothing is replaced before all is read
    with contextlib.closing(protocol.Channel(str(output.records / f"{run.id}-reused.jsonl"))) as channel:
        for (item, model), copies in plan.copies.items():
            channel.emit(Event("opened", item=item, model=model))  # if this dies, its array is not believed
            made: list[tuple[pathlib.Path, pathlib.Path]] = []
            try:
                for one in copies:
                    made += _copy(output, one, one.record.path in needed)
            except OSError as error:  # a worker that meets the same says more about it
                lost.add((item, model))
                if isinstance(error, _Damaged):
                    say(f"{error}; it is computed again")
                    lost |= {(owner.item, model) for owner in owners if owner.path in {one.path for one in copies}}
                for partial, _ in made:
                    partial.unlink(missing_ok=True)
                continue
            aside += made
            if not made:
                channel.emit(*_events(sources[item], copies))
        for partial, target in aside:
            os.replace(partial, target)
        late = [c for pair, c in plan.copies.items() if pair not in lost and any(o.record.path in needed for o in c)]
        channel.emit(*(event for c in late for event in _events(sources[c[0].record.item], c)), durable=True)
    return dataclasses.replace(surveyed, plan=plan.without_copies(lost)) if lost else surveyed


def _copy(output: OutputDir, one: Copy, aside: bool) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Copy one array, or put its copy aside, and return then where it is and where it belongs.

    Raises:
        OSError: it is gone, is not what its record says, or cannot be written.
    """
    source, target = output.place(one.path), output.place(one.record.path)
    if source is None or target is None:
        raise OSError(f"{one.path} or {one.record.path} leads out of the folder")
    with os.fdopen(regular.open_file(source), "rb") as f:
        data = f.read()
    if hashlib.sha256(data).hexdigest() != one.record.sha256:
        raise _Damaged(f"{one.path} is not what was written")
    for folder in reversed(pathlib.PurePosixPath(one.record.path).parents[:-1]):
        files.make_folder(output.root / folder)
    partial = target.with_name(f".copy.{regular.random_part()}.part") if aside else target
    with files.written(partial) as new:
        new.write(data)
    return [(partial, target)] if aside else []


def _events(source: Source, copies: list[Copy]) -> list[Event]:
    """Return what a worker would have said."""
    facts = source.facts(copies[0].record.source)
    read = Event("decoded", item=source.id, seconds=copies[0].record.duration, facts=facts)
    return [read, *(Event("wrote", item=source.id, model=c.record.model, record=c.record) for c in copies)]
