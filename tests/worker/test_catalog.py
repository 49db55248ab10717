import sys
import textwrap

import pytest

from worker import catalog, request
from worker.errors import SchemaError, UnknownExtractor
from worker.extractor import WEIGHTS, Extractor, is_own
from worker.request import Request, WindowChoice

GOOD = """
import dataclasses
from worker import Extractor, Output, WholeFile, choice

@dataclasses.dataclass
class Tone(Extractor):
    environment = "legacy-py37"
    sample_rate = 8000
    level: float = 1.0
    mode: str = choice("a", "b")

    def outputs(self):
        names = ("sum", "peak") if self.mode == "a" else ("mean",)
        return tuple(Output(name, ("feature",), (1,), "") for name in names)

    def framing(self):
        return WholeFile(0)

    def load(self, device, files):
        pass

    def extract(self, batch):
        return {}

@dataclasses.dataclass
class Half(Extractor):
    level: float = 1.0

NUMBER = 3
"""
BARE = GOOD.replace("@dataclasses.dataclass\n", "")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a plugin and return its module's name, new for every test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    kept = set(sys.modules)

    def write(text):
        name = "plugin_{}".format(len(list(tmp_path.iterdir())))
        (tmp_path / (name + ".py")).write_text(textwrap.dedent(text))
        return name

    catalog.add_plugins([str(tmp_path)])
    yield write
    for name in set(sys.modules) - kept:
        if name.startswith("plugin_"):
            del sys.modules[name]


def test_every_file_is_a_model_by_its_name():
    assert {"crepe", "madmom", "musicnn", "prosody"} <= set(catalog.names())
    assert catalog.names() == sorted(catalog.names())
    for name in catalog.names():
        found = catalog.find(name)
        assert issubclass(found, Extractor)
        assert found.__module__ == "worker.extractors." + name


@pytest.mark.parametrize(
    "reference,words",
    [
        ("crep", "'crep': unknown model; did you mean crepe?; known models: crepe, "),
        ("", "'': unknown model; known models: "),
        ("crepe:", "'crepe:': unknown model; did you mean crepe?"),
        ("worker.extractors.crepe", "unknown model"),
        ("__init__", "unknown model"),
        ("../crepe", "unknown model"),
        ("no_such_file:Tone", "no_such_file:Tone: No module named 'no_such_file'"),
        (":Tone", ":Tone: Empty module name"),
        ("os:path", "os:path is not an Extractor"),
        ("os:nothing", "os:nothing: module 'os' has no attribute 'nothing'"),
    ],
)
def test_unknown_model_is_refused_with_the_known_ones(reference, words):
    with pytest.raises(UnknownExtractor) as caught:
        catalog.find(reference)
    assert words in str(caught.value)


def test_model_of_a_plugin_folder(plugin):
    found = catalog.find(plugin(GOOD) + ":Tone")
    assert found.__name__ == "Tone"
    assert catalog.build(found.__module__ + ":Tone", {"level": 2}).level == 2.0


@pytest.mark.parametrize(
    "text,name,words",
    [
        (GOOD, "Half", "is abstract, or lacks @dataclass"),
        (GOOD, "Extractor", "is abstract, or lacks @dataclass"),
        (BARE, "Tone", "is abstract, or lacks @dataclass"),
        (GOOD, "NUMBER", "is not an Extractor"),
        ("def broken(:", "Tone", "invalid syntax"),
        ("1 / 0", "Tone", "division by zero"),
        ("import no_such_module", "Tone", "No module named 'no_such_module'"),
    ],
)
def test_plugin_that_cannot_be_used_is_refused_in_one_way(plugin, text, name, words):
    reference = "{}:{}".format(plugin(text), name)
    with pytest.raises(UnknownExtractor, match=words) as caught:
        catalog.build(reference, {})
    assert str(caught.value).startswith(reference)


def test_plugin_folders_never_hide_installed_modules(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    catalog.add_plugins([str(tmp_path), str(tmp_path)])
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize(
    "params,outputs,words",
    [
        ({"levle": 1}, (), "models[1].params.levle: unknown key; did you mean level?; known keys: level, mode"),
        ({"sample_rate": 1}, (), "models[1].params.sample_rate: unknown key"),
        ({"level": "x"}, (), "models[1].params.level: expected a number, got 'x'"),
        ({"mode": "c"}, (), "models[1].params.mode: 'c' is not one of a, b"),
        ({}, ("pek",), "models[1].outputs: 'pek': unknown output; did you mean peak?; known outputs: sum, peak"),
        ({"mode": "b"}, ("sum",), "models[1].outputs: 'sum': unknown output; known outputs: mean"),
    ],
)
def test_wrong_parameters_and_outputs_are_refused(plugin, params, outputs, words):
    with pytest.raises(SchemaError) as caught:
        catalog.build(plugin(GOOD) + ":Tone", params, request.read(outputs), "models[1]")
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "outputs,names", [((), ["sum"]), (("peak",), ["peak"]), (("peak", "sum"), ["sum", "peak"]), (["sum"], ["sum"])]
)
def test_wanted_outputs_come_in_the_order_of_their_declaration(plugin, outputs, names):
    extractor = catalog.build(plugin(GOOD) + ":Tone", {}, request.read(outputs))
    assert extractor.request.outputs == frozenset(names)
    assert [output.name for output in catalog.wanted(extractor)] == names


def test_what_is_asked_is_asked_of_another_model_and_the_first_one_stays():
    model = catalog.build("encodec", {}, request.read(["codes"], {"seconds": 2}, "per-window", "cuda"))
    assert model.request == Request(frozenset(["codes"]), WindowChoice(2.0), "per-window", "cuda")
    every = model.asked(outputs=frozenset())
    assert (every.request.window, model.request.outputs) == (WindowChoice(2.0), {"codes"})
    assert [output.name for output in catalog.wanted(every)] == ["latents", "codes", "starts"]
    assert (every, type(every).request) == (model, Request())  # parameters are the same, and the class keeps its own


def test_frozen_models_can_be_asked_too(plugin):
    text = GOOD.replace("@dataclasses.dataclass", "@dataclasses.dataclass(frozen=True)")
    model = catalog.build(plugin(text) + ":Tone", {"mode": "b"}, request.read(["mean"], device="cuda"))
    assert (model.mode, model.request.device) == ("b", "cuda")


@pytest.mark.parametrize(
    "name,endings,own",
    [
        ("./mine", (), True),
        ("/a/mine", (), True),
        ("~/mine", (), True),
        ("mine.pt", (), False),
        ("mine.pt", WEIGHTS, True),
        ("mine.h5.gz", WEIGHTS, True),
        ("m-a-p/MERT-v1-95M", WEIGHTS, False),
    ],
)
def test_own_checkpoints_are_told_from_published_ones(name, endings, own):
    assert is_own(name, endings) == own
