"""Responses that have begun to repeat themselves, as broken merges do until they are cut off."""

from collections.abc import Sequence

LONGEST = 64  # tokens of what is repeated
_TIMES = 4
_LEAST = 32  # tokens of all repetitions: short ones, such as digits or dashes, belong to ordinary text


def repeats_itself(tokens: Sequence[int]) -> bool:
    """Whether the tokens end in four or more repetitions of the same up to 64 tokens, 32 tokens long or longer."""
    for period in range(1, min(LONGEST, len(tokens) // _TIMES) + 1):
        length = max(_TIMES * period, _LEAST)
        if length <= len(tokens) and all(tokens[-i] == tokens[-i - period] for i in range(1, length - period + 1)):
            return True
    return False
