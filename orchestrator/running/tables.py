"""One CSV for all items of a model whose output is tokens, with the labels of the job's own table.

::

    <output>/<model>_<name of the audio>.csv           fname, labels, num_tokens, token_shape, num_chunks,
                                                       duration_sec, token_0, token_1 ...
    <output>/<model>_<name of the audio>_summary.txt   how many, how long, which shapes

Made anew from the arrays at the end of every run, so it always holds all that is done.
"""

import collections
import csv
import io
import math
import pathlib
import statistics
import typing as tp

from orchestrator import files
from orchestrator.job.items import TableRow
from orchestrator.output.ledger import Ledger
from orchestrator.output.load import Run
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.plan import Choice
from orchestrator.planning.survey import Survey
from worker import protocol
from worker.protocol import Record

_Row = tuple[TableRow, Choice, Record]
_FACTS = ("num_tokens", "token_shape", "num_chunks", "duration_sec")


def write(surveyed: Survey, ledger: Ledger) -> list[pathlib.Path]:
    """Write the tables of all models that have `layout: table`; return their paths.

    Raises:
        RunFailed: the output folder cannot be written.
    """
    written = []
    for model in surveyed.plan.models:
        rows = _rows(surveyed, model, ledger) if model.spec.layout == "table" else []
        if rows:
            stem = f"{model.name}_{pathlib.Path(surveyed.job.audio).stem}"
            path = surveyed.output.root / f"{stem}.csv"
            files.replace(path, _table(surveyed, model, ledger, rows), "utf-8")
            files.replace(surveyed.output.root / f"{stem}_summary.txt", _summary(surveyed, model, ledger, rows))
            written.append(path)
    return written


def _rows(surveyed: Survey, model: ModelPlan, ledger: Ledger) -> list[_Row]:
    """Return the rows of the items that have today's tokens: in the order of the job's table, else of their ids."""
    rows = []
    for choice in surveyed.plan.choices:
        record = _find(model, ledger, choice.source.id, model.task.outputs[0])
        if record is not None and surveyed.output.holds(record.path, record.bytes):
            rows += [(row, choice, record) for row in choice.source.rows or [TableRow(0, {})]]
    return sorted(rows, key=lambda row: row[0].line)


def _find(model: ModelPlan, ledger: Ledger, item: str, output: str) -> Record | None:
    """Return the record of a whole item that was made with today's settings from today's audio."""
    seen = ledger.sources.get(item)
    for record in ledger.of(item, model.name, output):
        source = seen.sha256 if seen else record.source
        if record.window is None and record.key == protocol.key_of(model.task.key, output, source, record.segment):
            return record
    return None


def _table(surveyed: Survey, model: ModelPlan, ledger: Ledger, rows: list[_Row]) -> str:
    run = Run(surveyed.output.root)
    labels = list(dict.fromkeys(key for row, _, _ in rows for key in row.labels))
    longest = max(math.prod(record.shape) for _, _, record in rows)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    own = [*_FACTS, *(f"token_{n}" for n in range(longest))]
    theirs = {surveyed.job.path_column, *labels}
    table.writerow(
        [surveyed.job.path_column, *labels, *(f"consort_{name}" if name in theirs else name for name in own)]
    )
    for row, choice, record in rows:
        tokens = run.array(model.name, record.item, record.output).ravel()
        given = [row.labels.get(key, "") for key in labels]
        # how many windows a file was cut into, if that was asked for
        starts = _find(model, ledger, record.item, "starts") if "starts" in model.task.outputs else None
        chunks = starts.shape[0] if starts else 1
        values = [len(tokens), tuple(record.shape), chunks, f"{record.duration:.6g}", *tokens.tolist()]
        table.writerow([choice.source.file, *given, *values, *[""] * (longest - len(tokens))])
    return text.getvalue()


def _summary(surveyed: Survey, model: ModelPlan, ledger: Ledger, rows: list[_Row]) -> str:
    records = list({choice.source.id: record for _, choice, record in rows}.values())
    failed = sum((choice.source.id, model.name) in ledger.failures for choice in surveyed.plan.choices)
    shapes: tp.Counter[str] = collections.Counter(str(tuple(record.shape)) for record in records)
    lines = [
        f"total samples processed: {len(records)}",
        f"samples that failed: {failed}",
        f"average tokens per sample: {statistics.fmean(math.prod(r.shape) for r in records):.1f}",
        f"average duration: {statistics.fmean(r.duration for r in records):.2f} s",
        "token shape distribution:",
        *(f"  {shape}: {count}" for shape, count in shapes.most_common()),
    ]
    if any("lossy" in record.flags for record in records):
        lines.append("note: indices averaged over windows, as the document does; they are no valid codes")
    return "\n".join(lines) + "\n"
