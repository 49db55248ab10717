"""Checkpoints of a model hub, from a server with the hub's own addresses and headers."""

import json
import os
import subprocess
import sys
import typing as tp

import pytest
from hub_server import COMMIT, CONFIG, FILES, MODEL, Server, git_blob, sha256

from orchestrator import errors
from orchestrator.cli import weights as checkpoints
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.running import progress
from orchestrator.weights.hub import ENDPOINT, Hub
from orchestrator.weights.store import CheckpointUnavailable, Weights
from worker import catalog
from worker.extractor import Checkpoint


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def declare(file, **changes: tp.Any) -> Checkpoint:
    """Return a checkpoint of whose content nothing is known beforehand."""
    made = Checkpoint("hub", "m-a-p/MERT-v1-95M", COMMIT, file, "", "CC-BY-NC-4.0", commercial=False)
    return made._replace(**changes)


WANTED = [declare(file) for file in FILES]


@pytest.fixture
def weights(server, tmp_path):
    """Return a cache whose hub is the server."""
    return Weights(tmp_path, hub=Hub({"HF_ENDPOINT": server.endpoint}))


def names_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_repository_arrives_in_its_own_layout_and_works_offline(server, weights, tmp_path):
    weights.pull(WANTED)
    folder = tmp_path / "weights" / "hub" / "m-a-p" / "MERT-v1-95M" / COMMIT
    assert names_below(folder) == {".lock", *FILES}
    assert {file: (folder / file).read_bytes() for file in FILES} == FILES
    asked = len(server.requests)
    later = Weights(tmp_path, hub=Hub({"HF_HUB_OFFLINE": "1"}))
    assert later.files(WANTED, "mert") == {file: folder / file for file in FILES}
    later.pull(WANTED)
    assert len(server.requests) == asked


def test_what_came_is_written_down(weights, tmp_path):
    weights.pull(WANTED)
    entries = json.loads((tmp_path / "weights" / "weights.lock").read_text())["files"]
    assert [entry["file"] for entry in entries] == sorted(FILES)
    model = entries[1]
    assert (model["sha256"], model["size"], model["commit"]) == (sha256(MODEL), len(MODEL), COMMIT)
    assert (model["licence"], model["name"], model["by_hand"]) == ("CC-BY-NC-4.0", "m-a-p/MERT-v1-95M", False)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_again(server, weights, ranges):
    server.cut, server.ranges = 2, ranges
    (path,) = weights.pull([declare("pytorch_model.bin")])
    assert path.read_bytes() == MODEL
    sent = [h["Range"] for name, _, _, h in server.requests if name == "store" and "Range" in h]
    assert server.count("GET") == 3 and len(sent) == 2


def test_a_connection_that_is_cut_for_ever_leaves_what_came(server, weights, tmp_path):
    server.cut = 99
    with pytest.raises(CheckpointUnavailable, match=r"repeat the command to go on from there; or put by hand"):
        weights.pull([declare("pytorch_model.bin")])
    server.cut = 0
    (path,) = Weights(tmp_path, hub=Hub({"HF_ENDPOINT": server.endpoint})).pull([declare("pytorch_model.bin")])
    assert path.read_bytes() == MODEL
    assert [h for name, _, _, h in server.requests if name == "store"][-1]["Range"].startswith("bytes=")


@pytest.mark.parametrize("known", ["by the hub", "by the declaration", "by git"])
def test_another_content_is_refused(server, weights, tmp_path, known):
    server.lie = True
    changes = {"by the declaration": {"sha256": sha256(MODEL)}, "by git": {"git_blob": git_blob(MODEL)}}
    wanted = declare("pytorch_model.bin", **changes.get(known, {}))
    with pytest.raises(CheckpointUnavailable, match=r"pytorch_model.bin .* expected .* refused") as raised:
        weights.pull([wanted])
    assert len(str(raised.value).splitlines()) == 1
    assert names_below(tmp_path) == {f"weights/hub/m-a-p/MERT-v1-95M/{COMMIT}/.lock"}


