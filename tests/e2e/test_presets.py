"""Every job in `config/` from end to end on real audio, with tiny random weights where a hub would be asked."""

import pathlib
import re
import shutil
import subprocess
import sys

import cached
import harness
import numpy as np
import pandas as pd
import pytest

import orchestrator

CONFIG = harness.REPOSITORY / "config"
AUDIO = harness.REPOSITORY / "tests" / "audio" / "quickstart"
BOOKS = {24: 13, 48: 6}  # codebooks of 64 entries that make 6 kbit/s; the published models have 8 and 4, of 1024


@pytest.fixture(scope="module")
def weights():
    """Return the folder of tiny checkpoints, by the names that `make.py` gives them."""
    return cached.checkpoints()


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Return a folder with two short songs, one of them with blanks in its name."""
    folder = tmp_path_factory.mktemp("audio_files")
    shutil.copy(AUDIO / "music" / "solo trumpet.ogg", folder / "Song Name.ogg")
    shutil.copy(AUDIO / "environment" / "dog.ogg", folder / "song1.ogg")
    return folder


def extract(preset, output, *flags, code=0, **settings):
    """Run a preset into `output`; `settings` are values of `--set`, with `__` for a dot."""
    changes = [f"--set={key.replace('__', '.')}={value}" for key, value in settings.items()]
    done = harness.consort("extract", CONFIG / preset, "--output", output, *flags, *changes, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_encodec_latents_of_the_synthetic_sine(weights, tmp_path):
    done = extract(
        "encodec-latents.yaml", tmp_path / "output", encodec_output__params__checkpoint=weights / "encodec_24khz"
    )
    assert "RANDOM WEIGHTS: encodec_output" in done.stdout
    folder = tmp_path / "output" / "encodec_output"
    assert sorted(p.name for p in folder.iterdir()) == [
        "synthetic_24khz_3.0s.wav",
        "synthetic_24khz_3.0s_frag0.txt",
    ]
    latent = np.loadtxt(folder / "synthetic_24khz_3.0s_frag0.txt", delimiter=",")
    assert latent.shape[1] == 5 * 75  # padded to the length that all fragments have


@pytest.mark.parametrize(("rate", "frames"), [("24", 75), ("48", 150)])
def test_encodec_latents_of_a_recording(weights, tmp_path, rate, frames):
    checkpoint = weights / f"encodec_{rate}khz"
    extract(
        "encodec-latents.yaml",
        tmp_path / "out",
        "--input", AUDIO / "music" / "hungarian_dance.flac",
        encodec_output__params__checkpoint=checkpoint,
        encodec_output__window__seconds=2,
    )  # fmt: skip
    files = sorted((tmp_path / "out" / "encodec_output").iterdir())
    seconds = harness.manifest(tmp_path / "out")[0]["duration"]
    assert [p.name for p in files] == [f"hungarian_dance_frag{n}.txt" for n in range(-int(-seconds // 2))]
    shapes = {np.loadtxt(path, delimiter=",").shape for path in files}
    assert len(shapes) == 1 and shapes.pop()[1] == 2 * frames
    row = files[0].read_text("ascii").splitlines()[0]
    assert all(f"{float(value):.9g}" == value for value in row.split(","))


def test_encodec_tokens_are_a_table_that_pandas_reads(weights, tmp_path):
    done = extract("encodec-tokens.yaml", tmp_path, tokenized__params__checkpoint=weights / "encodec_24khz")
    assert "table: " in done.stdout
    table = pd.read_csv(tmp_path / "tokenized_train_curated.csv")
    first = ["fname", "labels", "num_tokens", "token_shape", "num_chunks", "duration_sec", "token_0", "token_1"]
    assert list(table.columns[:8]) == first and len(table) == 7
    assert list(table["labels"][:3]) == ["Bark", "Crow", "Flute,Rain"]
    assert set(table["num_tokens"]) == {BOOKS[24] * 150} and set(table["token_shape"]) == {f"({BOOKS[24]}, 150)"}
    durations = table["duration_sec"]
    assert list(table["num_chunks"]) == [max(1, 1 + int(np.ceil((d - 2) / 1.8 - 1e-6))) for d in durations]
    assert table.filter(like="token_").drop(columns="token_shape").notna().all(axis=None)
    assert "total samples processed: 7" in (tmp_path / "tokenized_train_curated_summary.txt").read_text("utf-8")
    assert {"lossy", "random_weights"} <= set(harness.manifest(tmp_path)[0]["flags"])


def test_encodec_tokens_at_48_khz_are_chunked_as_the_model_does_it(weights, tmp_path):
    extract(
        "encodec-tokens.yaml", tmp_path, "--max_samples", 1, tokenized__params__checkpoint=weights / "encodec_48khz"
    )
    table = pd.read_csv(tmp_path / "tokenized_train_curated.csv")
    assert list(table["token_shape"]) == [f"({BOOKS[48]}, 303)"]


@pytest.fixture(scope="module")
def frames(weights, songs, tmp_path_factory):
    """Return what `openl3-crepe-madmom-mert.yaml` has written, and the settings that made its models tiny."""
    tiny = {
        "openl3__params__checkpoint": weights / "openl3" / "openl3_audio_mel256_music-v0_4_0.h5.gz",
        "openl3__params__hop_seconds": 0.5,
        "crepe__params__model_capacity": "tiny",
        "mert__params__checkpoint": weights / "mert_95m",
    }
    folder = tmp_path_factory.mktemp("preset") / "embeddings"
    extract("openl3-crepe-madmom-mert.yaml", folder, "--audio_dir", songs, **tiny)
    return folder, tiny


def test_openl3_crepe_madmom_and_mert_frame_by_frame(frames, songs):
    out, _ = frames
    shapes = {(path.parent.name, path.name): np.load(path).shape for path in out.glob("*/*.npy")}
    assert {name for _, name in shapes} == {"Song Name.npy", "song1.npy"} and len(shapes) == 8
    run = orchestrator.load(out)
    for (model, name), shape in shapes.items():
        seconds = run.record(model, name.replace("npy", "ogg"))["duration"]
        rate = {"openl3": 2, "crepe": 100, "madmom": 100, "mert": 75}[model]
        assert abs(shape[0] - seconds * rate) <= 1.5, (model, name)
    assert shapes["openl3", "song1.npy"][1:] == (512,) and shapes["crepe", "song1.npy"][1:] == (2,)
    assert shapes["madmom", "song1.npy"][1:] == ()
    again = extract("openl3-crepe-madmom-mert.yaml", out, "--audio_dir", songs, "--skip_existing")
    assert "0 of 2 items to do" in again.stdout + again.stderr


def test_encodecmae_mert_and_musicnn_as_one_vector(weights, songs, tmp_path):
    extract(
        "encodecmae-mert-musicnn.yaml",
        tmp_path / "embeddings",
        "--audio_dir", songs,
        encodecmae__params__checkpoint=weights / "encodecmae_base" / "mel256-ec-base_st.pt",
        mert__params__checkpoint=weights / "mert_95m",
    )  # fmt: skip
    loaded = {m: np.load(tmp_path / "embeddings" / m / "Song Name.npy") for m in ("encodecmae", "mert", "musicnn")}
    assert loaded["musicnn"].shape == (753,) and all(array.ndim == 1 for array in loaded.values())
    run = orchestrator.load(tmp_path / "embeddings")
    np.testing.assert_array_equal(run.combined("Song Name.ogg"), np.concatenate(list(loaded.values())))
    assert run.matrix("mert", "musicnn").values.shape == (2, len(loaded["mert"]) + 753)


OPENL3 = {
    "openl3__params__checkpoint": "openl3/openl3_audio_mel256_music-v0_4_0.h5.gz",
    "openl3__params__hop_seconds": 0.5,
}
MERT = {"mert__params__checkpoint": "mert_95m"}
TOKENS = {"tokenized__params__checkpoint": "encodec_24khz"}
LATENTS = {"encodec_output__params__checkpoint": "encodec_24khz"}
ENCODECMAE = {"encodecmae__params__checkpoint": "encodecmae_base/mel256-ec-base_st.pt"}
ALONE = [  # each model of each preset: what makes it tiny, the file of a clip, and how many axes the document gives it
    (
        "encodec-latents.yaml",
        {"encodec_output__params__checkpoint": "encodec_24khz"},
        "encodec_output/dog_frag0.txt",
        2,
    ),
    ("encodec-tokens.yaml", {"tokenized__params__checkpoint": "encodec_24khz"}, "tokenized/dog.npy", 2),
    ("openl3-crepe-madmom-mert.yaml", OPENL3, "openl3/dog.npy", 2),
    ("openl3-crepe-madmom-mert.yaml", {"crepe__params__model_capacity": "tiny"}, "crepe/dog.npy", 2),
    ("openl3-crepe-madmom-mert.yaml", {}, "madmom/dog.npy", 1),
    ("openl3-crepe-madmom-mert.yaml", MERT, "mert/dog.npy", 2),
    ("encodecmae-mert-musicnn.yaml", ENCODECMAE, "encodecmae/dog.npy", 1),
    ("encodecmae-mert-musicnn.yaml", MERT, "mert/dog.npy", 1),
    ("encodecmae-mert-musicnn.yaml", {}, "musicnn/dog.npy", 1),
]


NEUTRAL = [  # all flags that must not change an array
    *("--workers", 1, "--memory", "4GB", "--timeout_per_item", 300, "--licence_policy", "any", "--devices", "cpu"),
    *("--runtime", "venv", "--resume", "strict", "--limit", 1, "--retry_failed", "--offline", "--force", "--verbose"),
    "--yes",
]


@pytest.mark.parametrize(("preset", "tiny", "file", "axes"), ALONE)
def test_each_model_of_a_preset_alone_keeps_its_settings(weights, tmp_path, preset, tiny, file, axes):
    """`--models` chooses among the job's models: params, outputs, window, pooling, format and layout stay."""
    out, model = tmp_path / "out", file.partition("/")[0]
    settings = {key: weights / value if key.endswith("checkpoint") else value for key, value in tiny.items()}
    audio = ["--audio", AUDIO / "environment" / "dog.ogg"]
    if model == "tokenized":
        (tmp_path / "train.csv").write_text("fname,labels\ndog.ogg,Bark\n")
        audio = ["--audio", tmp_path / "train.csv", f"--set=audio_root={AUDIO / 'environment'}"]
    for state, flags in (("1 of 1 items to do", NEUTRAL), ("0 of 1 items to do", [])):
        done = extract(preset, out, "--models", model, *audio, *flags, **settings)
        assert state in done.stderr and "defaults" not in done.stderr
        folders = {path.name.partition(".")[0] for path in out.iterdir() if path.is_dir()} - {""}
        assert folders == {model}
        array = np.loadtxt(out / file, delimiter=",") if file.endswith("txt") else np.load(out / file)
        assert array.ndim == axes
    assert model != "tokenized" or len(pd.read_csv(out / "tokenized_train.csv")) == 1


