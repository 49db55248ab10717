"""Fitting as a process: requests, kills, resumes, what is written and what is refused."""

import json
import pathlib

import fits
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")

from prosody_toolkit import cluster_files, clustering, learning, storage  # noqa: E402
from prosody_toolkit.encoder import ProsodicSequenceEncoder  # noqa: E402


@pytest.fixture
def corpus(tmp_path):
    """Return a folder with a corpus and its clusters, and the request for an encoder."""
    return fits.make_corpus(tmp_path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".txt"])
def test_clusters_are_fitted_to_every_format_of_a_job(tmp_path, suffix):
    arrays = fits.make_features()
    files = fits.write_corpus(tmp_path / "corpus", arrays, suffix)
    code, events, errors = fits.fit(tmp_path, {"files": files, "n_clusters": fits.TOKENS}, "m")
    assert code == 0, errors
    facts = fits.outcome(events)
    assert all(event["kind"] == "progress" for event in events[:-2])
    assert facts["files"] == len(arrays) and facts["quality"]["vectors"] == sum(map(len, arrays.values()))
    assert facts["quality"]["explained"] > 0.9 and facts["quality"]["used"] == fits.TOKENS
    model = cluster_files.load(str(tmp_path / "m"))
    assert model.sha256 == facts["sha256"] and model.features.hop_length == 256
    said = json.loads((tmp_path / "m" / "PROVENANCE.json").read_text())
    assert said["clusters"]["made by"] == "consort fit" and said["clusters"]["quality"] == facts["quality"]


def test_features_in_hertz_are_normalised_first(tmp_path):
    from prosody_toolkit import features

    low, high = np.array(features.RANGES, np.float32).T
    plain = {item: values * (high - low) + low for item, values in fits.make_features().items()}
    files = fits.write_corpus(tmp_path / "corpus", plain)
    parameters = {**fits.PARAMETERS, "output_normalize": False}
    request = {"files": files, "n_clusters": fits.TOKENS, "parameters": parameters}
    assert fits.fit(tmp_path, request, "plain")[0] == 0
    fits.write_corpus(tmp_path / "corpus", fits.make_features())
    assert fits.fit(tmp_path, {"files": files, "n_clusters": fits.TOKENS}, "scaled")[0] == 0
    centres = [cluster_files.load(str(tmp_path / name)).centres for name in ("plain", "scaled")]
    torch.testing.assert_close(*centres, rtol=1e-3, atol=1e-3)


def test_an_encoder_learns_more_than_frequencies_and_leaves_its_curve(corpus):
    folder, request = corpus
    request["encoder"]["plan"].update(epochs=30, learning_rate=5e-3)
    code, events, errors = fits.run_encoder(folder, request)
    assert code == 0, errors
    facts = fits.outcome(events)
    assert facts["validation"]["accuracy"] > 2 * facts["unigram"]["accuracy"]
    assert facts["validation"]["loss"] < 0.8 * facts["unigram"]["loss"]
    rows = (folder / "encoder" / "curve.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,train_loss,validation_loss,validation_accuracy" and len(rows) == 31
    assert not (folder / "encoder" / learning.STATE).exists()
    shares = [event["share"] for event in events if event["kind"] == "progress"]
    assert shares == sorted(shares)
    model, said = ProsodicSequenceEncoder.load(str(folder / "encoder" / "encoder.pt"))
    assert said["clusters"] == cluster_files.load(str(folder / "clusters")).sha256
    assert model.vocab_size == fits.TOKENS + 2 and said["validation"] == facts["validation"]


def test_the_curve_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not in this build of the environment")
    from prosody_toolkit import fitting_encoder

    rows = [{"step": n, "epoch": n, "train_loss": 3 / n, "validation_loss": 4 / n, "validation_accuracy": n / 10}
            for n in range(1, 6)]  # fmt: skip
    fitting_encoder.plot_curve(rows, {"unigram": {"loss": 4.0, "accuracy": 0.1}}, str(tmp_path))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "curve.svg").read_bytes()


