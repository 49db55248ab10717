import dataclasses
import hashlib
import json
import os
import platform
import sys
import types

import numpy as np
import pytest

from worker import protocol
from worker.errors import OutputError
from worker.extractor import Extractor, WholeFile
from worker.work import contexts


@dataclasses.dataclass
class Tone(Extractor):
    environment = "legacy-py37"
    sample_rate = 8000
    version = 3

    level: float = 1.0
    layers: tuple = (1, 2)

    def outputs(self):
        return ()

    def framing(self):
        return WholeFile(0)

    def load(self, device, files):
        pass

    def extract(self, batch):
        return {}

    def describe(self):
        return {"backend": "fast"}


TASK = protocol.Task("tone", "my:Tone", "k", pooling={"sum": "mean"}, checkpoint={"w": "0" * 64})
SHARD = protocol.Shard("s", 1, "legacy-py37", [TASK], [], lock="L", worker="W")


def write(folder, shard=SHARD, task=TASK, extractor=None, device="cpu"):
    return contexts.context_of(shard, task, extractor or Tone(), str(folder), device=device)


def read(folder, name):
    return json.loads((folder / ".consort/contexts" / (name + ".json")).read_text("ascii"))


def test_context_says_what_made_the_numbers(tmp_path):
    context = read(tmp_path, write(tmp_path))
    packages = context.pop("packages")
    assert packages["numpy"] == np.__version__
    assert set(packages) >= {"numpy", "soundfile", "soxr"}
    assert context == {
        "model": "tone",
        "extractor": "my:Tone",
        "version": 3,
        "audio_version": protocol.AUDIO_VERSION,
        "params": {"level": 1.0, "layers": [1, 2]},
        "window": None,
        "pooling": {"sum": "mean"},
        "dtype": "float32",
        "checkpoint": {"w": "0" * 64},
        "provenance": {},
        "environment": "legacy-py37",
        "lock": "L",
        "worker": "W",
        "python": platform.python_version(),
        "device": "cpu",
        "details": {"backend": "fast"},
    }


def test_name_is_the_hash_of_what_it_holds(tmp_path):
    name = write(tmp_path)
    assert name == hashlib.sha256(protocol.canonical(read(tmp_path, name)).encode()).hexdigest()
    assert os.listdir(str(tmp_path / ".consort/contexts")) == [name + ".json"]


def test_equal_contexts_are_written_once_by_whoever_comes_first(tmp_path):
    name = write(tmp_path)
    path = tmp_path / ".consort/contexts" / (name + ".json")
    before = path.stat().st_mtime_ns, path.stat().st_ino
    later = dataclasses.replace(SHARD, id="other", attempt=7, memory=1, plugins=["/home/me"], timeout=3.0)
    task = dataclasses.replace(TASK, batch_size=9, files={"w": "/home/me/w"}, format="txt")
    assert write(tmp_path, later, task) == name
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize(
    "change",
    [
        {"shard": dataclasses.replace(SHARD, lock="M")},
        {"shard": dataclasses.replace(SHARD, worker="V")},
        {"device": "cuda NVIDIA H200"},
        {"task": dataclasses.replace(TASK, dtype="float16")},
        {"task": dataclasses.replace(TASK, pooling={})},
        {"task": dataclasses.replace(TASK, checkpoint={"w": "1" * 64})},
        {"extractor": Tone(2.0)},
    ],
)
def test_context_differs_when_what_it_says_differs(tmp_path, change):
    assert write(tmp_path, **change) != write(tmp_path)


def test_models_that_were_loaded_before_leave_no_trace(tmp_path, monkeypatch):
    # a run that was killed goes on with fewer models: its records must not differ from those of one in one go
    alone = write(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="9.9"))
    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(__version__="9.9"))
    assert write(tmp_path) == alone


def test_packages_are_the_installed_ones_the_first_on_the_path_wins(tmp_path, monkeypatch):
    for folder, name in [
        ("a", "torch-2.13.0+cpu"),
        ("b", "torch-1.0"),
        ("b", "SoundFile-7.0"),
        ("b", "torchaudio-3.0"),
    ]:
        (tmp_path / folder / (name + ".dist-info")).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), "", str(tmp_path / "a"), str(tmp_path / "b")])
    assert contexts.packages() == {"torch": "2.13.0+cpu", "soundfile": "7.0"}


def test_folder_that_cannot_be_written_is_an_error_of_the_output(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*Not a directory"):
        write(tmp_path / "out")


@pytest.mark.parametrize("link", [".consort", ".consort/contexts"])
def test_link_in_the_place_of_the_folder_is_refused_and_nothing_lands_elsewhere(tmp_path, link):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "contexts").mkdir(parents=True)
    place = tmp_path / "out" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    with pytest.raises(OutputError, match="{} is a link, and none is followed there".format(link)):
        write(tmp_path / "out")
    assert [p.name for p in elsewhere.rglob("*")] == ["contexts"]


def test_context_is_swept_with_what_its_attempt_left_half_written(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("os.replace", lambda partial, final: seen.append(os.path.basename(partial)))
    write(tmp_path)
    assert len(seen) == 1 and seen[0].startswith(".s.1-0.") and seen[0].endswith(".part")


@pytest.mark.parametrize(
    ("said", "shouted"),
    [({"weights": word}, True) for word in ("synthetic", "random-init", "random", "untrained", "Random_Init")]
    + [({"synthetic": True}, True), ({"synthetic": False}, False), ({"weights": "trained"}, False), ({}, False)],
)
@pytest.mark.parametrize("name", ["PROVENANCE.json", "m.PROVENANCE.json", "m.h5.gz.PROVENANCE.json"])
def test_untrained_weights_are_known_by_what_lies_beside_them(tmp_path, said, shouted, name):
    (tmp_path / name).write_text(json.dumps(said))
    (tmp_path / "other.PROVENANCE.json").write_text(json.dumps({"weights": "random"}))  # of another file
    found = contexts.read([str(tmp_path / "m.h5.gz")])
    assert found == said and bool(contexts.flags(found)) == shouted


def test_weights_of_several_folders_are_untrained_where_one_is(tmp_path):
    for folder, word in (("a", "random"), ("b", "trained")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "PROVENANCE.json").write_text(json.dumps({"weights": word, folder: 1}))
    found = contexts.read([str(tmp_path / "b" / "m.pt"), str(tmp_path / "a" / "m.pt")])
    assert found == {"weights": "random", "a": 1, "b": 1}


@pytest.mark.parametrize("word", ["random init", "Random_Init", " random ", "UNTRAINED"])
def test_words_for_untrained_weights_are_known_however_they_are_written(word):
    assert contexts.flags({"weights": word}) == ("random_weights",)


def test_what_is_said_twice_or_is_no_file_is_refused(tmp_path):
    place = tmp_path / "PROVENANCE.json"
    place.write_text('{"weights": "random", "weights": "trained"}')
    with pytest.raises(ValueError, match="mend it"):
        contexts.read([str(tmp_path / "w.pt")])
    place.unlink()
    place.symlink_to("gone.json")
    with pytest.raises(ValueError, match="leads nowhere"):
        contexts.read([str(tmp_path / "w.pt")])
    place.unlink()
    os.mkfifo(str(place))  # would be waited for
    with pytest.raises(OSError, match="no regular file"):
        contexts.read([str(tmp_path / "w.pt")])
