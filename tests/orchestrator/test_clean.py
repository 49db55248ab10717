"""What `consort clean` takes of a cache and of a run, and what it leaves alone."""

import fcntl
import io
import json
import os
import sys
import time

import pytest

from orchestrator.__main__ import main
from orchestrator.checking import cleaning
from orchestrator.checking.run_folder import RunFolder
from orchestrator.environments import definitions, docker_client, images, venvs
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.output import ledger as ledgers
from orchestrator.weights.lock import Locked, WeightsLock

LONG_AGO = time.time() - 100 * 86400


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache, on a machine without an engine."""
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    (tmp_path / "cache/envs").mkdir(parents=True)
    return tmp_path / "cache"


def build(folder, finished=True, used=LONG_AGO):
    """Make what a build leaves."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").write_text("x" * 1000)
    folder.with_name(folder.name + ".lock").touch()
    for name in ("pyvenv.cfg", "complete.json")[: 1 + finished]:
        (folder / name).touch()
        os.utime(folder / name, (used, used))
    return folder


def clean(*arguments):
    return main(["clean", *map(str, arguments)])


def test_what_no_lock_names_goes_once_it_is_old(cache, capsys):
    own = definitions.find("torch-cuda")
    named = build(venvs.folder(own, "cpu"))
    old, unfinished = build(cache / "envs/torch-cuda-cpu-py3.11-0123"), build(cache / "envs/mine-cpu-py3.11-45", False)
    young = build(cache / "envs/torch-cuda-cpu-py3.11-4567", used=time.time() - 3 * 86400)
    (cache / "envs/torch-cuda-cpu-py3.11-0123.log").write_text("pip says")
    assert clean() == 0
    said = capsys.readouterr().out
    assert f"stays: {young}: 1.0 kB, environments of other locks, used 3 days ago" in said
    assert [line.split()[-3:] for line in said.splitlines() if line.startswith(("env", "logs", "all"))] == [
        ["1", "1.0", "kB"],
        ["1", "1.0", "kB"],
        ["1", "8", "B"],
        ["3", "2.0", "kB"],
    ]
    assert said.endswith("nothing was removed; add --yes\n") and old.exists()
    assert clean("--yes") == 0
    assert named.exists() and young.exists() and not old.exists() and not unfinished.exists()
    assert [path.name for path in (cache / "envs").glob("*.log")] == []
    assert clean("--older-than", "2", "--yes") == 0
    assert named.exists() and not young.exists()


def test_what_is_being_built_and_what_lies_elsewhere_stays(cache, tmp_path):
    building = build(cache / "envs/mine-cpu-py3.11-45", finished=False)
    elsewhere = build(tmp_path / "disk/other-cpu-py3.11-67")
    (cache / "envs/other-cpu-py3.11-67").symlink_to(elsewhere)
    with open(f"{building}.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list(cleaning.of_cache(weights=True)) == []
        fcntl.flock(lock, fcntl.LOCK_UN)
        (found,) = cleaning.of_cache(weights=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
        found.remove()  # somebody has begun to build since it was listed
    assert building.exists() and (elsewhere / "bin/python").exists()


def test_a_cache_that_is_a_link_is_cleaned_and_a_part_of_it_that_is_one_is_not(cache, tmp_path, monkeypatch):
    build(cache / "envs/mine-cpu-py3.11-45", finished=False)
    (tmp_path / "link").symlink_to(cache)
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "link"))
    assert len(list(cleaning.of_cache(weights=False))) == 1
    (cache / "envs").rename(tmp_path / "disk")
    (cache / "envs").symlink_to(tmp_path / "disk")
    assert list(cleaning.of_cache(weights=False)) == []


def test_of_weights_only_what_can_be_fetched_again_goes(cache):
    folder = cache / "weights/hub/org/name/main"
    folder.mkdir(parents=True)
    for name in ("fetched.bin", "by_hand.bin", "unknown.bin", ".half.bin.part", "used.bin"):
        (folder / name).write_text("x")
        os.utime(folder / name, (LONG_AGO, LONG_AGO))
    os.utime(folder / "used.bin")
    entries = [("fetched.bin", False), ("used.bin", False), ("by_hand.bin", True), ("gone.bin", False)]
    lock = WeightsLock(cache / "weights/weights.lock")
    lock.add(Locked("hub", "org/name", "main", file, "", 1, "MIT", by_hand=by_hand) for file, by_hand in entries)
    assert clean("--yes") == 0
    assert not (folder / ".half.bin.part").exists() and (folder / "fetched.bin").exists()
    assert clean("--weights", "--yes") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["by_hand.bin", "unknown.bin", "used.bin"]
    assert len(lock.entries()) == 4  # what comes again must be what it was


