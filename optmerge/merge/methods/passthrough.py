"""One source as it is, or scaled."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.inputs import Inputs
from optmerge.merge.methods.linear import weighted_sum
from optmerge.method import Parameter, merge_method

SCALE = Parameter(low=-float("inf"), high=float("inf"), default=1.0, search=(0.0, 2.0))


@merge_method(base="ignored", sources=(1, 1), scale=SCALE)
def passthrough(inputs: Inputs, *, scale: Sequence[float]) -> Tensor:
    """`scale * theta`; the source bit for bit at scale 1."""
    return inputs.copy(inputs.sources[0]) if scale[0] == 1 else inputs.sweep(weighted_sum, factor=scale)
