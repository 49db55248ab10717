"""EnCodecMAE: a transformer over log mel spectrograms, trained to predict the codes of EnCodec behind a mask.

`network.load` reads a checkpoint; `log_mel` is what the network hears, `checkpoint` what stands in the file.
"""
