"""Prosody of speech: pitch, voice quality, vowel colour, loudness.

`features.analyse` does it all; `pitch` (Boersma's autocorrelation), `formants` (linear prediction),
`spectrum` and `smoothing` are its parts.
"""
