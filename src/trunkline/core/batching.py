"""How much of a batch, or of the queue before it, a draft takes."""

from sys import getsizeof
from typing import Final

from trunkline.model import Draft

_DRAFT_BYTES: Final = 1_024
"""Its ids and names, the row of its entry, its client message id."""
_USER_BYTES: Final = 512
"""A user whom it names becomes a member's row, a line of a list, and a row that tells of it."""


def draft_bytes(draft: Draft) -> int:
    """Bytes that a draft takes in memory, and about what it makes a transaction write.

    A membership change is small as a frame, and writes hundreds of bytes for each user named.
    """
    return _DRAFT_BYTES + getsizeof(draft.body) + _USER_BYTES * len(draft.users)
