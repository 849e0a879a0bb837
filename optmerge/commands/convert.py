"""The convert command: safetensors of a checkpoint that has only .bin files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from optmerge.commands.percent import percent
from optmerge.commands.words import Parser


def run_convert(arguments: Sequence[str], console: Console) -> None:
    """Write a checkpoint anew, as `convert MODEL OUT` asks.

    Raises:
        UsageError: If there is no such checkpoint, or OUT is taken.
    """
    parser = Parser("convert")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args(arguments)
    from optmerge.models import convert

    convert(asked.model, asked.out, percent(console.print, "converting"))
    console.print(f"{asked.out}: safetensors of {asked.model}", highlight=False, soft_wrap=True)
