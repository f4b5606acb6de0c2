"""PyTorch's recurrent layers on the engine: ``accelerate`` replaces those of a model, tensors in, tensors out.

For inference only. PyTorch is needed (extra ``torch``), and imported by nothing else of the package.
"""

from ..extras import require

require(["torch"], "fastrnn.torch", "torch")

from .replacement import accelerate  # noqa: E402 - the message for a missing PyTorch comes first

__all__ = ["accelerate"]