def test_a_download_that_is_under_way_stays(cache):
    folder = cache / "weights/pypi/name/1.0"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/.half.bin.part").touch()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert clean("--yes") == 0
    assert (folder / "deep/.half.bin.part").exists()


def test_images_of_other_code_and_without_a_name(cache, monkeypatch, capsys):
    old, now = 1577934245.0, time.time()
    names = {"1": "consort/torch-cuda:cpu", "2": "consort/theirs:cpu", "3": "consort/tf-cuda:cpu", "5": "mine/copy:1"}
    found = [
        docker_client.Image(
            f"sha256:{one}", (names[one],) if one in names else (), {}, 1000, old if one == "1" else now
        )
        for one in "12345"
    ]
    removed = []

    def remove(name):
        removed.append(name)
        if name == "sha256:4":
            raise EnvironmentUnavailable("docker: is being used by a container")

    monkeypatch.setattr(docker_client, "images", lambda label: found)
    monkeypatch.setattr(docker_client, "remove_image", remove)
    monkeypatch.setattr(docker_client, "find", lambda: docker_client.DockerEngine("Docker", False, False, False))
    monkeypatch.setattr(images, "state", lambda one, v: images.READY if one.name == "tf-cuda" else images.OUTDATED)
    assert clean("--yes") == 3
    assert removed == ["consort/torch-cuda:cpu", "sha256:4"]
    said = capsys.readouterr().out
    assert "stays: consort/theirs:cpu: 1.0 kB" in said
    assert "stays: sha256:4: docker: is being used by a container" in said


@pytest.mark.parametrize(("answer", "left"), [("y", False), ("", True), ("no", True)])
def test_a_terminal_is_asked(cache, monkeypatch, answer, left):
    folder = build(cache / "envs/mine-cpu-py3.11-45", finished=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda text: answer)
    assert clean() == 0
    assert folder.exists() == left


