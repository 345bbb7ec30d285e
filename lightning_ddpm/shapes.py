"""Names for the arrays that pass between the parts, and the one broadcast helper.

Axes: ``b`` samples in the batch, ``c`` channels, ``*spatial`` the image axes (height, width).
``Factors`` broadcast over the images they belong to; a label of -1 is none. A network's ``Output``
has the images' channels, or twice as many with a learned variance.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "b c *spatial"]
Output = Float[Tensor, "b c_out *spatial"]
PerSample = Float[Tensor, " b"]
Factors = Float[Tensor, "b 1 *_"]
TimeSteps = Int[Tensor, " b"]
Labels = Int[Tensor, " b"]
Mask = Bool[Tensor, " b"]


def expand_like(values: PerSample, x: Images) -> Factors:
    """Append unit axes to ``values`` (b), so that it broadcasts over ``x`` (b, c, *spatial)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))
