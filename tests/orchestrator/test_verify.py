"""Hashing an output folder again, comparing two, and how far apart values may be."""

import hashlib
import importlib
import json
import os
import shutil

import numpy as np
import pytest

import orchestrator
from orchestrator import errors, files
from orchestrator.__main__ import main, parser
from orchestrator.checking import comparison, recompute, verify
from orchestrator.checking.run_folder import RunFolder
from orchestrator.errors import JobError, RunFailed
from orchestrator.job import spec
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import OutputDir
from worker import formats, protocol
from worker.errors import SchemaError
from worker.protocol import Event
from worker.work import store

VALUES = np.linspace(0.1, 0.9, 20, dtype=np.float32).reshape(10, 2)


@pytest.fixture
def write(tmp_path, record):
    """Return a writer of an output folder from (values, changes of the record), the way a worker and a run write it."""

    def write(*entries, folder="out", fold=True, **context):
        output = OutputDir(tmp_path / folder)
        output.create()
        context = {"lock": "l", "worker": "w", "device": "cpu", **context}
        name = protocol.digest(context)
        (output.contexts / f"{name}.json").write_text(json.dumps(context), "ascii")
        channel = protocol.Channel(str(output.records / "run-0.1.jsonl"))
        for number, (values, changes) in enumerate(entries):
            changes = {"path": f"crepe/{changes.get('item', 'a.wav')[:-4]}.npy", **changes}
            data = store.encode(values, changes["path"].rpartition(".")[2])
            stored = store.write(str(output.root), changes["path"], data, f"run-0-1-{number}")
            store.commit([stored])
            facts = {"sha256": stored.sha256, "bytes": stored.bytes, "context": name}
            facts |= {"shape": list(values.shape), "dtype": values.dtype.name}
            channel.emit(Event("wrote", record=record(**facts, **changes)))
        channel.close()
        with output.lock():
            if fold:
                ledgers.fold(output)
        return output.root

    return write


@pytest.fixture
def three(write):
    """An output folder with three arrays."""
    return write(*[(VALUES + n, {"item": f"{name}.wav"}) for n, name in enumerate("abc")])


def checked(folder, **options):
    return verify.check(RunFolder(str(folder)), **options)


def compared(one, other, tolerance=None):
    return comparison.compare(RunFolder(str(one)), RunFolder(str(other)), tolerance)


def kinds(found):
    return {match.item: match.kind for match in found.matches}


def problems(found):
    return {(problem.kind, problem.path) for problem in found.problems}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# ------------------------------------------------------------------------------------------- hashing again


def test_a_folder_that_is_as_recorded_is_good(three):
    found = checked(three)
    assert (found.exit_code, found.problems, found.orphans, found.arrays) == (errors.OK, [], [], 3)
    assert found.lines(False) == [f"{three}: 3 of 3 arrays (624 B) are as recorded"]


def test_records_that_no_run_has_folded_count_too(write):
    out = write((VALUES, {}), fold=False)
    assert not (out / "manifest.jsonl").exists()
    assert checked(out).arrays == 1
    flip(out / "crepe/a.npy")
    assert problems(checked(out)) == {("hash", "crepe/a.npy")}


def test_every_kind_of_damage_is_told(three):
    flip(three / "crepe/a.npy")
    (three / "crepe/b.npy").write_bytes((three / "crepe/b.npy").read_bytes()[:-1])
    (three / "crepe/c.npy").unlink()
    found = checked(three)
    assert problems(found) == {("hash", "crepe/a.npy"), ("size", "crepe/b.npy"), ("missing", "crepe/c.npy")}
    assert found.exit_code == errors.ITEMS_FAILED
    summary, *rest = found.lines(False)[3:]
    assert "0 of 3 arrays" in summary and all(f"1 {kind}" in summary for kind in ("hash", "missing", "size"))
    assert "--repair" in rest[0] and "consort extract" in rest[1]


def test_something_else_in_the_place_of_an_array_is_unreadable_and_never_waited_for(three):
    for name, make in (("a", os.mkdir), ("b", os.mkfifo)):
        (three / f"crepe/{name}.npy").unlink()
        make(three / f"crepe/{name}.npy")
    assert problems(checked(three, repair=True)) == {("unreadable", "crepe/a.npy"), ("unreadable", "crepe/b.npy")}