OLD = [  # a flag of a model's own script, and the shape that it gives the clip's array
    ("encodec-latents.yaml", LATENTS, ["--window_sec", 2], "encodec_output/dog_frag0.txt", (16, 150)),
    ("encodec-tokens.yaml", TOKENS, ["--target_duration", 3], "tokenized/dog.npy", (13, 225)),
    ("encodec-tokens.yaml", TOKENS, ["--window_sec", 2], "tokenized/dog.npy", (13, 150)),
    ("openl3-crepe-madmom-mert.yaml", MERT, ["--models", "mert", "--full_sequence"], "mert/dog.npy", 2),
    ("encodecmae-mert-musicnn.yaml", MERT, ["--models", "mert", "--full_sequence"], "mert/dog.npy", 2),
]


@pytest.mark.parametrize(("preset", "tiny", "flags", "file", "shape"), OLD)
def test_a_flag_of_a_models_own_script_does_here_what_it_did_there(weights, tmp_path, preset, tiny, flags, file, shape):
    settings = {key: weights / value for key, value in tiny.items()}
    (tmp_path / "train.csv").write_text("fname,labels\ndog.ogg,Bark\n")
    table = ["--audio", tmp_path / "train.csv", f"--set=audio_root={AUDIO / 'environment'}"]
    audio = table if "tokens" in preset else ["--audio", AUDIO / "environment" / "dog.ogg"]
    for state in ("1 of 1 items to do", "0 of 1 items to do"):
        done = extract(preset, tmp_path / "out", *audio, *flags, **settings)
        assert state in done.stderr, done.stderr
    array = tmp_path / "out" / file
    found = np.loadtxt(array, delimiter=",") if file.endswith("txt") else np.load(array)
    assert shape in (found.shape, found.ndim)


