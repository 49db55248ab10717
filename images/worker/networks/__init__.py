"""Waves, features and files of weights come in; numpy is all that is there, on any Python from 3.7.
What extractors share of computing goes out: transforms, layers, decoders and readers of checkpoints.
Jobs, items and how audio is cut are not known here.
"""
