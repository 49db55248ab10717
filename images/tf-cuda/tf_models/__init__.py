"""Networks of the TensorFlow environment; imported by extractors inside `load`, never by the host."""
