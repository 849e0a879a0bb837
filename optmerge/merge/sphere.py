"""Merging on a hypersphere: every result is a linear combination, whose coefficients follow from dot products alone.

A point on the sphere is written as its coefficients on the input tensors, so that no tensor is touched before the one
sweep that adds them up. All of it is float64; only the coefficients of that sweep are rounded.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from optmerge.merge.adding import added
from optmerge.merge.inputs import Inputs
from optmerge.merge.methods.linear import weighted_sum
from optmerge.merge.sparsify import task_vectors
from optmerge.merge.sweep import SUMMED, Piece

_DEVICE_TILE = 2**24


def gram(inputs: Inputs) -> Tensor:
    """Dot products of all pairs of sources, or of their task vectors where there is a base; [sources, sources]."""
    return torch.tensor(inputs.gram(of_task_vectors=inputs.base is not None), dtype=torch.float64)


def row_gram(inputs: Inputs, dim: int) -> Tensor:
    """The same for all vectors along one dimension of the tensors.

    Args:
        inputs: The sources, of two dimensions or more.
        dim: The dimension along which products are summed: the first (0) or the last (-1).

    Returns:
        [sources, sources, ...], then the tensors' shape with 1 in place of the dimension.
    """
    has_base = inputs.base is not None
    return inputs.once(("row gram", dim, has_base), lambda: _row_gram(inputs, dim))


def norms(products: Tensor) -> Tensor:
    """Lengths of the vectors that a Gram matrix is of; [sources, ...]."""
    return products.diagonal(dim1=0, dim2=1).movedim(-1, 0).sqrt()


def cosines(products: Tensor) -> Tensor:
    """Cosines of the angles between all pairs; a vector of zeros, which points nowhere, is at right angles to all."""
    length = norms(products)
    area = length.unsqueeze(0) * length.unsqueeze(1)
    return torch.where(area > 0, products / torch.where(area > 0, area, 1.0), 0.0).clamp(-1, 1)


def slerp_coefficients(t: float, cosine: Tensor, collinear: Tensor) -> Tensor:
    """`sin((1 - t) angle) / sin(angle)` and `sin(t angle) / sin(angle)`, or `1 - t` and `t` where collinear.

    Shoemake, "Animating rotation with quaternion curves" (1985).

    Args:
        t: How far along the arc.
        cosine: Of the angle between two vectors; any shape.
        collinear: Where the arc is not defined well enough, and a straight line takes its place.

    Returns:
        [2, ...], the coefficients of both vectors.
    """
    angle = torch.acos(torch.where(collinear, 0.0, cosine))
    arc = torch.stack([torch.sin((1 - t) * angle), torch.sin(t * angle)]) / torch.sin(angle)
    line = torch.stack([torch.full_like(cosine, 1 - t), torch.full_like(cosine, t)])
    return torch.where(collinear, line, arc)


def combination(inputs: Inputs, coefficients: Sequence[float]) -> Tensor:
    """`sum_k c_k theta_k`, or `theta_base + sum_k c_k (theta_k - theta_base)` where there is a base."""
    if inputs.base is None:
        return inputs.sweep(weighted_sum, factor=coefficients)
    return inputs.sweep(on_base, factor=coefficients)


def row_combination(inputs: Inputs, coefficients: Tensor) -> Tensor:
    """The same with coefficients of their own for every row or column.

    Args:
        inputs: The sources.
        coefficients: [sources, ...], where the rest broadcasts against the tensors.
    """
    factor = coefficients.to(torch.float32)
    if inputs.base is None:
        return inputs.sweep_rows(weighted_sum, factor=factor)
    return inputs.sweep_rows(on_base, factor=factor)


def on_base(piece: Piece) -> Tensor:
    """`theta_base + sum_k factor_k (theta_k - theta_base)`."""
    return added(piece, task_vectors(piece), elect=False)


def _row_gram(inputs: Inputs, dim: int) -> Tensor:
    shape, count = inputs.shape, len(inputs.sources)
    outer, size, inner = (1, shape[0], math.prod(shape[1:])) if dim == 0 else (math.prod(shape[:-1]), shape[-1], 1)
    tile = SUMMED if inputs.device.type == "cpu" else _DEVICE_TILE
    depth = max(1, min(size, tile // max(1, inner)))
    rows = max(1, tile // (depth * max(1, inner)))
    found = torch.zeros(count, count, outer, inner, dtype=torch.float64, device=inputs.device)
    sources = [source.reshape(outer, size, inner) for source in inputs.sources]
    base = None if inputs.base is None else inputs.base.reshape(outer, size, inner)
    for row in range(0, outer, rows):
        for top in range(0, size, depth):
            here = (slice(row, row + rows), slice(top, top + depth))
            vectors = [source[here].to(torch.float32) for source in sources]
            if base is not None:
                vectors = [vector - base[here].to(torch.float32) for vector in vectors]
            wide = [vector.double() for vector in vectors]
            for i in range(count):
                for j in range(i + 1):
                    found[i, j, here[0]] += (wide[i] * wide[j]).sum(1)
    for i in range(count):
        found[:i, i] = found[i, :i]
    left = (1, *shape[1:]) if dim == 0 else (*shape[:-1], 1)
    return found.reshape(count, count, *left)
