"""madmom: how likely a beat, and a downbeat, is at every hundredth of a second; the beats, and a summary of them."""

import dataclasses
import typing as tp

import numpy as np

from worker.extractor import Arrays, Batch, Checkpoint, Extractor, Output, WholeFile, choice
from worker.networks.beat_features import BeatFeatures
from worker.networks.beat_tracking import FRAME_RATE, find_beats
from worker.networks.madmom_models import read_network
from worker.networks.peephole_lstm import Ensemble
from worker.networks.summaries import BEATS, BEATS_SIZE, summarize_beats

_ARCHIVE = "madmom-0.16.1.tar.gz"
_ARCHIVE_SHA256 = "64a86a29106e7c4e0c5f4ec96801c2d1a8492db710e4fe27e097da5517d68cb2"

_BANDS = {"beats": (6, 6, 6), "downbeats": (3, 6, 12)}  # filters per octave of each frame size

_OF = {"beats": ("beats",), "downbeats": ("downbeats", "beat_times", "summary")}  # outputs that are made of each

_FOLDERS = {"beats": "beats/2015/beats_blstm", "downbeats": "downbeats/2016/downbeats_blstm"}

_SHA256 = {
    "beats": (
        "bd6545fe694264491ee95e03508d318d164b7f2abac1f48edd0121389506bf5f",
        "89ab1defb1b34712bdd0c9f84a756178e809612720733ed7b3a5cc47420689d7",
        "4a3f63f1fe361a354cb5f646349522b87482f29baadacf2d20441d5c52c5282a",
        "4a4469fc00dc4c90b028866a9d268fd19429c6a3f298c70838571e90db248f18",
        "017fd2e6808f43b9cddb61ac115c8d899f6fcdd3801338c6f76b1b30c3c3dbfd",
        "055e8c8715ce4e71e9855e348ff1816fb7630a4d10117d8e4c11684770d64240",
        "35ba5622e6c8f6c24b7efee1dbb31a78468b3106a7e4a8e3bfa2761f326b51dc",
        "fc25b6890baaeecd2304e18078ee1ce6a0014a69fdba95590a4ebee6cd847f64",
    ),
    "downbeats": (
        "b02c4b8aa963069449422fd5cc55bd4077105fe268b0d83036b7d68b5520f38d",
        "6fa9d138ed84bed14ab5ef6f81f3a7e1a125ff8c571a255f6ce91ccf93390eee",
        "adf6a3e3bf345a9172e8252a511dae28622afe26ee653354c0d4c9e37de8f89a",
        "a4f9a09b1588ca74b0157251364650d3fe81e383019b5986941415e08b37fcde",
        "e40aea9b8221babaf14a9211a48dccc3ebcecdf8bcd6d62d60f0949445de9bb6",
        "89b6854c5d6b2381687731aedc9bce6c84894021d1c2eeb60d161cefe997d68c",
        "371a319a66d32bee6ab8d4a15f6ae9e4ee22ff97b4276736bab93d9a994c06c1",
        "a0d20e1922872a3e5b74df451d8b5701de6ca88d9f5739f313fb2991d7a84c77",
    ),
}