def test_a_small_file_is_held_to_its_git_blob(server, weights):
    right = git_blob(CONFIG)
    server.files["config.json"] = CONFIG + b" "
    with pytest.raises(CheckpointUnavailable, match=r"config.json is git blob .* refused"):
        weights.pull([declare("config.json", git_blob=right)])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "m-a-p/MERT-v1-95M is private, gated or misspelt on the hub: set HF_TOKEN"),
        (403, "is private, gated or misspelt"),
        (404, f"the hub has no config.json of m-a-p/MERT-v1-95M at {COMMIT}"),
        (418, "the hub answered HTTP 418 for config.json of m-a-p/MERT-v1-95M: try again later"),
    ],
)
def test_a_refusal_is_one_line_and_says_where_the_file_may_be_put(server, weights, status, words):
    server.status = status
    with pytest.raises(CheckpointUnavailable) as raised:
        weights.pull([declare("config.json")])
    message = str(raised.value)
    address = f"{ENDPOINT}/m-a-p/MERT-v1-95M/resolve/{COMMIT}/config.json"
    assert words in message and f"or put by hand {address} as {weights.path(declare('config.json'))}" in message
    assert len(message.splitlines()) == 1


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path):
    weights = Weights(tmp_path, hub=Hub({"HF_ENDPOINT": "http://127.0.0.1:9"}))
    with pytest.raises(CheckpointUnavailable, match=r"127.0.0.1:9 cannot be reached .*: set HF_ENDPOINT for a mirror"):
        weights.pull([declare("config.json")])


def test_offline_nothing_is_asked(server, tmp_path):
    weights = Weights(tmp_path, hub=Hub({"HF_ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": "1"}))
    with pytest.raises(CheckpointUnavailable, match="is not asked, as HF_HUB_OFFLINE is set"):
        weights.pull([declare("config.json")])
    assert server.requests == []


def test_the_token_stays_with_the_hub(server, tmp_path):
    weights = Weights(tmp_path, hub=Hub({"HF_ENDPOINT": server.endpoint, "HF_TOKEN": "hf_secret"}))
    weights.pull(WANTED)
    told = {
        name: [h.get("Authorization") for one, _, _, h in server.requests if one == name] for name in ("hub", "store")
    }
    assert set(told["hub"]) == {"Bearer hf_secret"} and set(told["store"]) == {None}


def test_without_an_endpoint_the_hub_is_the_well_known_one():
    assert Hub({}).endpoint == ENDPOINT and Hub({"HF_ENDPOINT": "http://mirror/"}).endpoint == "http://mirror"


def test_a_renamed_repository_is_followed(server, weights):
    server.renamed = True
    assert weights.pull([declare("config.json")])[0].read_bytes() == CONFIG


def test_files_of_a_branch_come_from_one_commit(server, weights):
    weights.pull([declare("config.json", revision="main")])
    weights.pull([declare("pytorch_model.bin", revision="main")])
    asked = [path for name, method, path, _ in server.requests if method == "HEAD"]
    assert asked[0].endswith("/resolve/main/config.json")
    assert asked[1].endswith(f"/resolve/{COMMIT}/pytorch_model.bin")


def test_what_was_fetched_first_holds(weights, tmp_path):
    (path,) = weights.pull([declare("config.json")])
    path.write_bytes(CONFIG + b" ")
    later = Weights(tmp_path)
    with pytest.raises(CheckpointUnavailable, match=r"mert: .*weights.lock says .*; run `consort weights pull mert`"):
        later.files([declare("config.json")], "mert")
    assert weights.pull([declare("config.json")])[0].read_bytes() == CONFIG  # mended


def test_a_file_put_by_hand_is_taken_and_then_held_to(weights, tmp_path):
    wanted = declare("config.json")
    with pytest.raises(
        CheckpointUnavailable, match=r"config.json is missing; run .*, or put by hand http.*config.json as /"
    ):
        weights.files([wanted], "mert")
    path = weights.path(wanted)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert weights.files([wanted], "mert") == {"config.json": path}
    (entry,) = Weights(tmp_path).lock.entries()
    assert entry.by_hand and entry.sha256 == sha256(b"mine")
    path.write_bytes(b"another")
    assert "weights.lock says" in (Weights(tmp_path).problem(wanted) or "")


def test_a_file_put_by_hand_must_be_what_is_declared(weights):
    wanted = declare("config.json", git_blob=git_blob(CONFIG))
    path = weights.path(wanted)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert "is not git blob" in (weights.problem(wanted) or "")
    path.write_bytes(CONFIG)
    assert weights.problem(wanted) is None


