"""Which arrays a run would replace that hold something else: said before it happens."""

import dataclasses

from orchestrator.output.contexts import Contexts
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.plan import REUSED, Choice, paths_of
from orchestrator.planning.survey import Survey
from worker import protocol
from worker.protocol import Record


@dataclasses.dataclass
class Replaced:
    """The arrays of one model that are there and would be replaced; of windows all count as one."""

    model: ModelPlan
    settings: int = 0  # that hold other settings
    raised: int = 0  # of another version of the model
    audio: int = 0  # of another content of their audio file
    seconds: float = 0.0  # CPU time that the first have taken, roughly


def replaced(surveyed: Survey) -> list[Replaced]:
    """Return the models of a survey that would replace arrays, with their counts."""
    contexts = Contexts(surveyed.output.contexts)
    found = []
    for model in surveyed.plan.models:
        one = Replaced(model)
        copied = [c for c in surveyed.plan.choices if c.states[model.name] == REUSED]
        for choice in [*surveyed.plan.work(model), *copied]:
            before = one.settings
            for output in model.task.outputs:
                record = surveyed.ledger.records.get((choice.source.id, model.name, output, 0))
                if record is not None and surveyed.output.holds(record.path, record.bytes):
                    _count(one, record, choice, surveyed, contexts)
            minutes = surveyed.plan.seconds[choice.source.id] / 60
            one.seconds += minutes * model.extractor.seconds_per_minute if one.settings > before else 0.0
        if one.settings or one.raised or one.audio:
            found.append(one)
    return found


def _count(one: Replaced, record: Record, choice: Choice, surveyed: Survey, contexts: Contexts) -> None:
    model = one.model
    path = paths_of(model, choice.name, record.window or 0)[record.output]
    key = protocol.key_of(model.task.key, record.output, record.source, record.segment)
    if record.key == key and record.path == path:
        seen = surveyed.ledger.sources.get(record.item)
        one.audio += seen is not None and seen.sha256 != record.source
        return
    context = contexts.find(record.context)
    today = (model.extractor.version, protocol.AUDIO_VERSION)
    if context is not None and (context.get("version"), context.get("audio_version")) != today:
        one.raised += 1
    else:
        one.settings += 1