@pytest.mark.parametrize("path", ["../secret.npy", "crepe/link.npy", "/etc/hostname"])
def test_nothing_outside_the_folder_is_read_or_removed(write, tmp_path, path):
    out = write((VALUES, {}))
    (tmp_path / "secret.npy").write_bytes(b"mine")
    (out / "crepe/link.npy").symlink_to(tmp_path / "secret.npy")
    line = json.loads((out / "manifest.jsonl").read_text("ascii"))
    (out / "manifest.jsonl").write_text(json.dumps({**line, "path": path}) + "\n", "ascii")
    found = checked(out, repair=True)
    assert problems(found) == {("outside", path)} and found.removed == []
    assert (tmp_path / "secret.npy").read_bytes() == b"mine"


def test_a_context_must_be_what_its_name_says(three):
    (context,) = (three / ".consort/contexts").iterdir()
    good = context.read_text("ascii")
    for text in (good.replace('"cpu"', '"cuda"'), "{", good[: len(good) // 2]):
        context.write_text(text, "ascii")
        found = checked(three)
        assert problems(found) == {("context", f".consort/contexts/{context.name}")}
        assert "--resume strict" in found.lines(False)[-1] and "3 of 3 arrays" in found.lines(False)[1]
    assert checked(three, repair=True).removed == [f".consort/contexts/{context.name}"]
    assert problems(checked(three)) == {("context", f".consort/contexts/{context.name}")}  # until a run renews it


def test_a_copy_of_the_arrays_and_the_manifest_alone_can_be_held_to_it(three, tmp_path):
    shutil.rmtree(three / ".consort")
    three.chmod(0o555)
    (three / "crepe").chmod(0o555)
    found = checked(three)
    assert found.exit_code == errors.OK and "contexts were not checked" in found.lines(False)[-1]
    assert not (three / ".consort").exists()
    three.chmod(0o755)
    (three / "crepe").chmod(0o755)


def test_orphans_are_told_and_are_no_failure(three):
    for name in ("crepe/d.npy", "crepe/deep/e.npz", "crepe/f.txt", "old/g.npy"):
        (three / name).parent.mkdir(exist_ok=True)
        (three / name).touch()
    for name in ("top.npy", "notes/todo.txt", "crepe/cover.jpg", "crepe/.run-1-2.part", "nested/x/a.npy"):
        (three / name).parent.mkdir(exist_ok=True, parents=True)
        (three / name).touch()
    (three / "nested/.consort").mkdir()
    found = checked(three)
    assert found.orphans == ["crepe/d.npy", "crepe/deep/e.npz", "crepe/f.txt", "old/g.npy"]
    assert (found.exit_code, found.problems) == (errors.OK, [])
    assert "4 orphaned" in found.lines(False)[-1]


def test_repair_removes_what_is_damaged_and_nothing_else(three):
    flip(three / "crepe/a.npy")
    (three / "crepe/stranger.npy").touch()
    before = (three / "manifest.jsonl").read_bytes()
    assert checked(three, repair=True).removed == ["crepe/a.npy"]
    assert problems(checked(three)) == {("missing", "crepe/a.npy")}
    assert (three / "crepe/stranger.npy").exists() and (three / "manifest.jsonl").read_bytes() == before


def test_a_folder_of_something_else_is_refused_and_stays_as_it_is(tmp_path, capsys):
    (tmp_path / "music").mkdir()
    for name, words in (("music", "no run has written"), ("nowhere", "does not exist")):
        for flags in ((), ("--repair",), ("--recompute", "1")):
            assert main(["verify", str(tmp_path / name), *flags]) == errors.USAGE
            assert words in capsys.readouterr().err
    assert list((tmp_path / "music").iterdir()) == []


def test_a_folder_that_a_run_or_a_worker_writes_is_not_judged(three):
    output = OutputDir(three)
    with output.lock(), pytest.raises(RunFailed, match="a run is writing here"):
        checked(three)
    worker = protocol.Channel(str(output.records / "run-1.1.jsonl"))
    for repair in (False, True):
        with pytest.raises(RunFailed, match="a run is writing here"):
            checked(three, repair=repair)
    worker.close()
    assert checked(three, repair=True).exit_code == errors.OK


def test_no_run_begins_while_a_folder_is_read(three):
    with RunFolder(str(three)).at_rest(), pytest.raises(RunFailed), OutputDir(three).lock():
        pass


def test_long_lists_are_cut_by_kind_unless_all_is_wanted(write):
    out = write(*[(VALUES, {"item": f"{n:02d}.wav"}) for n in range(15)])
    for n in range(13):
        (out / f"crepe/{n:02d}.npy").unlink()
    flip(out / "crepe/14.npy")
    found = checked(out)
    short, everything = found.lines(False), found.lines(True)
    assert (
        sum("is not there" in line for line in short) == 10 and sum("is not there" in line for line in everything) == 13
    )
    assert any("3 more" in line for line in short) and any(line.startswith("  hash ") for line in short)


def test_json_is_everything(three, capsys):
    flip(three / "crepe/b.npy")
    assert main(["verify", str(three), "--json"]) == errors.ITEMS_FAILED
    told = json.loads(capsys.readouterr().out)
    assert (told["arrays"], told["problems"][0]["kind"], told["problems"][0]["path"]) == (3, "hash", "crepe/b.npy")


@pytest.mark.parametrize(
    "flags",
    [("OTHER", "--repair"), ("OTHER", "--recompute", "1"), ("--seed", "1"), ("--runtime", "venv")],
    ids=" ".join,
)
def test_flags_that_mean_nothing_together_are_refused(three, flags):
    assert main(["verify", str(three), *(str(three) if flag == "OTHER" else flag for flag in flags)]) == errors.USAGE


@pytest.mark.parametrize("flags", [["--recompute", "0"], ["--recompute", "x"], ["--tolerance=-1"], ["--tolerance=inf"]])
def test_numbers_that_are_none_are_refused(flags):
    with pytest.raises(SystemExit, match="2"):
        main(["verify", "out", *flags])


def test_the_flag_alone_grants_the_tolerance_that_is_stated():
    assert parser().parse_args(["verify", "one", "other", "--tolerance"]).tolerance == comparison.TOLERANCE


# ------------------------------------------------------------------------------------------- two folders


def test_a_context_that_may_not_be_read_is_not_damaged(three, monkeypatch):
    def refuse(path, encoding="ascii"):
        if path.parent.name == "contexts":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, encoding)

    real = files.read_text
    monkeypatch.setattr(files, "read_text", refuse)
    found = checked(three, repair=True)
    assert [p.text for p in found.problems] == ["Permission denied; mend its rights"] and found.removed == []


def test_two_equal_folders_are_the_same_whatever_their_contexts_say(write):
    one = write((VALUES, {}))
    other = write((VALUES, {}), folder="other", lock="another")
    found = compared(one, other)
    assert (found.exit_code, kinds(found)) == (errors.OK, {"a.wav": "equal"})
    assert found.lines(False)[-1] == "the same: 1 arrays to the byte"


def test_what_only_one_has_and_what_has_another_key_is_told(write):
    one = write(*[(VALUES, {"item": f"{name}.wav"}) for name in "abcd"])
    changes = [{"item": "a.wav"}, {"item": "b.wav", "key": "other"}, {"item": "c.wav", "key": "o", "source": "new"}]
    other = write(*[(VALUES, change) for change in [*changes, {"item": "e.wav"}]], folder="other")
    found = compared(one, other)
    assert kinds(found) == {"a.wav": "equal", "b.wav": "key", "c.wav": "key", "d.wav": "gone", "e.wav": "new"}
    texts = {match.item: match.text for match in found.matches}
    assert "other parameters" in texts["b.wav"] and "another source" in texts["c.wav"]
    assert found.exit_code == compared(one, other, 1.0).exit_code == errors.ITEMS_FAILED
    assert f"1 only in {one}, 1 only in {other}" in found.lines(False)[-1]


def test_the_windows_of_an_item_are_compared_each(write):
    def windows(count):
        return [(VALUES, {"path": f"crepe/a_frag{n}.npy", "window": n, "windows": count}) for n in range(count)]

    found = compared(write(*windows(3)), write(*windows(2), folder="other"))
    assert [(match.window, match.kind) for match in found.matches] == [(0, "equal"), (1, "equal"), (2, "gone")]


def test_other_bytes_pass_only_where_a_tolerance_is_granted(write):
    near, far = VALUES.copy(), VALUES.copy()
    near[0, 0] += 1e-6
    far[0, 0] += 1e-3
    one = write((VALUES, {}), (VALUES, {"item": "b.wav"}))
    for values, kind, granted in ((near, "bytes", "close"), (far, "values", "values")):
        other = write((values, {}), (VALUES, {"item": "b.wav"}), folder="other")
        assert kinds(compared(one, other)) == {"a.wav": kind, "b.wav": "equal"}
        assert compared(one, other).exit_code == errors.ITEMS_FAILED
        found = compared(one, other, comparison.TOLERANCE)
        assert kinds(found) == {"a.wav": granted, "b.wav": "equal"}
        assert (found.exit_code == errors.OK) == (granted == "close")
    assert found.matches[0].largest == pytest.approx(1e-3, rel=1e-3)
    assert main(["verify", str(one), str(other), "--tolerance", "0.01"]) == errors.OK


def test_formats_differ_in_bytes_and_not_in_values(write):
    one = write((VALUES, {}))
    for suffix in ("txt", "npz"):
        other = write((VALUES, {"path": f"crepe/a.{suffix}"}), folder=f"as-{suffix}")
        found = compared(one, other)
        assert [(match.kind, match.largest) for match in found.matches] == [("bytes", 0.0)]


def test_a_damaged_array_is_never_the_same(three, tmp_path):
    shutil.copytree(three, tmp_path / "other")
    flip(tmp_path / "other/crepe/b.npy")
    found = compared(three, tmp_path / "other", 1.0)
    assert kinds(found) == {"a.wav": "equal", "b.wav": "damaged", "c.wav": "equal"}
    assert found.exit_code == errors.ITEMS_FAILED and "1 damaged" in found.lines(False)[-1]


def test_a_file_that_is_recorded_and_is_no_array_is_told(write):
    one, other = write((VALUES, {})), write((VALUES + 1, {}), folder="other")
    (other / "crepe/a.npy").write_bytes(b"nonsense")
    line = json.loads((other / "manifest.jsonl").read_text("ascii"))
    sha = hashlib.sha256(b"nonsense").hexdigest()
    (other / "manifest.jsonl").write_text(json.dumps({**line, "sha256": sha, "bytes": 8}) + "\n", "ascii")
    assert kinds(compared(one, other, 1.0)) == {"a.wav": "unreadable"}


# ------------------------------------------------------------------------------------------- which items


@pytest.mark.parametrize(("count", "found"), [(1, [5]), (2, [2, 7]), (3, [1, 5, 8]), (10, list(range(10)))])
def test_items_are_spread_over_all(count, found):
    assert recompute.pick(list(range(10)), count) == found
    assert recompute.pick(list(range(10)), count + 90)[:1] == [0]


def test_drawn_items_depend_on_the_seed_alone():
    drawn = {seed: recompute.pick(list(range(100)), 5, seed) for seed in range(5)}
    assert drawn == {seed: recompute.pick(list(range(100)), 5, seed) for seed in range(5)}
    assert all(found == sorted(set(found)) and len(found) == 5 for found in drawn.values())
    assert len({tuple(found) for found in drawn.values()}) > 1


@pytest.mark.parametrize(
    ("device", "lock", "way", "kind"),
    [("cpu", "l", "", "bytes"), ("cpu", "other", "lock", "close"), ("cuda NVIDIA H200", "l", "batch", "close")],
)
def test_arrays_must_be_equal_to_the_byte_where_nothing_rounds_differently(write, device, lock, way, kind):
    one = RunFolder(str(write((VALUES, {}), device=device)))
    other = RunFolder(str(write((VALUES + np.float32(1e-6), {}), folder="other", device=device, lock=lock)))
    matches, ways = recompute._match(comparison.Side(one, one.ledger().records), other, None)
    assert ([match.kind for match in matches], ways) == ([kind], {way: 1})


def test_without_its_job_nothing_can_be_computed_again(three):
    with pytest.raises(JobError, match="name the job file"):
        recompute.recompute(RunFolder(str(three)), recompute.Sample(1), None, None)


# ------------------------------------------------------------------------------------------- a new format

RAW = """
import numpy as np

from worker.formats.entry import OutputFormat


def read(path, dtype, shape):
    return np.fromfile(path, dtype).reshape(shape)


FORMAT = OutputFormat(".raw", np.ndarray.tobytes, read)
"""


def test_a_format_is_one_file_and_one_line(write, tmp_path, monkeypatch):
    (tmp_path / "raw.py").write_text(RAW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(formats.FORMATS, "raw", importlib.import_module("raw").FORMAT)

    job = {"audio": "a", "output": "b", "models": [{"name": "crepe", "format": "raw"}]}
    assert spec.check(job).models[0].format == "raw"
    path = store.relative_path("crepe", "pitch", True, "a", "raw")
    one = write((VALUES, {"path": path}))
    assert (one / "crepe/a.raw").read_bytes() == VALUES.tobytes()
    np.testing.assert_array_equal(orchestrator.load(one).array("crepe", "a.wav"), VALUES)
    assert checked(one).exit_code == errors.OK
    other = write((VALUES + 1e-7, {"path": path}), folder="other")
    assert kinds(compared(one, other, 1e-3)) == {"a.wav": "close"}
    (one / "crepe/b.raw").write_bytes(b"")
    assert checked(one).orphans == ["crepe/b.raw"]


def test_a_format_that_is_not_there_is_refused_with_those_that_are():
    job = {"audio": "a", "output": "b", "models": [{"name": "crepe", "format": "raw"}]}
    with pytest.raises(SchemaError, match=r"models\[0\].format: 'raw' is not one of npy, npz, txt"):
        spec.check(job)
