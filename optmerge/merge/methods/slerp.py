"""Spherical linear interpolation of two models (Shoemake, 1985)."""

from dataclasses import replace

from torch import Tensor

from optmerge.merge.inputs import Inputs
from optmerge.merge.sphere import combination, cosines, gram, slerp_coefficients
from optmerge.method import Parameter, merge_method

_COLLINEAR = 0.9995  # |cosine| above which a straight line is followed, as the field has it

T = Parameter(low=0.0, high=1.0, default=0.5, shared=True)


@merge_method(base="optional", sources=(1, 1), sources_without_base=(2, 2), t=T)
def slerp(inputs: Inputs, *, t: float) -> Tensor:
    """`(sin((1 - t) angle) theta_0 + sin(t angle) theta_1) / sin(angle)`.

    The base lies at `t = 0` and the source at `t = 1`; without a base the first source by alias lies at 0. Tensors
    that are almost parallel, or opposite, are interpolated in a straight line. One that is all zeros has no direction
    and counts as being at right angles to the other.
    """
    pair = inputs
    if inputs.base is not None:
        # The base is a point on the sphere here, not its centre. What is known of the sources alone is not of them.
        pair = replace(inputs, sources=[inputs.base, *inputs.sources], base=None, facts=None)
    if t in (0, 1):
        return inputs.copy(pair.sources[int(t)])
    cosine = cosines(inputs.once(("slerp", inputs.base is not None), lambda: gram(pair)))[0, 1]
    return combination(pair, slerp_coefficients(t, cosine, cosine.abs() > _COLLINEAR).tolist())
