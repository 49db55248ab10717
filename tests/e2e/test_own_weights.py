"""Weights of the user's own, in whichever file or folder people have them: the same numbers."""

import os
import shutil

import cached
import harness

CONVERT = """
import sys, torch, safetensors.torch
source, target = sys.argv[1:]
if target.endswith(".safetensors"):
    found = torch.load(source, map_location="cpu", weights_only=True)
    safetensors.torch.save_file({k: v.clone().contiguous() for k, v in found.items()}, target)
else:
    torch.save(safetensors.torch.load_file(source), target)
"""


def copy_converted(tmp_path, folder, old, new):
    """Return a copy of a folder in which the weights are in the other kind of file."""
    made = tmp_path / folder.name
    shutil.copytree(folder, made)
    (made / old).unlink()
    script = tmp_path / "convert.py"
    script.write_text(CONVERT)
    done = harness.consort("python", "torch-cuda", script, folder / old, made / new)
    assert done.returncode == 0, done.stderr
    return made


def test_a_checkpoint_is_found_by_its_folder_or_file_and_in_either_format(tmp_path, audio, output):
    tiny = cached.checkpoints()
    harness.write_wav(audio / "a.wav", seconds=1.5)
    mert = copy_converted(tmp_path, tiny / "mert_95m", "pytorch_model.bin", "model.safetensors")
    encodec = copy_converted(tmp_path, tiny / "encodec_24khz", "model.safetensors", "pytorch_model.bin")
    openl3, mae = "openl3_audio_mel256_music-v0_4_0.h5.gz", "mel256-ec-base_st.pt"
    pairs = {
        "mert": (tiny / "mert_95m", mert),
        "encodec": (tiny / "encodec_24khz", encodec),
        "encodecmae": (tiny / "encodecmae_base" / mae, tiny / "encodecmae_base"),
        "openl3": (tiny / "openl3" / openl3, tiny / "openl3"),
    }
    models = [
        {"name": f"{name}{number}", "extractor": name, "params": {"checkpoint": str(path)}}
        for name, pair in pairs.items()
        for number, path in enumerate(pair)
    ]
    models[2]["outputs"] = models[3]["outputs"] = ["latents", "codes"]
    job = harness.write_job(output, audio, *models)
    done = harness.consort("extract", job, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(r["model"], r["output"]): r["sha256"] for r in harness.manifest(output)}
    assert len(found) == 10
    for (model, name), sha in found.items():
        assert sha == found[model[:-1] + "0", name], model
    assert "0 of 1 items to do" in harness.consort("plan", job).stdout


def test_a_folder_with_several_files_is_refused_by_name(tmp_path, audio, output):
    harness.write_wav(audio / "a.wav")
    for name in ("one.pt", "two.pt"):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / name).write_bytes(os.urandom(8))
    model = {"name": "encodecmae", "params": {"checkpoint": str(tmp_path / "own")}}
    done = harness.consort("extract", harness.write_job(output, audio, model))
    assert done.returncode == 3 and "own is not a regular file" in done.stdout and "correct the path" in done.stdout
