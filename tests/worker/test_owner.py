"""Who the steps of docker-compose.yml work as, and what they are given."""

import os
import subprocess
import sys

import pytest

from worker import owner

ME = (1234, 2345)

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")


def command(*words, **variables):
    paths = {"PYTHONPATH": os.path.dirname(os.path.dirname(owner.__file__))}
    environment = {**os.environ, **paths, **variables}
    return subprocess.run(
        [sys.executable, "-m", "worker.owner", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def owners(*paths):
    return [(path.stat().st_uid, path.stat().st_gid) for path in paths]


@as_root
def test_it_becomes_the_owner_of_a_file_for_good(tmp_path):
    (tmp_path / "checkout").touch()
    os.chown(str(tmp_path / "checkout"), *ME)
    done = command("run", tmp_path / "checkout", "sh", "-c", "id -u; id -g; id -G; kill -0 1 || echo no")
    assert done.stdout.split() == ["1234", "2345", "2345", "no"], done.stderr


@as_root
def test_the_variables_name_somebody_else_and_an_empty_one_nobody(tmp_path):
    done = command("run", tmp_path, "sh", "-c", "id -u; id -g", CONSORT_UID="77", CONSORT_GID="88")
    assert done.stdout.split() == ["77", "88"], done.stderr
    done = command("run", tmp_path, "sh", "-c", "id -u; id -g", CONSORT_UID="", CONSORT_GID="")
    assert done.stdout.split() == ["0", "0"], "the folder is root's, and so is the work on a rootless engine"


def test_whoever_is_not_root_stays_who_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 5)
    owner.become(ME)  # which nobody else may do


@as_root
def test_what_docker_has_made_is_given_with_the_folders_above_it(tmp_path):
    (tmp_path / "output" / "a b").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    os.chown(str(tmp_path), *ME)
    done = command("give", tmp_path, "./output/a b", tmp_path / "output" / "a b", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert owners(tmp_path / "output" / "a b", tmp_path / "output", tmp_path / "cache") == [ME, ME, ME]
    again = command("give", tmp_path, "./output/a b", tmp_path / "output" / "a b", tmp_path / "cache")
    assert again.returncode == 0, again.stderr


@as_root
@pytest.mark.parametrize("path", ["out", "out/../out", "/out", "link", "file"])
def test_what_holds_anything_or_lies_elsewhere_is_left_alone(tmp_path, path):
    victim = tmp_path / "victim"
    (tmp_path / "checkout" / "out").mkdir(parents=True)
    (tmp_path / "checkout" / "out" / "mine").touch()
    victim.mkdir()
    (tmp_path / "checkout" / "link").symlink_to(victim)
    (tmp_path / "checkout" / "file").touch()
    os.chown(str(tmp_path / "checkout"), *ME)
    done = command("give", tmp_path / "checkout", path)
    assert done.returncode == 0, done.stderr
    assert owners(tmp_path / "checkout" / "out", victim) == [(0, 0), (0, 0)]


@as_root
def test_what_is_another_users_is_left_alone(tmp_path):
    (tmp_path / "output").mkdir()
    os.chown(str(tmp_path / "output"), 7, 7)
    os.chown(str(tmp_path), *ME)
    assert command("give", tmp_path, "output", tmp_path / "output").returncode == 0
    assert owners(tmp_path / "output") == [(7, 7)]
