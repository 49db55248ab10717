"""One declaration per model: the name of the file is the name of the model.
A model's parameters come in; its outputs, framing and checkpoints go out, and its arrays once it is loaded.
No framework is imported before `load`; files, shards and other models are not known here.
"""
