"""Networks of the Python 3.7 environment; imported by extractors inside `load`, never by the host."""