def test_a_damaged_lock_is_not_taken_for_an_empty_one(weights, tmp_path):
    weights.pull([declare("config.json")])
    (tmp_path / "weights" / "weights.lock").write_text("{")
    with pytest.raises(EnvironmentUnavailable, match=r"weights.lock is damaged: restore it, or remove it"):
        Weights(tmp_path).problem(declare("config.json"))


@pytest.mark.parametrize(
    "changes",
    [{"file": "../x"}, {"file": "/etc/x"}, {"name": "../x"}, {"name": "one"}, {"name": "a/b/c"}, {"revision": ".."}],
)
def test_no_name_leads_out_of_the_cache(weights, changes):
    with pytest.raises(CheckpointUnavailable, match="plain names"):
        weights.path(declare("config.json")._replace(**changes))


def test_an_address_is_held_to_its_git_blob(server, weights, tmp_path):
    address = f"http://127.0.0.1:{server.store.server_port}/pytorch_model.bin"
    wanted = Checkpoint("url", "openl3", "v1", "w.h5.gz", "", "MIT", git_blob=git_blob(MODEL), url=address)
    server.cut = 1
    assert weights.pull([wanted]) == [tmp_path / "weights" / "url" / "openl3" / "v1" / "w.h5.gz"]
    assert weights.lock.find(wanted).sha256 == sha256(MODEL)
    with pytest.raises(CheckpointUnavailable, match="refused"):
        weights.pull([wanted._replace(file="other", git_blob=git_blob(b"other"))])


def test_a_file_in_a_folder_of_the_users_own_is_used_as_it_is(weights, tmp_path):
    own = Checkpoint("folder", str(tmp_path / "mine"), "", "config.json", "", "unknown")
    with pytest.raises(CheckpointUnavailable, match=r"mine/config.json is missing; it is named by the job: correct"):
        weights.pull([own])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_bytes(CONFIG)
    assert weights.files([own], "mert") == {"config.json": tmp_path / "mine" / "config.json"}
    assert weights.lock.entries() == [] and weights.licence_news([own]) == []
    with pytest.raises(CheckpointUnavailable, match="plain names"):
        weights.path(own._replace(file="../x"))


PULL = """
import pathlib, sys
from orchestrator.weights.store import Weights
from worker.extractor import Checkpoint
wanted = [Checkpoint("hub", "m-a-p/MERT-v1-95M", sys.argv[2], file, "", "CC") for file in sys.argv[3:]]
Weights(pathlib.Path(sys.argv[1])).pull(wanted)
"""


def test_many_processes_download_once(server, tmp_path):
    command = [sys.executable, "-c", PULL, str(tmp_path), COMMIT, *FILES]
    environ = {**os.environ, "HF_ENDPOINT": server.endpoint}
    running = [subprocess.Popen(command, env=environ) for _ in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    assert server.count("GET") == 1 and server.count("GET", "hub") == 3  # the large file, and each once at the hub
    assert len(Weights(tmp_path).lock.entries()) == len(FILES)


class Said:
    """Takes the place of a terminal."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def stage(self, environment, text):
        pass


@pytest.fixture
def commands(server, tmp_path, monkeypatch):
    """Point the command's cache and hub at this test; return a name of which hub files are declared."""
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)

    class Model:
        def asked(self, outputs):
            return self

        def checkpoints(self):
            return tuple(WANTED)

    real = catalog.build
    fake = lambda name, params, *rest: Model() if name == "crepe" else real(name, params, *rest)  # noqa: E731
    monkeypatch.setattr(catalog, "build", fake)
    return "crepe"


