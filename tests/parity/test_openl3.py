"""OpenL3 against recorded outputs of openl3 0.4.2; `data/openl3/README.md` says how they were made."""

import gzip
import pathlib
import threading

import numpy as np
import pytest
from checkpoints import openl3 as maker

from worker import catalog, request
from worker.audio import decode as audio
from worker.work import extraction

HERE = pathlib.Path(__file__).parent
CLIPS = HERE.parent / "audio" / "quickstart"
REFERENCE = np.load(HERE / "data" / "openl3" / "reference.npz")
VARIANTS = {("mel256", "music"): 0, ("mel128", "env"): 1, ("linear", "music"): 2}  # seed of each one's weights
KEPT = slice(None, None, 48)  # of the 6144 features

every_variant = pytest.mark.parametrize(("input_repr", "content"), VARIANTS, ids="_".join)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return the clips as upstream was given them, float32 `[1, T]` at 48 kHz."""

    def decode(name, samples=None):
        with audio.decode(str(CLIPS / name), [(48000, 1)], str(tmp_path_factory.mktemp("scratch"))) as source:
            return np.array(source.wave(48000, 1)[:, :samples])

    return {"voice": decode("speech/common_voice.mp3"), "dance": decode("music/hungarian_dance.flac", 96000)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the path of the weights of each variant."""
    folder = tmp_path_factory.mktemp("openl3")
    return {v: maker.make(folder / str(seed), "full", seed, *v) for v, seed in VARIANTS.items()}


def load(path, outputs=("embedding",), **params):
    """Return a loaded extractor with weights of our own."""
    model = catalog.build("openl3", {"checkpoint": str(path), **params}, request.read(outputs))
    model.load("cpu", {str(path): str(path)})
    return model


def run(model, wave, batch_size=None, scratch="."):
    arrays, _ = extraction.extract(model, wave, batch_size, scratch, threading.Event())
    return arrays


def cosine(found, expected):
    """Return the cosine of each pair of rows."""
    return (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


@every_variant
@pytest.mark.parametrize("clip", ["voice", "dance"])
def test_both_sizes_are_upstreams(clip, input_repr, content, clips, files):
    model = load(files[input_repr, content], ["embedding", "embedding_6144"], input_repr=input_repr)
    found = run(model, clips[clip])
    key = f"{clip}/{input_repr}_{content}"
    for size, values in ((512, found["embedding"]), (6144, found["embedding_6144"][:, KEPT])):
        expected = REFERENCE[f"{key}/{size}/centre"]
        assert values.shape == expected.shape and values.dtype == np.float32
        assert cosine(values, expected).min() >= 0.99999
        # random weights give frames that resemble each other: what tells them apart must agree as well
        middle = expected.mean(axis=0)
        assert cosine(values - middle, expected - middle).min() >= 0.9995


@every_variant
def test_windows_that_are_not_centred_are_upstreams(input_repr, content, clips, files):
    model = load(files[input_repr, content], input_repr=input_repr, center=False, hop_seconds=0.5)
    expected = REFERENCE[f"voice/{input_repr}_{content}/512/plain"]
    assert cosine(run(model, clips["voice"])["embedding"], expected).min() >= 0.99999


@pytest.mark.parametrize(("way", "params"), [("centre", {}), ("plain", {"center": False, "hop_seconds": 0.5})])
def test_times_are_those_of_upstream_or_the_centres_of_its_windows(way, params, files):
    (output, _) = load(files["mel256", "music"], **params).outputs()
    upstream = REFERENCE[f"dance/mel256_music/512/{way}/times"]
    # upstream says where a window begins when it does not centre, a record says where its middle is
    ours = output.start + np.arange(len(upstream)) / output.frame_rate - (0.5 if way == "plain" else 0.0)
    np.testing.assert_allclose(ours, upstream, atol=1e-9)


def test_the_sizes_are_one_computation(clips, files):
    wave = clips["dance"][:, :30000]
    small = run(load(files["mel256", "music"], ["embedding", "embedding_6144"]), wave)
    large = run(load(files["mel256", "music"], ["embedding", "embedding_512"], embedding_size=6144), wave)
    np.testing.assert_array_equal(small["embedding_6144"], large["embedding"])
    np.testing.assert_array_equal(small["embedding"], large["embedding_512"])
    np.testing.assert_array_equal(large["embedding"].reshape(-1, 12, 512).max(1), large["embedding_512"])


def test_a_window_depends_on_itself_alone(clips, files):
    model = load(files["mel256", "music"], hop_seconds=0.5)
    whole = run(model, clips["voice"], 1)["embedding"]
    for size in (2, 8):
        np.testing.assert_array_equal(run(model, clips["voice"], size)["embedding"], whole)
    alone = run(model, clips["voice"][:, 24000:72000])["embedding"]  # its second window is the fourth of the whole
    np.testing.assert_array_equal(alone[1], whole[2])


def test_a_packed_file_and_a_plain_one_give_the_same(clips, files, tmp_path):
    packed = files["mel256", "music"]
    plain = tmp_path / "plain.h5"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    wave = clips["dance"][:, :4800]
    first, second = (run(load(path), wave)["embedding"] for path in (packed, plain))
    np.testing.assert_array_equal(first, second)


def test_short_and_silent_audio_is_computed(files):
    model = load(files["mel256", "music"])
    assert run(model, np.zeros((1, 1), np.float32))["embedding"].shape == (1, 512)
    silence = run(model, np.zeros((1, 60000), np.float32))["embedding"]
    assert silence.shape == (1 + -(-(84000 - 48000) // 4800), 512) and (silence == silence[0]).all()


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x1f\x8b broken"])
def test_a_wrong_file_is_one_line(content, tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not an .h5 file of Keras weights") as raised:
        load(path)
    assert len(str(raised.value).splitlines()) == 1


def test_weights_of_another_network_are_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"dense/kernel:0"]
        group["dense/kernel:0"] = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="not the weights of an OpenL3 audio network: 0 convolutions"):
        load(tmp_path / "w.h5")
