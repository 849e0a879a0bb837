"""How much and how long, as people read it."""


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
