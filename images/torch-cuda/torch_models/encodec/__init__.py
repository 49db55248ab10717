"""EnCodec's encoder, which needs nothing but torch.

`layout` reads the hub's folder, `encoder` is the network, `codec` takes and gives arrays and holds the codebooks,
`joining` makes one item of many windows. `extract_encodec` is for scripts.
"""

from torch_models.encodec.fragments import extract_encodec

__all__ = ["extract_encodec"]
