"""Progress of work that is counted in bytes."""

from collections.abc import Callable

from optmerge.phrases import shown_bytes

_SMALL = 1_000_000_000  # bytes that are done before anyone wonders


def percent(say: Callable[[str], None], label: str) -> Callable[[int, int], None]:
    """A callback for bytes done and bytes in all that says every further tenth, where there are many."""
    said = 0

    def report(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // total if total else 10
        if total > _SMALL and tenth > said:
            said = tenth
            say(f"{label}: {10 * tenth}% of {shown_bytes(total)}")

    return report
