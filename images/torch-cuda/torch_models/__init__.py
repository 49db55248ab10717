"""Models of the torch environment; imported by extractors inside `load`."""
