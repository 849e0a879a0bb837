"""The normal deviates of a generation's members, spread more evenly than chance spreads them.

Members come in pairs of mirror images, z and -z, and the directions of the pairs are orthogonal to each other, as many
as there are dimensions for. Each member by itself is still normally distributed, but the generation as a whole looks
around on all sides (Wang, Emmerich and Bäck, 2019, "Mirrored orthogonal sampling for covariance matrix adaptation
evolution strategies"). Of an odd number of members the last is alone, as is the partner of a genome that was given.
"""

import numpy as np
from numpy.typing import NDArray

from optmerge.study.slots import Slot

Floats = NDArray[np.float64]

_STREAM = 1  # sets these random numbers apart from those that a slot has for itself


def deviates(seed: int, slot: Slot, dimensions: int) -> Floats:
    """The normal deviates of a slot's genome.

    Args:
        seed: The study's seed.
        slot: The slot.
        dimensions: How many numbers are searched.

    Returns:
        Shape (dimensions,). Whoever asks computes the same.
    """
    if not dimensions:
        return np.zeros(0)
    pair, mirrored = divmod(slot.member, 2)
    first = pair - pair % dimensions  # of those that it is to be orthogonal to
    drawn = np.array(
        [
            np.random.default_rng([seed, slot.generation, other, _STREAM]).standard_normal(dimensions)
            for other in range(first, pair + 1)
        ]
    )
    axes, triangle = np.linalg.qr(drawn.T)
    toward = axes[:, -1] * np.sign(triangle[-1, -1])  # what is its own of the last one's direction
    z: Floats = toward * np.linalg.norm(drawn[-1])
    return -z if mirrored else z


def selection_mass(mass: float, population: int) -> float:
    """What a weighted mean of such members is worth.

    If their order were chance, the mean of so many independent members with weights w would have the variance
    `1 / mass = sum(w^2)`. Where each has a mirror image among the others, the two cancel in part, and the variance is
    `sum(w^2) - p (1 - sum(w^2))`, p the probability that two members are a pair. Step sizes are learnt from how long
    the steps of the mean are against those of chance: without this, they would shrink when nothing is selected
    (Auger, Brockhoff and Hansen, 2011, "Mirrored sampling in evolution strategies with weighted recombination").

    Args:
        mass: `1 / sum(w^2)` of the weights, which add up to one.
        population: Members of a generation.
    """
    return 1 / (1 / mass - paired(population) * (1 - 1 / mass))


def paired(population: int) -> float:
    """The probability that two members of a generation are a pair."""
    return 2 * (population // 2) / (population * (population - 1)) if population > 1 else 0.0
