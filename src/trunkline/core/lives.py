"""The lives of a store: what it is called, and how one follows the other (DESIGN section 1)."""

from collections.abc import Callable
from typing import Final

import msgspec

from trunkline.model import StoreLife

ID_BYTES: Final = 16
MARK_BYTES: Final = 8

RandomBytes = Callable[[int], bytes]


def first_life(random_bytes: RandomBytes, made_ms: int) -> StoreLife:
    """That of a store which is made now."""
    return StoreLife(random_bytes(ID_BYTES).hex(), 1, random_bytes(MARK_BYTES).hex(), made_ms)


def next_life(life: StoreLife, random_bytes: RandomBytes) -> StoreLife:
    """The next generation; drawn anew, so that no other copy of the store has the same one."""
    return msgspec.structs.replace(
        life, generation=life.generation + 1, mark=random_bytes(MARK_BYTES).hex()
    )
