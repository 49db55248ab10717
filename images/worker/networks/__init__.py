"""Numpy cores that extractors share: no framework, any Python from 3.7."""