def test_frames_stay_frames_when_one_model_is_run_again(frames, songs):
    """The whole preset first, then one of its models: nothing is computed again, and nothing is replaced."""
    (out, tiny), preset = frames, "openl3-crepe-madmom-mert.yaml"
    before = harness.fingerprint(out)
    for model in ("openl3", "crepe", "madmom", "mert"):
        mine = {key: value for key, value in tiny.items() if key.startswith(model)}
        again = extract(preset, out, "--audio_dir", songs, "--models", model, **mine)
        assert "0 of 2 items to do" in again.stderr
    assert harness.fingerprint(out) == before
    assert np.load(out / "mert" / "song1.npy").ndim == 2


def test_a_model_that_the_job_does_not_have_is_taken_with_its_defaults_and_that_is_said(tmp_path):
    done = extract("quickstart.yaml", tmp_path / "out", "--models", "prosody", "--limit", 1)
    assert "--models" not in done.stderr
    job = tmp_path / "job.yaml"
    job.write_text(f"audio: {AUDIO / 'environment'}\noutput: out\nmodels: [{{name: pitch, extractor: prosody}}]\n")
    done = harness.consort("extract", job, "--models", "prosody", "--limit", 1)
    assert done.returncode == 0, done.stderr
    assert f"--models: {job} has no prosody; it is taken with its defaults" in done.stderr
    assert harness.written(tmp_path / "out") >= {("prosody", "dog.ogg")}


