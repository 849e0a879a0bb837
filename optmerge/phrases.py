"""How much, how long, how many and which, as people read it."""

from collections.abc import Sequence


def shown_bytes(count: float) -> str:
    """A size, in powers of 1000: `626.2 kB`, `2.3 MB`, `14.5 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def shown_seconds(seconds: float) -> str:
    """A span of time: `90 s`, `14 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def listed(names: Sequence[str], most: int | None = None) -> str:
    """Names in a sentence: `a, b and c`; of more than `most`, how many others there are."""
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(count: int, noun: str) -> str:
    """A number of things: `1 trial`, `2 trials`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
