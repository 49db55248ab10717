"""Every file in `worker/extractors` keeps the rules of its interface; nothing here loads a model."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys

import pytest

from orchestrator.environments import definitions
from worker import catalog, extractors, request, schema
from worker.extractor import Extractor, Stream, WholeFile, Windows
from worker.work import pooling

FRAMEWORKS = ("torch", "tensorflow", "keras", "transformers", "soundfile", "soxr", "h5py", "librosa", "scipy")
HASH = re.compile(r"[0-9a-f]{64}\Z")

every_model = pytest.mark.parametrize("name", catalog.names())


def build(name):
    return catalog.build(name, {}).asked(outputs=frozenset())


def source(name):
    return f"{extractors.__path__[0]}/{name}.py"


def test_there_are_models():
    assert catalog.names()


@every_model
def test_a_file_holds_one_documented_dataclass(name):
    found = catalog.find(name)
    assert dataclasses.is_dataclass(found) and not inspect.isabstract(found)
    summary = inspect.cleandoc(found.__doc__).splitlines()
    assert not found.__doc__.startswith(f"{found.__name__}(")  # what @dataclass writes when there is none
    assert summary[0].endswith(".") and len(summary) > 1
    assert inspect.getmodule(found).__doc__


@every_model
def test_it_runs_in_an_environment_that_exists(name):
    assert catalog.find(name).environment in definitions.names()


@every_model
def test_importing_it_brings_no_framework(name):
    code = (
        "import sys, os\n"
        "opened = []\n"
        "def audit(event, args):\n"
        "    if event == 'open' and watching: opened.append(str(args[0]))\n"
        "watching = False\n"
        "sys.addaudithook(audit)\n"
        "from worker import catalog\n"
        f"cls = catalog.find({name!r})\n"
        "watching = True\n"
        "model = cls()\n"
        "model.outputs(), model.framing(), model.checkpoints(), model.describe()\n"
        "watching = False\n"
        "assert not opened, opened\n"
        "print(' '.join(sys.modules))\n"
    )
    path = f"import sys; sys.path.insert(0, {str(definitions.IMAGES)!r})\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {module.partition(".")[0] for module in done.stdout.split()}.isdisjoint(FRAMEWORKS)


@every_model
def test_an_extractor_imports_no_other(name):
    with open(source(name), encoding="utf-8") as f:
        assert "worker.extractors" not in f.read()


@every_model
def test_constants_are_of_the_right_kind(name):
    model = build(name)
    assert type(model.version) is int and model.version >= 1
    assert type(model.sample_rate) is int and 1000 <= model.sample_rate <= 192_000
    assert model.audio_channels in (1, 2)
    assert type(model.batch_size) is int and model.batch_size >= 1
    assert model.seconds_per_minute > 0
    pooling.parse(model.pooling)


@every_model
def test_parameters_survive_json_and_stay_what_they_are(name):
    model = build(name)
    settings = schema.dump(model)
    assert settings.keys() == {f.name for f in dataclasses.fields(model)}
    again = catalog.build(name, json.loads(json.dumps(settings)))
    assert schema.dump(again) == settings


@every_model
def test_outputs_are_declared_in_full(name):
    outputs = build(name).outputs()
    assert len({o.name for o in outputs}) == len(outputs) > 0
    for output in outputs:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", output.name)
        assert len(output.axes) == len(output.shape) == len(set(output.axes))
        assert output.doc and not output.doc.endswith(".")
        assert output.dtype in ("float32", "int16", "int32", "uint8")
        assert all(size is None or size > 0 for size in output.shape)


@every_model
def test_time_stands_where_there_are_frames(name):
    for output in build(name).outputs():
        assert "time" in output.axes or not output.poolable
        assert ("time" in output.axes) == (output.frame_rate is not None)
        if "time" in output.axes:
            assert output.frame_rate > 0
            assert output.shape[output.axes.index("time")] is None


@every_model
def test_the_first_output_is_what_a_job_gets_and_each_can_be_asked_for(name):
    names = [output.name for output in build(name).outputs()]
    assert [output.name for output in catalog.wanted(catalog.build(name, {}))] == names[:1]
    for one in names:
        assert [output.name for output in catalog.wanted(catalog.build(name, {}, request.read([one])))] == [one]
    reverse = catalog.wanted(catalog.build(name, {}, request.read(names[::-1])))
    assert [output.name for output in reverse] == names


@every_model
def test_default_pooling_has_something_to_pool(name):
    model = catalog.build(name, {})
    assert model.pooling == "none" or catalog.wanted(model)[0].poolable


@every_model
def test_the_framing_is_possible(name):
    framing = build(name).framing()
    assert isinstance(framing, (Windows, Stream, WholeFile))
    assert framing.memory_per_minute >= 0
    if isinstance(framing, WholeFile):
        assert framing.memory_per_minute > 0
        return
    if isinstance(framing, Stream):
        assert framing.block > 0 and framing.block % framing.frame_hop == 0 and framing.left >= 0
        return
    size, hop = framing.frame_length or framing.window, framing.frame_hop or framing.hop
    assert 0 < size <= framing.window and min(hop, framing.hop) > 0
    assert 0 <= framing.left < framing.window and 0 <= framing.right < framing.window
    assert {framing.pad_start, framing.pad_end} <= {"zero", "reflect"}
    assert framing.tail in ("drop", "pad", "keep", "every") and framing.short in ("zero", "repeat")
    frames = framing.frames(framing.window)
    # windows of many frames must continue each other without an overlap, or a gap that one more frame would fill
    assert frames == 1 or 0 <= framing.hop - frames * hop < size


@every_model
def test_the_framing_gives_the_frame_rate(name):
    model = build(name)
    framing = model.framing()
    if isinstance(framing, WholeFile):
        return
    if isinstance(framing, Stream):
        rate = model.sample_rate / framing.frame_hop
    else:
        rate = model.sample_rate * framing.frames(framing.window) / framing.hop
    for output in model.outputs():
        assert output.frame_rate == (pytest.approx(rate) if "time" in output.axes else None)


@every_model
def test_checkpoints_are_pinned_with_their_licence(name):
    found = build(name).checkpoints()
    assert len({c.file for c in found}) == len(found)
    for checkpoint in found:
        if checkpoint.kind == "pypi":
            assert HASH.match(checkpoint.sha256) and HASH.match(checkpoint.archive_sha256)
            assert checkpoint.revision in checkpoint.archive
        elif checkpoint.kind == "hub":
            assert checkpoint.name.count("/") == 1 and re.match(r"[0-9a-f]{40}\Z|main\Z", checkpoint.revision)
        else:
            assert checkpoint.kind == "url" and checkpoint.url.startswith("https://")
            assert checkpoint.sha256 or re.match(r"[0-9a-f]{40}\Z", checkpoint.git_blob)
        assert checkpoint.licence and checkpoint.name and checkpoint.file
        assert checkpoint.commercial == ("NC" not in checkpoint.licence)


@every_model
def test_describing_it_is_plain_and_holds_no_path(name):
    text = json.dumps(build(name).describe())
    assert "/" not in text


@every_model
def test_it_implements_the_interface_and_nothing_it_should_not(name):
    found = catalog.find(name)
    assert issubclass(found, Extractor)
    public = {n for n in vars(found) if not n.startswith("_")} - {f.name for f in dataclasses.fields(found)}
    methods = {n for n in public if inspect.isfunction(vars(found)[n])}
    assert methods <= {n for n in dir(Extractor) if not n.startswith("_")}
    assert {"outputs", "framing", "load", "extract"} <= methods