WRONG = [["out"], ["--stale"], ["out", "--stale", "--weights"], ["out", "--model", "crepe", "--older-than", "3"]]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_half_a_command_is_refused(arguments, capsys):
    assert clean(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def out(prepare, work, tmp_path):
    """Return the output folder of two models over three files, one of which fails."""
    models = [{"name": "prosody", "outputs": ["features", "voiced"]}, "crepe"]
    work(prepare(models=models), failing={("b.wav", "crepe"): "decode"})
    job = {"audio": "audio", "output": "out", "models": models}
    (tmp_path / "job.json").write_text(json.dumps(job))
    return tmp_path / "out"


def states(surveyed):
    return {(c.source.id, model): state for c in surveyed.plan.choices for model, state in c.states.items()}


def arrays(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*.npy"))


def test_a_model_goes_with_all_that_is_recorded_of_it(out, prepare, capsys):
    before = states(prepare(models=["prosody", "crepe"]))
    assert before["b.wav", "crepe"] == "failed"
    assert clean(out, "--model", "crepe") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:4] == ["arrays", "of", "crepe", "2"] and lines[2][:4] == ["failures", "of", "crepe", "1"]
    assert states(prepare(models=["prosody", "crepe"])) == before
    assert clean(out, "--model", "crepe", "--yes") == 0
    after = states(prepare(models=["prosody", "crepe"]))
    assert after == {key: "todo" if key[1] == "crepe" else state for key, state in before.items()}
    assert not (out / "crepe").exists() and "crepe" not in (out / "manifest.jsonl").read_text()
    assert (out / ".consort/failures.jsonl").read_text() == ""


def test_a_model_that_wrote_nothing_is_refused(out, capsys):
    assert clean(out, "--model", "mert", "--yes") == 2
    assert "there is crepe, prosody" in capsys.readouterr().err


def test_what_is_stale_goes_and_the_rest_stays(out, prepare, tmp_path, write_wav):
    models = [{"name": "prosody", "outputs": ["features", "voiced"]}, {"name": "crepe", "params": {"step_ms": 20}}]
    (tmp_path / "job.json").write_text(json.dumps({"audio": "audio", "output": "out", "models": models}))
    write_wav(tmp_path / "audio/a.wav", 77)
    before = states(prepare(models=models))
    assert [key for key, state in before.items() if state == "stale"] == [
        ("a.wav", "prosody"),
        ("a.wav", "crepe"),
        ("deep/c.wav", "crepe"),
    ]
    assert clean(tmp_path / "job.json", "--stale", "--yes") == 0
    assert states(prepare(models=models)) == {k: "todo" if s == "stale" else s for k, s in before.items()}
    assert arrays(out) == ["prosody.voiced/b.npy", "prosody.voiced/deep/c.npy", "prosody/b.npy", "prosody/deep/c.npy"]


def test_what_is_orphaned_goes_but_nothing_of_a_users(out, prepare, tmp_path):
    (tmp_path / "audio/a.wav").unlink()
    (tmp_path / "audio/b.wav").unlink()
    for name in ("prosody/stranger.npy", "prosody/notes.md", "prosody/own.txt", "prosody/.x.part", "mine/own.npy"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).touch()
    (out / "prosody/others/.consort").mkdir(parents=True)  # the output folder of another job
    (out / "prosody/others/array.npy").touch()
    (out / "prosody/link").symlink_to(tmp_path / "audio", target_is_directory=True)
    (out / "prosody/link.npy").symlink_to(tmp_path / "audio/deep/c.wav")
    before = states(prepare(models=["prosody", "crepe"]))
    assert clean(tmp_path / "job.json", "--orphaned", "--yes") == 0
    assert states(prepare(models=["prosody", "crepe"])) == before
    kept = ["crepe/deep/c.npy", "mine/own.npy", "prosody.voiced/deep/c.npy", "prosody/deep/c.npy"]
    assert arrays(out) == [*kept, "prosody/link.npy", "prosody/others/array.npy"]
    assert sorted(path.name for path in (out / "prosody").iterdir()) == [
        ".x.part",
        "deep",
        "link",
        "link.npy",
        "notes.md",
        "others",
        "own.txt",
    ]
    assert not ledgers.read(prepare().output).failures


def test_a_record_that_leads_elsewhere_removes_nothing_there(out, tmp_path):
    manifest = out / "manifest.jsonl"
    (tmp_path / "precious.npy").write_text("mine")
    (out / "prosody/away").symlink_to(tmp_path)
    text = manifest.read_text().replace("crepe/a.npy", "../precious.npy")
    manifest.write_text(text.replace("crepe/deep/c.npy", "prosody/away/precious.npy"))
    assert clean(out, "--model", "crepe", "--yes") == 0
    assert (tmp_path / "precious.npy").read_text() == "mine"
    assert "precious" not in manifest.read_text()


def test_killed_in_between_the_same_command_goes_on(out, prepare, monkeypatch):
    removed = []

    def unlink(path, missing_ok=False):
        if path.suffix == ".npy":
            if removed:
                raise KeyboardInterrupt
            removed.append(path)
        os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", unlink)
        assert clean(out, "--model", "prosody", "--yes") == 130
    assert len(removed) == 1 and not removed[0].exists()
    assert RunFolder(str(out)).ledger().records, "records go last: the same command knows what is left"
    assert clean(out, "--model", "prosody", "--yes") == 0
    assert arrays(out) == ["crepe/a.npy", "crepe/deep/c.npy"]


def test_a_run_that_is_under_way_is_left_alone(out, capsys):
    with RunFolder(str(out)).in_hand():
        assert clean(out, "--model", "crepe", "--yes") == 4
    assert "another run is writing here" in capsys.readouterr().err
    assert len(arrays(out)) == 8


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_lock_that_is_none_is_left_to_whoever_made_it(cache, make):
    folder = cache / "weights/hub/org/name/main"
    folder.mkdir(parents=True)
    (folder / ".half.bin.part").write_text("x")
    make(folder.parent / ".lock")
    make(folder / ".lock")
    assert clean("--yes") == 0
    assert (folder / ".half.bin.part").exists()


def test_the_age_that_is_named_removes(cache, capsys):
    old = build(cache / "envs/other-cpu-py3.11-89", used=time.time() - 12.7 * 86400)
    assert clean() == 0
    assert "--older-than 12 removes it" in capsys.readouterr().out
    assert clean("--older-than", "12", "--yes") == 0 and not old.exists()