def test_pull_says_the_licence_before_the_first_byte_and_verify_reads_all_again(commands, tmp_path):
    said = Said()
    assert checkpoints.pull([commands], tp.cast(progress.Progress, said)) == errors.OK
    assert said.lines == [
        "licence: m-a-p/MERT-v1-95M: CC-BY-NC-4.0 (not for commercial use)",
        "crepe: 3 files here",
    ]
    assert checkpoints.verify([commands]) == ("file  state\nall   3 files are what they should be", errors.OK)
    path = Weights().path(WANTED[1])
    status = path.stat()
    path.write_bytes(MODEL[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # neither size nor this time tell
    assert "weights.lock says" in (Weights().problem(WANTED[1]) or "")
    text, code = checkpoints.verify([commands])
    assert code == errors.UNAVAILABLE and "weights.lock says" in text and "config.json" not in text


def test_verify_names_what_is_missing_of_a_model_that_is_named(commands):
    text, code = checkpoints.verify([commands])
    assert code == errors.UNAVAILABLE and text.count("is missing") == 3


def test_a_commercial_policy_pulls_nothing_that_forbids_it(server, commands):
    said = Said()
    assert checkpoints.pull([commands], tp.cast(progress.Progress, said), "commercial") == errors.UNAVAILABLE
    assert said.lines == ["crepe: licence_policy is commercial, but its weights are CC-BY-NC-4.0"]
    assert server.requests == []


def test_another_checkpoint_is_of_one_model():
    with pytest.raises(JobError, match="name the one model"):
        checkpoints.pull(["crepe", "musicnn"], tp.cast(progress.Progress, Said()), checkpoint="MSD_musicnn")
    with pytest.raises(JobError, match="is not one of"):
        checkpoints.of_model("musicnn", "nonsense")
    assert checkpoints.of_model("musicnn", "MSD_musicnn") != checkpoints.of_model("musicnn")


def test_the_list_tells_what_is_here(commands, tmp_path):
    assert "0 of 3" in checkpoints.listing([commands])
    Weights().pull(WANTED[:1])
    assert "1 of 3" in checkpoints.listing([commands]) and "m-a-p/MERT-v1-95M@12af15f" in checkpoints.listing(
        [commands]
    )


def fill_cache(folder, content=FILES):
    """Lay files out as the hub's own client does, and return the variables by which it is found."""
    above = folder / "hub" / "models--m-a-p--MERT-v1-95M"
    (above / "refs").mkdir(parents=True)
    (above / "refs" / "main").write_text(COMMIT)
    (above / "blobs").mkdir()
    for file, right in FILES.items():
        blob = above / "blobs" / (sha256(right) if file.endswith(".bin") else git_blob(right))
        blob.write_bytes(content[file])
        link = above / "snapshots" / COMMIT / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return {"HF_HOME": str(folder)}


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_what_the_hubs_client_has_fetched_is_taken_by_its_hash_and_without_a_network(tmp_path, revision):
    found = fill_cache(tmp_path / "hf")
    weights = Weights(tmp_path, hub=Hub({**found, "HF_HUB_OFFLINE": "1"}))
    wanted = [declare(file, revision=revision) for file in FILES]
    assert [path.read_bytes() for path in weights.pull(wanted)] == list(FILES.values())
    entries = json.loads((tmp_path / "weights" / "weights.lock").read_text())["files"]
    assert {entry["commit"] for entry in entries} == {COMMIT}


@pytest.mark.parametrize(("revision", "asked"), [(COMMIT, 0), ("main", 1)])
def test_a_branch_is_asked_for_but_not_fetched_again(server, tmp_path, revision, asked):
    found = fill_cache(tmp_path / "hf")
    weights = Weights(tmp_path, hub=Hub({**found, "HF_ENDPOINT": server.endpoint}))
    (path,) = weights.pull([declare("pytorch_model.bin", revision=revision)])
    assert path.read_bytes() == MODEL and server.count("GET") == 0 and server.count("HEAD", "hub") == asked


@pytest.mark.parametrize("fault", ["damaged", "other"])
def test_what_is_not_the_right_file_there_is_fetched(server, tmp_path, fault):
    damaged = {file: content[::-1] + b"x" for file, content in FILES.items()} if fault == "damaged" else FILES
    found = fill_cache(tmp_path / "hf", damaged)
    if fault == "other":  # the hub's branch has moved on
        server.files["pytorch_model.bin"] = MODEL + b"new"
    weights = Weights(tmp_path, hub=Hub({**found, "HF_ENDPOINT": server.endpoint}))
    (path,) = weights.pull([declare("pytorch_model.bin", revision="main")])
    assert path.read_bytes() == server.files["pytorch_model.bin"] and server.count("GET") == 1
