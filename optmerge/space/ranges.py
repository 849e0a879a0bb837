"""Where a value is searched, or what it is fixed at."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from optmerge.errors import UsageError
from optmerge.method import Method


@dataclass(frozen=True)
class Range:
    """Where a value is searched; what is None is as it would be otherwise.

    Attributes:
        low: Least value.
        high: Greatest value.
        initial: Where the search starts; the middle by default.
        sigma: First step size in units of the range; for samplers that know one a gene.
        value: A fixed value instead: there is no gene.
        tied: Whether all sources have one value together.
    """

    low: float | None = None
    high: float | None = None
    initial: float | None = None
    sigma: float | None = None
    value: float | None = None
    tied: bool = False

    def updated(self, given: "Range") -> "Range":
        """This range with what another says differently. Limits without a value make a fixed one searched again."""
        new = {field.name: getattr(given, field.name) for field in fields(given)}
        told = {name: value for name, value in new.items() if value is not None and name != "tied"}
        if given.low is not None or given.high is not None:
            told.setdefault("value", None)
        return replace(self, **told, tied=self.tied or given.tied)

    def is_searched(self) -> bool:
        return self.value is None and self.low is not None

    def check(self, name: str, methods: Sequence[Method], where: str) -> None:
        """Refuse what does not suit the methods that have this parameter.

        Raises:
            UsageError: Naming the setting.
        """
        for value in (self.low, self.high, self.initial, self.value):
            if value is not None:
                for method in methods:
                    method.check_value(name, value, where)
        if self.sigma is not None and not 0 < self.sigma <= 1:
            raise UsageError(f"{where}: sigma must be in (0, 1], in units of the range, got {self.sigma:g}")
        if self.value is not None:
            return
        if self.low is None or self.high is None:
            if self.low is not None or self.high is not None:
                raise UsageError(f"{where}: {name} has no range of its own: give both low and high, or a value")
            return
        if self.low >= self.high:
            raise UsageError(f"{where}: low ({self.low:g}) must be less than high ({self.high:g})")
        if self.initial is not None and not self.low <= self.initial <= self.high:
            raise UsageError(f"{where}: initial ({self.initial:g}) is outside [{self.low:g}, {self.high:g}]")
