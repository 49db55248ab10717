"""One declaration per model: the name of the file is the name of the model."""
