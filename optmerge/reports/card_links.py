"""What a model card links to in its own folder: pictures that it shows, and files."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

# `](place)`, `](place "words")`, `](<place>)`, and the same in HTML.
_LINK = re.compile(r"""\]\(\s*(?:<([^<>\n]+)>|([^\s()]+(?:\([^\s()]*\)[^\s()]*)*))|\b(?:src|href)=["']([^"'\n]+)["']""")
_WEIGHTS = {
    ".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".onnx", ".msgpack", ".pkl", ".pickle",
    ".npz", ".tflite",
}  # fmt: skip


def linked_files(card: str, folder: Path) -> list[str]:
    """The files in a card's folder that it links to, and that may go wherever it goes.

    Args:
        card: Its text.
        folder: Where it lies.

    Returns:
        Their paths below the folder, sorted. Links out of the folder, hidden files, symbolic links and weights are
        left out.
    """
    return sorted({place for place in _places(card) if _may_go(folder, place)})


def _places(card: str) -> Iterator[str]:
    """The relative paths that a card links to, without `./` at their beginning."""
    for found in _LINK.finditer(card):
        try:
            parts = urlsplit(next(place for place in found.groups() if place))
        except ValueError:  # no address at all
            continue
        path = unquote(parts.path)
        if not (parts.scheme or parts.netloc) and path and not path.startswith("/") and "\0" not in path:
            yield str(PurePosixPath(path))


def _may_go(folder: Path, place: str) -> bool:
    parts = PurePosixPath(place).parts
    below = [folder.joinpath(*parts[: count + 1]) for count in range(len(parts))]
    if not below or any(part.startswith(".") or "\\" in part for part in parts):  # `..` among them
        return False
    try:
        return (
            below[-1].is_file()
            and not any(path.is_symlink() for path in below)
            and below[-1].suffix.lower() not in _WEIGHTS
        )
    except OSError:  # no name of a file, such as one that is too long
        return False