def test_everything_at_once(weights, songs, tmp_path):
    extract(
        "all.yaml",
        tmp_path / "all",
        "--audio", songs / "song1.ogg",
        encodec__params__checkpoint=weights / "encodec_24khz",
        encodec_48khz__params__checkpoint=weights / "encodec_48khz",
        encodec_fragments__params__checkpoint=weights / "encodec_24khz",
        mert__params__checkpoint=weights / "mert_95m",
        encodecmae__params__checkpoint=weights / "encodecmae_base" / "mel256-ec-base_st.pt",
        openl3__params__checkpoint=weights / "openl3" / "openl3_audio_mel256_music-v0_4_0.h5.gz",
        crepe__params__model_capacity="tiny",
    )  # fmt: skip
    run = orchestrator.load(tmp_path / "all")
    assert set(run.models) == {"encodec_48khz", "encodec_fragments", *_names_of_models()}
    codes, latents = run.array("encodec", "song1.ogg", "codes"), run.array("encodec", "song1.ogg")
    assert codes.dtype == np.int16 and codes.shape == (BOOKS[24], latents.shape[1])


def _names_of_models():
    return {path.stem for path in (harness.REPOSITORY / "images/worker/extractors").glob("[a-z]*.py")}


def test_all_yaml_names_every_parameter_of_every_model():
    from worker import catalog, schema

    text = (CONFIG / "all.yaml").read_text("utf-8")
    for name in catalog.names():
        assert re.search(rf"^  - name: {name}$", text, re.MULTILINE), name
        for parameter in schema.dump(catalog.build(name, {})):
            assert re.search(rf"\b{parameter}:", text), f"{name}.{parameter}"


def test_extract_encodec_is_an_importable_function_of_its_environment(weights, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from torch_models.encodec import extract_encodec\n"
        "for path, shape in extract_encodec(sys.argv[1], freq=24, output_dir=sys.argv[2], window_sec=2.0,\n"
        "                                   verbose=True, checkpoint=sys.argv[3]):\n"
        "    print('Saved:', path, '| shape =', shape)\n",
        "utf-8",
    )
    sound, folder = AUDIO / "music" / "hungarian_dance.flac", tmp_path / "latents"
    done = harness.consort("python", "torch-cuda", script, sound, folder, weights / "encodec_24khz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"hungarian_dance_frag0.txt \| latent=\(16, 150\) \| [\d.]+ KB", done.stdout)
    assert np.loadtxt(folder / "hungarian_dance_frag0.txt", delimiter=",").shape == (16, 150)


def test_the_maker_of_checkpoints_says_what_it_can_make():
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "python", "tf-cuda", str(cached.MAKER), "x", "mert_95m"],
        cwd=harness.REPOSITORY, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 2 and "this environment makes openl3, musicnn_big" in done.stderr
    assert not pathlib.Path("x").exists()