@pytest.mark.parametrize("kill_after", [1, 3])
def test_a_killed_training_goes_on_to_the_same_end(corpus, kill_after):
    folder, request = corpus
    code, events, errors = fits.run_encoder(folder, request, "undisturbed")
    assert code == 0, errors
    argv = fits.command(folder, request, "killed", "clusters")
    process = fits.start(argv)
    state = folder / "killed" / learning.STATE
    fits.wait_for(
        lambda: state.exists() and storage.read_tensors(str(state))["state"]["step"] >= 7 * kill_after, process
    )
    process.kill()
    fits.finish(process)
    stood = storage.read_tensors(str(state))["state"]
    assert not (folder / "killed" / "encoder.pt").exists()
    again, rest, errors = fits.finish(fits.start(argv))
    assert again == 0, errors
    steps = fits.outcome(events)["steps"]
    assert 0 < stood["step"] < steps
    steps_told = [int(e["message"].split()[1].rstrip(",")) for e in rest if e.get("message", "").startswith("step")]
    assert min(steps_told) > stood["step"]
    assert fits.outcome(rest) == fits.outcome(events)  # losses to the last bit
    for name in ("curve.csv", "encoder.pt"):
        assert (folder / "killed" / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()
    assert [path for path in (folder / "killed").iterdir() if path.name.endswith(".part")] == []


def test_the_host_going_away_ends_a_training_with_its_state(corpus):
    folder, request = corpus
    request["encoder"]["plan"].update(epochs=100000, checkpoint_seconds=1000.0)
    process = fits.start(fits.command(folder, request, "encoder", "clusters"))
    fits.wait_for(lambda: any("step" in event.get("message", "") for event in process.told()), process)
    process.stdin.close()
    assert fits.finish(process)[0] == 75
    assert storage.read_tensors(str(folder / "encoder" / learning.STATE))["state"]["step"] > 0


def test_a_finished_fit_is_not_repeated_but_other_settings_are_a_new_one(corpus):
    folder, request = corpus
    first = fits.outcome(fits.run_encoder(folder, request)[1])
    written = (folder / "encoder" / "encoder.pt").stat().st_mtime_ns
    code, events, _ = fits.run_encoder(folder, request)
    assert (
        code == 0
        and fits.outcome(events) == first
        and any(e["kind"] == "note" and "fitted already" in e["message"] for e in events)
    )
    assert (folder / "encoder" / "encoder.pt").stat().st_mtime_ns == written
    other = fits.outcome(fits.run_encoder(folder, {**request, "seed": 1})[1])
    assert other["final_train_loss"] != first["final_train_loss"]


def test_a_state_of_other_settings_is_not_gone_on_with(corpus):
    folder, request = corpus
    expected = fits.outcome(fits.run_encoder(folder, request, "undisturbed")[1])
    request["encoder"]["plan"]["epochs"] = 100000
    process = fits.start(fits.command(folder, request, "encoder", "clusters"))
    fits.wait_for((folder / "encoder" / learning.STATE).exists, process)
    process.kill()
    fits.finish(process)
    request["encoder"]["plan"]["epochs"] = 4
    assert fits.outcome(fits.run_encoder(folder, request)[1]) == expected


def test_stored_tokens_give_the_encoder_that_their_features_give(corpus):
    folder, request = corpus
    model = cluster_files.load(str(folder / "clusters"))

    tokens = {item: clustering.predict(model, values)[0] for item, values in fits.make_features().items()}
    expected = fits.outcome(fits.run_encoder(folder, request, "a")[1])
    request = {**request, "files": fits.write_corpus(folder / "corpus", tokens), "holds": "tokens"}
    assert fits.outcome(fits.run_encoder(folder, request, "b")[1]) == expected


def test_steps_end_a_training_instead_of_epochs(corpus):
    folder, request = corpus
    request["encoder"]["plan"].update(steps=5)
    facts = fits.outcome(fits.run_encoder(folder, request)[1])
    assert facts["steps"] == 5 and facts["epochs"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_clusters": 5000}, "too few for 5000 clusters"),
        ({"files": []}, "no vectors"),
        ({"reduced_dims": 7}, "has 1 to 6 components"),
        ({"colour": 1}, "request.colour: unknown key"),
        ({"parameters": {"hop": 1}}, "params.hop: unknown key"),
    ],
)
def test_a_request_that_cannot_be_is_one_line(tmp_path, change, words):
    request = {
        "files": fits.write_corpus(tmp_path / "corpus", fits.make_features()),
        "n_clusters": fits.TOKENS,
        **change,
    }
    code, events, errors = fits.fit(tmp_path, request, "m")
    assert code == 65 and words in events[-1]["message"] and "\n" not in events[-1]["message"], errors
    assert not (tmp_path / "m" / "kmeans_model.json").exists()


