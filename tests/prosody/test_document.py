"""The steps of the published procedure, with its names and parameters, from audio to an embedding."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: run in the torch environment")

from prosody_toolkit import (  # noqa: E402
    ArrayClass,
    ClusteringPipeline,
    ProsodicClusterSequences,
    ProsodicFeatureExtractor,
    ProsodicSequenceEncoder,
)


def speak(path, low, seconds):
    """Write a glide of ten harmonics, which is voiced, with a pause."""
    t = np.arange(int(seconds * 22050)) / 22050
    phase = 2 * np.pi * np.cumsum(low * (1 + 0.3 * t / seconds)) / 22050
    voice = 0.1 * sum(np.cos(k * phase) / k for k in range(1, 11)) * (np.abs(t - seconds / 2) > 0.1)
    soundfile.write(path, voice.astype(np.float32), 22050)
    return str(path)


@pytest.mark.filterwarnings("ignore:no CUDA device")  # the document asks for a GPU, and has none here
def test_from_audio_to_an_embedding(tmp_path):
    audio_files = [speak(tmp_path / f"{n}.wav", 90 + 20 * n, 1.5) for n in range(5)]
    extractor = ProsodicFeatureExtractor(sample_rate=16000, frame_ms=50, hop_ms=16, output_normalize=True)
    feature_collection = ArrayClass(features_dim=6, init_capacity=10000)
    for audio_file in audio_files:
        extractor.load_audio(audio_file, loader="librosa")
        features = extractor.extract()
        feature_vectors = np.stack(
            [
                features["f0"], features["f0_width"], features["f1"],
                features["f2"], features["power"], features["snr"],
            ],
            axis=1,
        )  # fmt: skip
        feature_collection.add_batch(torch.from_numpy(feature_vectors))
    feature_collection.finalize()

    clustering = ClusteringPipeline(n_clusters=120, input_features_dim=6)
    clustering.train(
        features_collation=feature_collection,
        clustering_model_dir=str(tmp_path / "models"),
        reduced_dims=None,
        max_iter=1000,
    )
    assert clustering.clustering_quality_analysis(feature_collection)["used"] == 120

    cluster_extractor = ProsodicClusterSequences(
        prosodic_cluster_model_dir=str(tmp_path / "models"), max_duration=30, device="cpu"
    )
    samples, sr = soundfile.read(audio_files[0], dtype="float32", always_2d=True)
    audio_signal = cluster_extractor.resample_waveform(torch.from_numpy(samples.T), sr)
    sequences = cluster_extractor.extract_cluster_sequences(audio_signal, return_distances=False)
    assert len(sequences[0]) == extractor.get_frames_count(audio_signal.shape[1])

    model = ProsodicSequenceEncoder(
        vocab_size=122, hidden_dim=768, num_layers=8, nhead=8, pos_max_len=2000, padding_token_id=-100
    )
    sequences_tensor = torch.tensor(sequences, dtype=torch.long)
    model.train()
    logits, hidden_states, target_mask, original_tokens = model(sequences_tensor, training=True)
    frames = len(sequences[0])
    assert logits.shape == (1, frames, 122) and hidden_states.shape == (1, frames, 768)
    assert target_mask.any() and original_tokens.tolist() == sequences
    model.eval()
    with torch.no_grad():
        embeddings = model(sequences_tensor, training=False)
    assert embeddings.shape == (1, 768)
