"""What is refused before a registry is asked, and what is made of docker's words; tests/docker has a real one."""

import json
import os
from dataclasses import replace

import pytest

from orchestrator.__main__ import main
from orchestrator.environments import definitions, images, registry
from orchestrator.errors import EnvironmentUnavailable

LINE = f"torch-cuda cpu amd64 {'a' * 64} {'b' * 64} sha256:{'c' * 64} registry.example:5000/of/consort"


@pytest.fixture
def wanted(tmp_path, engine, monkeypatch):
    """Return an image as it is to be, which the engine does not have."""
    engine.version["Arch"] = "amd64"
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    return images.Wanted("torch-cuda", "cpu", "consort/torch-cuda:cpu", "a" * 64, "b" * 64, tmp_path / "digests.lock")


@pytest.fixture
def docker(tmp_path, engine):
    """Return a function that sets what the `docker` command does."""
    return lambda script: (tmp_path / "bin/docker").write_text(f"#!/bin/sh\n{script}\n")


def test_a_line_of_today_and_of_this_machine_is_found(wanted):
    wanted.digests.write_text(f"# words\n\n{LINE}\n")
    assert registry.find(wanted).address == f"registry.example:5000/of/consort/torch-cuda@sha256:{'c' * 64}"
    for other in ({"name": "tf-cuda"}, {"variant": "cuda"}, {"lock": "0" * 64}, {"worker": "0" * 64}):
        assert registry.find(replace(wanted, **other)) is None
    wanted.digests.write_text(LINE.replace("amd64", "arm64"))
    assert registry.find(wanted) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("registry.example:5000/of/consort", "--config=x"),
        ("registry.example:5000/of/consort", "registry.example/x;rm"),
        ("registry.example:5000/of/consort", "registry.example/../x"),
        ("registry.example:5000/of/consort", "https://registry.example/x"),
        ("registry.example:5000/of/consort", "me:secret@registry.example/x"),
        ("torch-cuda", "-torch"),
        ("torch-cuda", "other/torch"),
        ("sha256:cc", "sha256:c"),
        ("sha256:cc", "sha512:cc"),
        ("bb", "b b"),
        ("cpu amd64", "cpu"),
    ],
)
def test_a_line_that_is_no_address_is_refused_by_its_number(wanted, old, new):
    wanted.digests.write_text(f"# words\n{LINE.replace(old, new, 1)}\n")
    with pytest.raises(EnvironmentUnavailable, match=r"^digests\.lock: line 2 names no image; remove it"):
        registry.find(wanted)
    said, warned = [], []
    assert not registry.pulled(wanted, said.append, warned.append)
    assert said == [] and warned[0].endswith("; builds it instead")


def test_a_file_that_is_none_is_not_waited_for(wanted):
    os.mkfifo(wanted.digests)
    with pytest.raises(EnvironmentUnavailable, match=r"^digests\.lock cannot be read"):
        registry.find(wanted)


def test_who_may_not_pull_is_told_to_log_in(wanted, docker):
    wanted.digests.write_text(LINE)
    docker("echo Error response from daemon: pull access denied for https://me:secret@registry.example/x; exit 1")
    with pytest.raises(EnvironmentUnavailable, match=r"access denied .*; `docker login` says who you are") as caught:
        registry.pull(wanted, lambda text: None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push",), "--registry HOST[:PORT][/NAME] says where `envs push` pushes to"),
        (("pull", "--registry", "a"), "--registry HOST[:PORT][/NAME] says where `envs push` pushes to"),
        (("push", "--registry", ""), "such as registry.example:5000/consort"),
        (("push", "--registry", "https://registry.example"), "such as registry.example:5000/consort"),
        (("push", "--registry", "a", "--runtime", "venv"), "images alone"),
        (("pull", "--runtime", "venv"), "images alone"),
        (("list", "--attest"), "--attest goes with `envs build --runtime docker`"),
        (("build", "legacy-py37", "--attest"), "add `--runtime docker`"),
    ],
)
def test_what_does_not_go_together_is_refused(words, said, capsys):
    assert main(["envs", *words]) == 2
    assert said in capsys.readouterr().err


def test_images_carry_attestations_where_containerd_keeps_them(engine, docker, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "words"
    words = ["envs", "build", "legacy-py37", "--runtime", "docker", "--variant", "cpu", "--attest"]
    engine.info["DriverStatus"] = [["Backing Filesystem", "extfs"]]
    assert main(words) == 3
    (said,) = capsys.readouterr().err.splitlines()
    assert "containerd-snapshotter" in said

    engine.info["DriverStatus"] = [["driver-type", "io.containerd.snapshotter.v1"]]
    environment = definitions.find("legacy-py37")
    made = {"lock": environment.lock_sha256("cpu"), "worker": environment.worker_sha256()}
    engine.has("consort/legacy-py37:cpu", {})
    engine.keeps("consort/legacy-py37:cpu", "/opt/consort/made-of.json", json.dumps(made))
    monkeypatch.setenv("CONSORT_SBOM_SCANNER", "own/scanner")
    docker(f'echo "$@" >>{kept}')
    assert main(words) == 0, "one that is there is built again: it may have none"
    assert "--attest type=sbom,generator=own/scanner --attest type=provenance,mode=max" in kept.read_text()
