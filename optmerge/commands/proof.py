"""Are rebuilt weights those that were scored? By hash; and where a GPU merged them, by how far apart they are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optmerge.errors import OptmergeError, UsageError
from optmerge.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from optmerge.models import Checkpoint


@dataclass
class Proof:
    """Compares a recipe's rebuilt tensors, as they come, with the model that was scored.

    Attributes:
        recipe: What is rebuilt.
        scored: The model that was scored, if it is still there.
        missing: Why it is not.
        entries: How many entries differ so far.
        total: How many there were.
        farthest: Most steps, from one number of the type to the next, that one is off.
        where: The tensor in which that is.
    """

    recipe: Recipe
    scored: "Checkpoint | None" = field(default=None, repr=False)
    missing: str = ""
    entries: int = 0
    total: int = 0
    farthest: int = 0
    where: str = ""

    @classmethod
    def of(cls, recipe: Recipe, folder: Path) -> "Proof":
        """Look for the scored model in the folder of its recipe."""
        from optmerge.models import Checkpoint, scan

        if recipe.weights_sha256 is None or not (folder / "config.json").is_file():
            return cls(recipe, missing="the model that was scored is not beside the recipe")
        try:
            found = Checkpoint.open(folder, "scored", kept=False)
        except UsageError as error:
            return cls(recipe, missing=f"the model beside the recipe cannot be read: {error}")
        if scan(found).weights_sha256 != recipe.weights_sha256:
            return cls(recipe, missing="the model beside the recipe is another one")
        return cls(recipe, found)

    def watch(self, tensors: "Iterator[tuple[str, Tensor]]") -> "Iterator[tuple[str, Tensor]]":
        """The same tensors, each compared on its way."""
        from optmerge.models.rounding import roundings_apart

        for name, tensor in tensors:
            if self.scored is not None:
                entries, farthest = roundings_apart(tensor, self.scored.tensor(name))
                self.entries += entries
                self.total += tensor.numel()
                if farthest > self.farthest:
                    self.farthest, self.where = farthest, name
            yield name, tensor

    def verdict(self, sha256: str) -> str:
        """What is proven, for people.

        Args:
            sha256: Hash of the rebuilt weights.

        Raises:
            OptmergeError: If they are not those that were scored: on a CPU bit for bit, or where another kind of device
                merged them, within one rounding of their type.
        """
        wanted, device = self.recipe.weights_sha256, self.recipe.merged_on or "cpu"
        if wanted is None:
            return "the recipe names no weights to compare with"
        if sha256 == wanted:
            return "the weights that were scored"
        steps = "one rounding" if self.farthest == 1 else f"up to {self.farthest} roundings"
        apart = f"{self.entries} of {self.total} entries are {steps} off (first so far off in {self.where})"
        if device != "cpu" and self.scored is not None and self.farthest <= 1:
            return f"the weights that were scored but for rounding, as they were merged on {device}: {apart}"
        known = f": {apart}" if self.scored is not None else f"; by how much cannot be said: {self.missing}"
        scored = f"those that were scored ({wanted[:12]})"
        raise OptmergeError(f"rebuilt weights {sha256[:12]} differ from {scored}, merged on {device}{known}")
