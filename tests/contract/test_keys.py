"""The keys of arrays are a promise to everybody's disks: those of these models are as they were when recorded.

A key may change only with the numbers it stands for, as a new `version` of an extractor says; the line of
`keys.json` is then replaced, and the CHANGELOG says what `plan` will compute again.
"""

import json
import os
import pathlib

import pytest

from orchestrator.job import spec
from orchestrator.planning import keys
from worker import protocol

HERE = pathlib.Path(__file__).parent
TABLE = json.loads((HERE / "keys.json").read_text("ascii"))
SOURCE = protocol.digest("a file")


def hash_of(checkpoint):
    """Stand in for files that are not here: own ones differ by their names, wherever they are."""
    return checkpoint.sha256 or protocol.digest([checkpoint.kind, os.path.basename(checkpoint.file)])


def keys_of(model):
    job = spec.check({"audio": "a", "output": "o", "plugins": [str(HERE.parent / "plugins")], "models": [model]})
    task = keys.model_plan(job.models[0], hash_of).task
    return {"key": task.key, "arrays": {name: protocol.key_of(task.key, name, SOURCE) for name in task.outputs}}


@pytest.mark.parametrize("line", TABLE, ids=lambda line: json.dumps(line["model"]))
def test_keys_are_those_of_before(line):
    assert keys_of(line["model"]) == {"key": line["key"], "arrays": line["arrays"]}


def test_the_table_is_wide():
    assert len(TABLE) >= 40
    assert len({line["key"] for line in TABLE}) > 35