@dataclasses.dataclass
class Madmom(Extractor):
    """Beat and downbeat activations of madmom's bidirectional LSTM networks, 100 per second, and the beats in them.

    Boeck, Schedl: Enhanced Beat Tracking with Context-Aware Neural Networks, DAFx 2011; Boeck, Krebs,
    Widmer: Joint Beat and Downbeat Tracking with Recurrent Neural Networks, ISMIR 2016. The weights are
    CC BY-NC-SA 4.0: not for commercial use. The beats are what the second paper's dynamic Bayesian network finds
    in the downbeat activations, with the constants of madmom's own tracker and bars of three or four beats.

    Upstream computes on 16-bit integers. Mono and stereo PCM of 16 bits at 44.1 kHz reaches its networks
    bit by bit as it does there; anything else is resampled or decoded by other means than upstream's and
    quantised by truncation, which differs from upstream's input by about one quantisation step and more
    where the resampler does. One sample is enough audio; silence gives small values, not zeros, and no beats.
    """

    environment = "tf-cuda"
    sample_rate = 44100
    seconds_per_minute = 1.0

    backend: str = choice("auto", "fast")

    def outputs(self) -> tp.Tuple[Output, ...]:
        """Return the two activations, whose frame t is centred on t / 100 s, and the beats."""
        beats = "probability of a beat, downbeat or not"
        downbeats = "probability of a beat that is no downbeat, and of a downbeat"
        times = "the beats: seconds; number in the bar, 1 for a downbeat"
        return (
            Output("beats", ("time",), (None,), beats, frame_rate=100.0),
            Output("downbeats", ("time", "feature"), (None, 2), downbeats, frame_rate=100.0),
            Output("beat_times", ("beat", "feature"), (None, 2), times, events=True),
            Output("summary", ("feature",), (BEATS_SIZE,), ", ".join(BEATS)),
        )

    def framing(self) -> WholeFile:
        """Return the whole item: both directions of the networks see all of it."""
        return WholeFile(memory_per_minute=36_000_000)

    def checkpoints(self) -> tp.Tuple[Checkpoint, ...]:
        licence = "CC BY-NC-SA 4.0"
        files = [
            (_file(o, number), sha256) for o in self._chosen() for number, sha256 in enumerate(_SHA256[o], start=1)
        ]
        return tuple(
            Checkpoint("pypi", "madmom", "0.16.1", *file, licence, _ARCHIVE, _ARCHIVE_SHA256, commercial=False)
            for file in files
        )

    def describe(self) -> tp.Dict[str, tp.Any]:
        """Return the backend: there is one, and it runs on the CPU whatever the device."""
        return {"backend": "fast"}

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        self._features = {output: BeatFeatures(_BANDS[output]) for output in self._chosen()}
        self._networks = {}
        for output in self._chosen():
            paths = [files[_file(output, number)] for number in range(1, 1 + len(_SHA256[output]))]
            self._networks[output] = Ensemble([read_network(path) for path in paths])

    def extract(self, batch: Batch) -> Arrays:
        """Return `beats` `[1, T]` and `downbeats` `[1, T, 2]` of one item, T = ceil(samples / 441)."""
        signal = quantize(batch.wave[0, 0, : int(batch.lengths[0])])
        frames = {}
        for output, networks in self._networks.items():
            activations = networks(self._features[output](signal))
            # The downbeat networks tell no beat, beat and downbeat apart; upstream drops the first.
            frames[output] = activations[None, :, 0] if output == "beats" else activations[None, :, 1:]
        return frames

    def finish(self, frames: Arrays) -> Arrays:
        """Return the activations, and "beat_times" [N, 2] and "summary" [6] where one of these is wanted."""
        if not self.request.wants("beat_times", "summary"):
            return frames
        beats = find_beats(frames["downbeats"])
        return {**frames, "beat_times": beats, "summary": summarize_beats(beats, frames["downbeats"], FRAME_RATE)}

    def _chosen(self) -> tp.List[str]:
        """Return the activations that are wanted, or that something wanted is made of."""
        return [name for name in _BANDS if self.request.wants(*_OF[name])]


def quantize(wave: np.ndarray) -> np.ndarray:
    """Return float audio `[N]` in -1 .. 1 as int16, truncated towards zero.

    Truncation, since that is how upstream turns the mean of two channels into an integer; a whole number
    of steps stays what it is either way.
    """
    steps: np.ndarray = wave * np.float32(32768)
    np.clip(steps, -32768, 32767, out=steps)
    return steps.astype(np.int16)


def _file(output: str, number: int) -> str:
    return "madmom-0.16.1/madmom/models/{}_{}.pkl".format(_FOLDERS[output], number)
