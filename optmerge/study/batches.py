"""In which order a trial answers problems: drawn anew for every generation, and as hard in one batch as in the next.

A fixed order would be overfitted: its first batch decides who is beaten, a thousand times. Within a generation all have
the same, so that those that are beaten early are compared on the same problems. Easy and hard problems are dealt to the
batches evenly, by how the sources did on them: the mean over a stratified batch says more of the whole than one over
problems drawn at random (Cochran, 1977, "Sampling techniques", chapter 5).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


def dealt(problems: Positions, ease: Floats | None, sizes: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
    """Batches of problems.

    Args:
        problems: Their positions.
        ease: A number a problem, of all problems, which is the higher the easier it is; None if nothing is known.
        sizes: How many problems each batch has; together all of them, and no two differ by more than one.
        rng: Decides between the equally easy.
    """
    shuffled = rng.permutation(problems)
    if ease is not None:
        shuffled = shuffled[np.argsort(ease[shuffled], kind="stable")]
    # Like cards: every batch gets one in a round, in another order each round; those with one more get it last.
    batches: list[list[int]] = [[] for _ in sizes]
    taken = 0
    while taken < len(shuffled):
        open_batches = [i for i, size in enumerate(sizes) if len(batches[i]) < size]
        for i in rng.permutation(open_batches)[: len(shuffled) - taken]:
            batches[i].append(int(shuffled[taken]))
            taken += 1
    return [rng.permutation(batch).tolist() for batch in batches]
