"""`make reproduce`: every model in containers, in compose and in virtual environments, with equal bytes."""

import shutil
import subprocess

import harness
import yaml

from worker import catalog


def test_every_model_gives_the_same_bytes_in_all_three_ways(tmp_path):
    shutil.copy(harness.REPOSITORY / "tests/audio/quickstart/environment/dog.ogg", tmp_path)
    folder = harness.REPOSITORY / "build" / "reproduce"  # below ROOT, as compose sees weights there alone
    shutil.rmtree(folder, ignore_errors=True)
    command = ["make", "--no-print-directory", "reproduce", f"REPRODUCE={folder}", f"AUDIO={tmp_path}"]
    done = subprocess.run(command, cwd=harness.REPOSITORY, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same: 9 arrays to the byte") == 3, done.stdout
    random = set()
    for way in ("docker", "compose", "venv"):
        records = harness.manifest(folder / way)
        assert {record["model"] for record in records} == set(catalog.names())
        random.add(frozenset(record["model"] for record in records if "random_weights" in record["flags"]))
    told = next(line for line in done.stdout.splitlines() if line.startswith("random weights, seeded and tiny: "))
    named = told.partition(": ")[2].split(", ")
    assert random == {frozenset(named) - {"none"}}, "what is said to be random, and nothing else, is flagged"
    settings = yaml.safe_load((folder / "job.yaml").read_text("utf-8"))
    own = {model["name"] for model in settings["models"] if "checkpoint" in model.get("params", {})}
    assert own == set(named) - {"none"}
