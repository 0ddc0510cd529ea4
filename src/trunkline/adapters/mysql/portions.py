"""Cuts texts that are sent together into portions that a server takes."""

from collections.abc import Sequence


def portions(
    texts: Sequence[str], most_bytes: int, most: int | None = None
) -> Sequence[Sequence[str]]:
    """Texts in lists of at most `most`, together no larger than `most_bytes`, or of one alone."""
    count = len(texts)
    if 0 < count <= (most or count) and sum(map(len, texts)) + count <= most_bytes:
        return (texts,)  # as nearly always
    cut: list[list[str]] = []
    size = most_bytes
    for text in texts:
        size += len(text) + 1
        if size > most_bytes or len(cut[-1]) == most:
            cut.append([])
            size = len(text)
        cut[-1].append(text)
    return cut
