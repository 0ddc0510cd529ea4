"""Cuts texts that are sent together into portions that a server takes."""

from collections.abc import Iterable


def portions(texts: Iterable[str], most_bytes: int, most: int | None = None) -> list[list[str]]:
    """Texts in lists of at most `most`, together no larger than `most_bytes`, or of one alone."""
    cut: list[list[str]] = []
    size = most_bytes
    for text in texts:
        size += len(text) + 1
        if size > most_bytes or len(cut[-1]) == most:
            cut.append([])
            size = len(text)
        cut[-1].append(text)
    return cut
