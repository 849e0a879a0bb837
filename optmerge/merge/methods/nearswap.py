"""NearSwap: entries of a source where it is near the base, and a step towards it elsewhere (alchemonaut, 2024).

https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001
"""

from torch import Tensor

from optmerge.merge.entries import elect_sign, keep_small, moved, where_positive
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import task_vectors
from optmerge.merge.sweep import Piece
from optmerge.method import Parameter, merge_method

T = Parameter(low=0.0, high=float("inf"), default=1e-4, search=(0.0, 1e-3), shared=True)


@merge_method(base="required", sources=(1, 1), t=T)
def nearswap(inputs: Inputs, *, t: float) -> Tensor:
    """`theta_base + clamp(theta - theta_base, -t, t)`: the source where it is within `t` of the base.

    That is the published `w theta + (1 - w) theta_base` with `w = min(1, t / |theta - theta_base|)`, without the
    division.
    """
    assert inputs.base is not None
    return inputs.copy(inputs.base) if t == 0 else inputs.sweep(_entries, t=[t])


def _entries(piece: Piece) -> Tensor:
    assert piece.base is not None
    (source,), (vector,), t = piece.sources, task_vectors(piece), piece.numbers["t"][0]
    far = (vector - keep_small(vector, t)).abs()
    step = piece.base + elect_sign(vector) * t
    # One of the two is 0 everywhere: near entries are the source's own, which base + vector would miss by rounding.
    near = source - (0.0 + where_positive(far, source))
    return moved(near, where_positive(far, step))
