"""What the six numbers of a frame are: a token means nothing without it.

A token model and the features that it is used on must agree in all of this, or every distance is wrong
without any sign of it. So each model carries the definition that it was fitted to, and `refuse_others`
compares.
"""

import dataclasses
import typing as tp

from prosody_toolkit import features


@dataclasses.dataclass(frozen=True)
class FeatureDefinition:
    """Names, order, ranges and analysis of the features; lengths are in samples at `sample_rate` Hz."""

    version: int  # of the extractor, raised when its numbers change
    names: tp.Tuple[str, ...]
    ranges: tp.Tuple[tp.Tuple[float, float], ...]  # what 0 and 1 stand for, in Hz and dB
    sample_rate: int
    frame_length: int
    hop_length: int
    emphasize_ratio: float
    smoothing_level: str
    normalized: bool

    def settings(self) -> features.Settings:
        """Return how the features are computed."""
        lengths = self.frame_length, self.hop_length
        return features.Settings(*lengths, self.emphasize_ratio, self.smoothing_level, self.normalized)


def today(settings: tp.Optional[features.Settings] = None) -> FeatureDefinition:
    """Return the definition of what `features.analyse` gives with `settings`; None takes the default ones."""
    said = dataclasses.asdict(settings or features.Settings())
    normalized = said.pop("output_normalize")
    analysis = features.VERSION, features.NAMES, features.RANGES, features.SAMPLE_RATE
    return FeatureDefinition(*analysis, normalized=normalized, **said)


def of_settings(settings: features.Settings) -> FeatureDefinition:
    """Return today's definition for settings, normalised whatever they say.

    Tokens are always made of normalised features; `output_normalize` only decides what is written.
    """
    return today(dataclasses.replace(settings, output_normalize=True))


def read(plain: tp.Any) -> FeatureDefinition:
    """Return the definition that a model names, in plain values.

    Raises:
        ValueError: it is damaged.
    """
    try:
        ranges = tuple((float(low), float(high)) for low, high in plain["ranges"])
        return FeatureDefinition(**{**plain, "names": tuple(plain["names"]), "ranges": ranges})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError("the definition of its features is damaged; fit the model again") from error


def refuse_others(fitted: tp.Optional[FeatureDefinition], given: FeatureDefinition, where: str) -> None:
    """Raise unless a model was fitted to just these features; one that says nothing of its own was not.

    Raises:
        ValueError: they differ; with `where` the model is, and the first difference.
    """
    if fitted is None:
        raise ValueError(
            f"{where}: does not say which features it was fitted to, and tokens of others mean nothing; "
            "fit a model of your own with `consort fit`"
        )
    for field in dataclasses.fields(fitted):
        theirs, ours = getattr(fitted, field.name), getattr(given, field.name)
        if theirs != ours:
            raise ValueError(
                f"{where}: fitted to features with {field.name} {theirs}, here it is {ours}; "
                "fit it again with `consort fit`, or set the parameter"
            )
