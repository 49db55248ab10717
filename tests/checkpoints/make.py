"""Make checkpoints laid out as their hub lays them out, with seeded random weights and a PROVENANCE.json.

    consort python torch-cuda tests/checkpoints/make.py FOLDER --size tiny encodec_24khz mert_95m
    consort python tf-cuda tests/checkpoints/make.py FOLDER openl3

Each name becomes `FOLDER/<name>`; without names, all that this environment can make. The same seed gives the
same bits everywhere. Tests use `tiny` ones, benchmarks and parity `full` ones, of the published sizes.
"""

import argparse
import functools
import importlib.util
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from checkpoints import encodec, encodecmae, mert, musicnn, openl3

TORCH = {
    "encodec_24khz": functools.partial(encodec.make, freq=24),
    "encodec_48khz": functools.partial(encodec.make, freq=48),
    "mert_95m": functools.partial(mert.make, variant="95M"),
    "mert_330m": functools.partial(mert.make, variant="330M"),
    "encodecmae_base": functools.partial(encodecmae.make, variant="base"),
    "encodecmae_large": functools.partial(encodecmae.make, variant="large"),
}
KERAS = {"openl3": openl3.make, "musicnn_big": musicnn.make}


def main():
    """Parse, make, and print every folder."""
    here = TORCH if importlib.util.find_spec("torch") else KERAS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(here)}")
    parser.add_argument("--size", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_intermixed_args()
    unknown = sorted(set(options.names) - set(here))
    if unknown:
        parser.error(f"{', '.join(unknown)}: this environment makes {', '.join(here)}")
    for name in options.names or here:
        here[name](options.folder / name, size=options.size, seed=options.seed)
        print(options.folder / name)


if __name__ == "__main__":
    main()
