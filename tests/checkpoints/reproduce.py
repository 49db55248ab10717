"""Write a job of which all weights are there: `python tests/checkpoints/reproduce.py JOB FOLDER [AUDIO]`.

The published ones are taken where they are in the cache or can be fetched. Where they cannot, tiny ones of the same
layout with seeded random weights are made below FOLDER, and FOLDER/job.yaml names them; it is printed which are which.
"""

import pathlib
import shutil
import subprocess
import sys
import typing as tp

import yaml

CONSORT = (sys.executable, "-m", "orchestrator")
MAKER = pathlib.Path(__file__).with_name("make.py")
# Models whose weights come from hubs: environment, name among those of `make.py`, and the file of it that is named.
STAND_INS = {
    "encodec": ("torch-cuda", "encodec_24khz", ""),
    "mert": ("torch-cuda", "mert_95m", ""),
    "encodecmae": ("torch-cuda", "encodecmae_base", "mel256-ec-base_st.pt"),
    "openl3": ("tf-cuda", "openl3", "openl3_audio_mel256_music-v0_4_0.h5.gz"),
}


def main(job: pathlib.Path, folder: pathlib.Path, audio: tp.Optional[pathlib.Path] = None) -> None:
    """Write `folder`/job.yaml, and the weights that it needs; `audio` takes the place of the job's."""
    settings = yaml.safe_load(job.read_text("utf-8"))
    root = (job.parent / settings["root"]).resolve()
    models = [{"name": model} if isinstance(model, str) else model for model in settings["models"]]
    lacking = [model["name"] for model in models if model["name"] in STAND_INS and not _pull(model["name"])]
    weights = folder.resolve() / "weights"
    shutil.rmtree(weights, ignore_errors=True)  # of another state of the maker, perhaps
    _make(lacking, weights)
    for model in models:
        if model["name"] in lacking:
            _, name, file = STAND_INS[model["name"]]
            path = (weights / name / file).relative_to(root)  # which docker compose sees, as all that is below root
            model.setdefault("params", {})["checkpoint"] = f"./{path.as_posix()}"
    others = [model["name"] for model in models if model["name"] not in lacking]
    print(f"random weights, seeded and tiny: {', '.join(lacking) or 'none'}")
    print(f"weights as published, or none needed: {', '.join(others)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    changed = {"root": str(root), "models": models, **({"audio": str(audio.resolve())} if audio else {})}
    text = yaml.safe_dump({**settings, **changed}, sort_keys=False)
    (folder / "job.yaml").write_text(text, "utf-8")


def _pull(model: str) -> bool:
    """Return whether the published weights of a model are here now; the command says why not."""
    return subprocess.run([*CONSORT, "weights", "pull", model], check=False).returncode == 0


def _make(models: tp.Sequence[str], weights: pathlib.Path) -> None:
    wanted: tp.Dict[str, tp.List[str]] = {}
    for environment, name, _ in (STAND_INS[model] for model in models):
        wanted.setdefault(environment, []).append(name)
    for environment, names in wanted.items():
        maker = [*CONSORT, "python", environment, MAKER, weights, *names]
        subprocess.run([*map(str, maker)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
