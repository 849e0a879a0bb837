"""The errors that people read.

Everything that a person can do wrong, or that can go wrong around them, is raised as one of these where the
fact is known, and printed as one line in one place: `optmerge.__main__`.
"""

INTERRUPTED = 75
"""Exit status of a worker that was told to leave, its trial handed back: EX_TEMPFAIL of sysexits.h, try again later."""


class OptmergeError(Exception):
    """Something failed; the message says what, where, and what to do."""

    exit_code = 1


class UsageError(OptmergeError):
    """Something was asked wrongly: an option, a configuration, or a file that was named."""

    exit_code = 2
