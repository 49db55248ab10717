"""`consort plan`: what would run, with audio hours, time and disk."""

import argparse

from orchestrator import errors
from orchestrator.cli import flags, words
from orchestrator.text import duration, size, table


def add(verbs: flags.Verbs) -> None:
    flags.add_job(flags.verb(verbs, "plan", "show what a job would do, and start nothing", run))


def run(arguments: argparse.Namespace) -> int:
    job = flags.job(arguments)
    from orchestrator.cli import replacing
    from orchestrator.planning import survey
    from orchestrator.planning.replaced import replaced
    from orchestrator.running import placement

    surveyed = survey.take(job)
    placed = placement.choose(job)
    made = surveyed.plan
    rows = [("model", "environment", "device", "to do", "done", "failed", "stale", "audio", "CPU time")]
    for model in made.models:
        work = made.work(model)
        seconds = sum(made.seconds[c.source.id] for c in work)
        cost = seconds / 60 * model.extractor.seconds_per_minute
        done, failed, stale = (str(made.count(model.name, state)) for state in ("done", "failed", "stale"))
        hours = (f"~{seconds / 3600:.2f} h", f"~{duration(cost)}")
        device = placed.device(model.environment) if model.extractor.uses_gpu() else "cpu"
        rows.append((model.name, model.environment, device, str(len(work)), done, failed, stale, *hours))
    for line in flags.differences(arguments):
        print(line)
    print(table(rows))
    for line in replacing.told(found := replaced(surveyed)):
        print(line)
    if reason := replacing.asked(arguments, surveyed, found):
        print(f"{reason}; `consort extract` asks first, or takes --yes")
    print(f"runtime {placed.runtime.name} ({placed.why}), device {placed.devices}")
    needed = size(made.bytes())
    print(f"{words.chosen(made)}; ~{needed} will be written; nothing was started")
    for line in made.remarks():
        print(line)
    words.print_left_out(surveyed.audio.left_out)
    if trouble := surveyed.lacking_room():
        print(f"warning: {trouble}")
    return errors.OK