def test_paths_may_not_lead_out_of_the_corpus(tmp_path):
    files = fits.write_corpus(tmp_path / "corpus", fits.make_features(2))
    np.save(tmp_path / "secret.npy", np.zeros((9, 6), np.float32))
    (tmp_path / "corpus" / "link.npy").symlink_to(tmp_path / "secret.npy")
    for path in ("../secret.npy", str(tmp_path / "secret.npy"), "link.npy"):
        bad = [{**files[0], "path": path}]
        code, events, _ = fits.fit(tmp_path, {"files": bad, "n_clusters": 2}, "m")
        assert code == 65 and "leads out of the folder" in events[-1]["message"]


@pytest.mark.parametrize(
    "values", [np.zeros((3, 5), np.float32), np.zeros(9, np.float32), np.zeros((0, 6), np.float32)]
)
def test_arrays_that_are_no_features_are_named(tmp_path, values):
    files = fits.write_corpus(tmp_path / "corpus", {**fits.make_features(2), "odd.wav": values})
    code, events, _ = fits.fit(tmp_path, {"files": files, "n_clusters": 2}, "m")
    assert code == 65 and events[-1]["message"].startswith("odd.npy: ")


def test_missing_and_damaged_arrays_name_what_makes_them_anew(tmp_path):
    files = fits.write_corpus(tmp_path / "corpus", fits.make_features(3))
    for damage in (lambda path: path.write_bytes(b"junk"), pathlib.Path.unlink):
        damage(tmp_path / "corpus" / "01.npy")
        code, events, _ = fits.fit(tmp_path, {"files": files, "n_clusters": 2}, "m")
        assert code == 65 and "01.npy" in events[-1]["message"] and "consort extract" in events[-1]["message"]


def test_an_encoder_needs_the_tokens_that_it_is_told_of(corpus):
    folder, request = corpus
    code, events, _ = fits.fit(folder, request, "encoder")
    assert code == 65 and "--cluster-model" in events[-1]["message"]
    other = {**request, "parameters": {**fits.PARAMETERS, "hop_ms": 10.0}}
    code, events, _ = fits.run_encoder(folder, other)
    assert code == 65 and "hop_length 256, here it is 160" in events[-1]["message"]
    code, events, _ = fits.run_encoder(folder, {**request, "files": request["files"][:1]})
    assert code == 65 and "are the least" in events[-1]["message"]


def test_two_fits_do_not_share_a_folder(corpus):
    folder, request = corpus
    request["encoder"]["plan"]["epochs"] = 100000
    argv = fits.command(folder, request, "encoder", "clusters")
    process = fits.start(argv)
    fits.wait_for((folder / "encoder" / learning.STATE).exists, process)
    code, events, _ = fits.finish(fits.start(argv))
    process.kill()
    fits.finish(process)
    assert code == 74 and "another fit is writing here" in events[-1]["message"]
