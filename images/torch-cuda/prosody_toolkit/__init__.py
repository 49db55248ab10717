"""Prosody of speech: pitch, voice quality, vowel colour, loudness; tokens of them, and their sequences.

::

    features   six numbers per frame (`pitch`, `formants`, `spectrum`, `smoothing` are their parts)
    extraction the same for one recording, with `plots`
    vectors -> clustering -> sequences -> encoder    from features to tokens to embeddings
    fitting    trains token models and encoders

The names of the published procedure are importable from here.
"""

import importlib
import typing as tp

_HOMES = {
    "ProsodicFeatureExtractor": "extraction",
    "ArrayClass": "vectors",
    "ClusteringPipeline": "clustering",
    "ProsodicClusterSequences": "sequences",
    "ProsodicSequenceEncoder": "encoder",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> tp.Any:
    """Import a class on first use: features alone need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
