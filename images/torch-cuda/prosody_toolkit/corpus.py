"""Arrays of a job on the disk, one file after the other: features or tokens of every item."""

import dataclasses
import os
import typing as tp

import numpy as np

from prosody_toolkit import clustering, features
from prosody_toolkit.cluster_files import ClusterModel
from prosody_toolkit.features import FeatureDefinition
from worker import formats
from worker.request import ArrayFile

_Say = tp.Callable[[int, int], None]  # gets how many files are read, and how many there are


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What `prosody` has written for many items: `features` `[T, 6]`, or `tokens` `[T]`; read when asked for."""

    root: str  # folder of the arrays
    files: tp.Sequence[ArrayFile]  # paths below it, in the order of reading
    settings: features.Settings  # of the `prosody` that made them
    say: _Say

    @property
    def features(self) -> FeatureDefinition:
        """What a token model is told of the vectors."""
        return features.define_normalized(self.settings)

    def vectors(self) -> tp.Iterator[np.ndarray]:
        """Yield normalised features float32 `[T, 6]`, file by file.

        Raises:
            ValueError: an array of another shape, or one that cannot be read.
        """
        dim = len(self.features.names)
        for file, values in self._read():
            if values.ndim != 2 or values.shape[1] != dim:
                raise ValueError(f"{file.path}: expected features [T, {dim}], got {list(values.shape)}")
            plain = values.astype(np.float32)
            yield plain if self.settings.output_normalize else features.normalize(plain)

    def tokens(self, count: int) -> tp.Iterator[np.ndarray]:
        """Yield stored tokens int64 `[T]` below `count`, file by file."""
        for file, values in self._read():
            if values.ndim != 1 or values.dtype.kind not in "iu" or not 0 <= values.min() <= values.max() < count:
                raise ValueError(f"{file.path}: expected tokens [T] from 0 to {count - 1}")
            yield values.astype(np.int64)

    def find_tokens(self, model: ClusterModel) -> tp.Iterator[np.ndarray]:
        """Yield the tokens int64 `[T]` of the features, file by file."""
        for vectors in self.vectors():
            yield clustering.predict(model, vectors)[0].astype(np.int64)

    def _read(self) -> tp.Iterator[tp.Tuple[ArrayFile, np.ndarray]]:
        base = os.path.realpath(self.root)
        for number, file in enumerate(self.files):
            path = os.path.realpath(os.path.join(base, file.path))
            if os.path.commonpath([path, base]) != base:
                raise ValueError(f"{file.path}: leads out of the folder of the arrays")
            try:
                values = formats.read(path, file.dtype, file.shape)
            except (OSError, ValueError, KeyError) as error:
                raise ValueError(f"{file.path}: cannot be read ({error}); run `consort extract` again") from error
            if not values.size:
                raise ValueError(f"{file.path}: is empty; run `consort extract` again")
            yield file, values
            self.say(number + 1, len(self.files))
