"""EnCodec over whole files against transformers, live, and against the `encodec` package (data/encodec/README.md).

Both with the same seeded weights, under which latents are of the order of 1.
"""

import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from checkpoints import encodec as maker

from worker import catalog, request
from worker.work import extraction, store

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: run in the torch environment")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: run in the torch environment")
soxr = pytest.importorskip("soxr", reason="soxr is not installed: run in the torch environment")
safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

TESTS = pathlib.Path(__file__).parents[1]
DATA = TESTS / "parity" / "data" / "encodec"
CLOSE = {"rtol": 0, "atol": 1e-5}
ELSEWHERE = {"rtol": 1e-5, "atol": 1e-5}  # recorded: other instruction sets round differently; latents reach 5
KINDS = [("tiny", 24), ("full", 24), ("tiny", 48), ("full", 48)]
BANDWIDTHS = {24: (1.5, 3.0, 6.0, 12.0, 24.0), 48: (3.0, 6.0, 12.0, 24.0)}
STREAMS = {"tiny": (1, 320, 321, 2241, 5000, 48000, 120001, 250000), "full": (1, 321, 5000, 48000, 120001)}  # samples
CHUNKS = {"tiny": (1, 320, 321, 47520, 47521, 48000, 48960, 150000), "full": (1, 321, 48960, 100000)}
FILES = ("config.json", "model.safetensors")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of all checkpoints, by size and kHz."""
    root = tmp_path_factory.mktemp("encodec")
    return {(size, freq): maker.make(root / f"{size}_{freq}khz", size, freq=freq) for size, freq in KINDS}


@pytest.fixture(scope="module")
def upstream(folders):
    """Return transformers' models, by size and kHz."""
    return {kind: transformers.EncodecModel.from_pretrained(folder).eval() for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def music():
    """Return real audio `[C, T]` for each model; the second channel is another part of the first."""
    wave, rate = soundfile.read(TESTS / "audio" / "quickstart" / "music" / "hungarian_dance.flac", dtype="float32")
    mono, fine = soxr.resample(wave, rate, 24000), soxr.resample(wave, rate, 48000)
    return {24: mono[None], 48: np.stack([fine, 0.6 * np.roll(fine, 9000)])}


def load(folder, outputs=(), window=None, layout="per-item", **params):
    asked = request.read(outputs, window, layout)
    extractor = catalog.build("encodec", {"checkpoint": str(folder), **params}, asked)
    extractor.load("cpu", {name: str(folder / name) for name in FILES})
    return extractor


def extract(extractor, wave, batch_size=None):
    """Return the outputs, held against their declarations."""
    wave = np.array(wave)
    wave.flags.writeable = False  # as decoded audio is
    arrays, _ = extraction.extract(extractor, wave, batch_size, "", threading.Event())
    for output in catalog.wanted(extractor):
        store.check(output, arrays[output.name], False, True)
        assert arrays[output.name].dtype == output.dtype
    return arrays


def everything(freq):
    return ["latents", "codes"] + ["scale", "starts", "frames"] * (freq == 48)


def assert_same_codes(found, expected, latents, folder):
    """Codes are equal; a frame's may part only where two entries are equally near, within the rounding of latents.

    Between a file in one piece and in blocks, and between machines, sums of float32 are taken in another order.
    """
    codes = found["codes"]
    assert codes.shape == expected.shape
    frames = np.flatnonzero((codes != expected).any(0))
    assert len(frames) <= 0.01 * codes.shape[1]
    stored = safetensors.load_file(folder / "model.safetensors")
    books = [stored[f"quantizer.layers.{i}.codebook.embed"] for i in range(len(codes))]
    for t in frames:
        k = int(np.argmax(codes[:, t] != expected[:, t]))
        left = latents[:, t] - sum(books[i][codes[i, t]] for i in range(k))
        ours, theirs = (np.linalg.norm(left - books[k][names[k, t]]) for names in (codes, expected))
        assert abs(ours - theirs) < 1e-5, (k, t)


def run_upstream(model, wave, bandwidth):
    """Return latents and codes of every piece, and its scale, as transformers' `encode` makes them."""
    latents = []
    hook = model.encoder.register_forward_hook(lambda module, given, found: latents.append(found[0].numpy()))
    with torch.inference_mode():
        found = model.encode(torch.tensor(wave)[None], bandwidth=bandwidth)
    hook.remove()
    codes = [piece[0, :, : one.shape[1]].numpy() for piece, one in zip(found.audio_codes, latents, strict=True)]
    scales = [1.0 if scale is None else scale.item() for scale in found.audio_scales]
    return latents, np.concatenate(codes, 1), np.array(scales)


@pytest.mark.parametrize(("size", "length"), [(size, one) for size in STREAMS for one in STREAMS[size]])
def test_blocks_of_a_stream_are_the_whole_file(size, length, folders, upstream, music):
    wave = music[24][:, 20000 : 20000 + length]
    (latents,), codes, _ = run_upstream(upstream[size, 24], wave, 6.0)
    found = extract(load(folders[size, 24], everything(24)), wave)
    assert found["latents"].shape[1] == -(-length // 320)
    np.testing.assert_allclose(found["latents"], latents, **CLOSE)
    assert_same_codes(found, codes, found["latents"], folders[size, 24])


@pytest.mark.parametrize(("size", "length"), [(size, one) for size in CHUNKS for one in CHUNKS[size]])
def test_chunks_are_upstreams_with_the_short_tail_alone(size, length, folders, upstream, music):
    wave = music[48][:, 30000 : 30000 + length]
    latents, codes, scales = run_upstream(upstream[size, 48], wave, 6.0)
    found = extract(load(folders[size, 48], everything(48)), wave)
    assert len(found["latents"]) == len(latents) == -(-length // 47520)
    for ours, theirs, count in zip(found["latents"], latents, found["frames"], strict=True):
        assert count == theirs.shape[1]
        np.testing.assert_allclose(ours[:, :count], theirs, **CLOSE)
        assert not ours[:, count:].any()
    np.testing.assert_array_equal(found["codes"], codes)
    np.testing.assert_allclose(found["scale"], scales, rtol=1e-6)
    np.testing.assert_allclose(found["starts"], 0.99 * np.arange(len(latents)), rtol=1e-6)


@pytest.mark.parametrize(("kind", "bandwidth"), [(kind, one) for kind in KINDS for one in BANDWIDTHS[kind[1]]])
def test_codes_are_upstreams_at_every_bandwidth(kind, bandwidth, folders, upstream, music):
    wave = music[kind[1]][:, 60000:90000]
    _, codes, _ = run_upstream(upstream[kind], wave, bandwidth)
    found = extract(load(folders[kind], ["codes"], bandwidth=bandwidth), wave)
    np.testing.assert_array_equal(found["codes"], codes)
    assert "latents" not in found  # nobody has asked for them
    assert min(len(np.unique(row)) for row in codes) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_first_implementation(kind, folders):
    """Recorded outputs of the `encodec` package; the codes at any bandwidth are the first of those at the largest."""
    with np.load(DATA / "{}_{}khz.npz".format(*kind)) as arrays:
        expected = dict(arrays)
    speech, _ = soundfile.read(TESTS / "audio" / "quickstart" / "speech" / "austen.wav", dtype="float32")
    mono = np.concatenate([speech, speech[::-1], speech])
    wave = mono[None] if kind[1] == 24 else np.stack([mono, 0.5 * mono[::-1]])
    found = extract(load(folders[kind], everything(kind[1]), bandwidth=24.0), wave)
    latents = found["latents"]
    if kind[1] == 48:
        np.testing.assert_allclose(found["scale"], expected["scale"], rtol=1e-6)
        np.testing.assert_array_equal(found["frames"], expected["frames"])
        latents = np.concatenate([one[:, :count] for one, count in zip(latents, found["frames"], strict=True)], 1)
    np.testing.assert_allclose(latents[:, :: 1 if kind[0] == "tiny" else 5], expected["latents"], **ELSEWHERE)
    assert_same_codes(found, expected["codes"], latents, folders[kind])
    for bandwidth, count in zip(expected["bandwidths"], expected["counts"], strict=True):
        fewer = extract(load(folders[kind], ["codes"], bandwidth=float(bandwidth)), wave[:, :3200])["codes"]
        assert len(fewer) == count


def test_one_channel_is_given_to_both_of_the_48_khz_model(folders, music):
    stereo = np.repeat(music[48][:1, :100000], 2, 0)
    both = extract(load(folders["tiny", 48], everything(48)), stereo)
    extractor = load(folders["tiny", 48], everything(48), channels="mono")
    assert extractor.audio_channels == 1
    mixed = extract(extractor, stereo[:1])
    for name, values in both.items():
        np.testing.assert_array_equal(mixed[name], values)


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_bytes_do_not_depend_on_the_batch(size, folders, music):
    """A batch of seven also holds windows that only fill it."""
    wave = music[48][:, :100000]
    extractor = load(folders[size, 48], everything(48))
    alone = extract(extractor, wave, 1)
    for batch_size in (2, 7):
        for name, values in extract(extractor, wave, batch_size).items():
            assert values.tobytes() == alone[name].tobytes(), name


def test_a_gpu_would_batch_equal_lengths_with_the_same_numbers(folders, music):
    extractor = load(folders["tiny", 48], everything(48))
    alone = extract(extractor, music[48][:, :170000])
    extractor._codec._group = lambda lengths: [np.flatnonzero(lengths == n) for n in np.unique(lengths) if n]
    for name, values in extract(extractor, music[48][:, :170000], 7).items():
        np.testing.assert_allclose(values, alone[name], **CLOSE)


def test_silence_has_finite_latents(folders):
    for freq in (24, 48):
        wave = np.zeros((freq // 24, 70000), np.float32)
        extractor = load(folders["tiny", freq], everything(freq))
        arrays, _ = extraction.extract(extractor, wave, None, "", threading.Event())
        assert all(np.isfinite(values).all() for values in arrays.values())


MEASURE = """
import resource, sys, tempfile, threading
import numpy as np
from worker import catalog, request
from worker.work import extraction
folder, minutes = sys.argv[1], int(sys.argv[2])
extractor = catalog.build("encodec", {"checkpoint": folder}, request.read(["latents", "codes"]))
extractor.load("cpu", {name: folder + "/" + name for name in ("config.json", "model.safetensors")})
wave = np.tile(np.random.default_rng(0).standard_normal(24000 * 60).astype(np.float32), minutes)[None]
with tempfile.TemporaryDirectory() as scratch:
    arrays, _ = extraction.extract(extractor, wave, None, scratch, threading.Event())
print(arrays["latents"].shape[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(folders):
    peaks = []
    for minutes in (1, 10):
        command = [sys.executable, "-c", MEASURE, str(folders["tiny", 24]), str(minutes)]
        path = [str(TESTS.parent / "images"), str(TESTS.parent / "images" / "torch-cuda")]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=True,
            env={"PYTHONPATH": ":".join(path), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        frames, peak = map(int, done.stdout.split())
        assert frames == minutes * 60 * 75
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 300_000  # KB, the audio itself being 52 MB longer


def test_a_folder_with_the_names_of_earlier_versions_is_the_same(tmp_path, folders, music):
    folder = maker.make(tmp_path / "former_24khz")
    maker.use_former_names(folder)
    found = extract(load(folder), music[24][:, :60000])
    expected = extract(load(folders["tiny", 24]), music[24][:, :60000])
    np.testing.assert_array_equal(found["latents"], expected["latents"])


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("my_48khz", {}, "rename the folder so that 24khz is in its name"),
        ("my_24khz", {"target_bandwidths": [1.5, 3.0]}, "no bandwidth of 6.0 kbit/s; choose one of 1.5, 3.0"),
        ("my_24khz", {"model_type": "dac"}, "no configuration of EnCodec .its model_type is 'dac'."),
        ("my_24khz", {"upsampling_ratios": [8, 5, 4]}, "must make 320 samples a frame"),
        ("my_24khz", {"residual_kernel_size": 7, "num_residual_layers": 3}, "a frame depends on 2838 samples"),
        ("my_24khz", {"use_causal_conv": False}, "only .1, True, 'weight_norm', False, None. can be run"),
        ("my_24khz", {"num_lstm_layers": 2}, "has no tensor '13.lstm.weight_ih_l1'"),
        ("my_24khz", {"num_filters": 8}, "config.json belongs to another file"),
        ("my_24khz", {"hidden_size": [1]}, "no configuration of EnCodec"),
    ],
)
def test_what_a_folder_lacks_is_said_in_one_line(name, changes, words, tmp_path):
    folder = maker.make(tmp_path / name)
    maker.change_config(folder, **changes)
    with pytest.raises(ValueError, match=words) as error:
        load(folder, ["latents", "codes"])
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_said_in_one_line(tmp_path):
    folder = maker.make(tmp_path / "my_24khz")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(folder)
