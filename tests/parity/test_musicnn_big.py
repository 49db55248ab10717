"""MSD_musicnn_big, whose published file is the user's own, against musicnn-keras 0.1.0 with seeded weights.

Runs in the environment legacy-py37. The reference is described in data/musicnn_big/README.md.
"""

import pathlib
import threading

import numpy as np
import pytest
from checkpoints import musicnn as maker

from worker import catalog, request
from worker.extractors.musicnn import Musicnn
from worker.work import contexts, extraction

tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is in the environment legacy-py37 only")
soundfile = pytest.importorskip("soundfile", reason="the reference audio is FLAC")
pytest.importorskip("h5py", reason="h5py comes with TensorFlow")
if not tensorflow.__version__.startswith("2.7."):
    pytest.skip("needs TensorFlow 2.7 of the environment legacy-py37", allow_module_level=True)

DATA = pathlib.Path(__file__).resolve().parent / "data"
SIZES = {"embedding": 2097, "taggram": 50, "max_pool": 2097, "penultimate": 500}
# A mel bin that rounds to the neighbouring float16 shows in the maximum first.
TOLERANCES = {"embedding": 5e-5, "taggram": 5e-6, "max_pool": 2e-3, "penultimate": 5e-5}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return maker.make(tmp_path_factory.mktemp("big"), "full")


@pytest.fixture(scope="module")
def extractor(path):
    extractor = Musicnn(checkpoint=str(path))
    (checkpoint,) = extractor.checkpoints()
    assert (checkpoint.kind, checkpoint.file) == ("file", str(path))
    extractor.load("cpu", {checkpoint.file: str(path)})
    return extractor


@pytest.fixture(scope="module")
def wave():
    """Return `[1, T]` at 16 kHz."""
    return soundfile.read(str(DATA / "musicnn" / "hungarian.flac"), dtype="float32")[0][None]


@pytest.fixture(scope="module")
def features(extractor, wave):
    return run(extractor, wave)[0]


def run(extractor, wave):
    """Return the outputs, and whether the audio was padded."""
    return extraction.extract(extractor, wave, None, "", threading.Event())


@pytest.mark.parametrize("name", sorted(SIZES))
def test_outputs_are_upstreams(features, name):
    with np.load(str(DATA / "musicnn_big" / "hungarian.npz")) as reference:
        expected = reference[name]
    assert expected.shape == features[name].shape == (8, SIZES[name])
    assert features[name].dtype == np.float32
    np.testing.assert_allclose(features[name], expected, rtol=0, atol=TOLERANCES[name])


@pytest.mark.parametrize(("samples", "patches"), [(1, 1), (47616, 1), (95487, 1), (95488, 2)])
def test_files_around_one_patch(extractor, features, wave, samples, patches):
    found, padded = run(extractor, wave[:, :samples])
    assert {name: array.shape for name, array in found.items()} == {n: (patches, size) for n, size in SIZES.items()}
    assert all(np.isfinite(array).all() for array in found.values())
    assert padded == (samples < 47616)
    if samples >= 95487:  # the first patch sees nothing that was cut away
        for name, array in found.items():
            np.testing.assert_array_equal(array[0], features[name][0], err_msg=name)


def test_an_output_alone_equals_the_same_among_all(path, features, wave):
    alone = catalog.build("musicnn", {"checkpoint": str(path)}, request.read(["penultimate"]))
    alone.load("cpu", {str(path): str(path)})
    found, _ = run(alone, wave)
    assert list(found) == ["penultimate"]
    np.testing.assert_array_equal(found["penultimate"], features["penultimate"])


def test_the_file_declares_what_it_gives(extractor):
    assert [output.name for output in extractor.outputs()] == list(SIZES)
    assert all(output.shape == (None, None) and output.poolable for output in extractor.outputs())


def test_random_weights_say_so(path):
    assert contexts.flags(contexts.read([str(path)])) == ("random_weights",)
