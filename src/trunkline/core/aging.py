"""Decides how fast things grow old: no single reading of a clock makes anything expire.

A store keeps a count of its own, the age, stamps with it what is to expire, and moves it on in
steps. A wall clock that is wrong for a while moves it no further than time went by.
"""

from typing import Final

MOST_STEP_MS: Final = 86_400_000


def step_ms(monotonic_ms: int, wall_ms: int) -> int:
    """How far an age moves on, in milliseconds.

    `monotonic_ms`: what passed since the last step, or since this process began to look, by a
    clock that never jumps. `wall_ms`: what passed since the last step, whoever made it, by a
    clock that may jump, and back, too. No further than both say, and a day at most: what expires
    too late costs room, what expires too early is gone.
    """
    return max(0, min(monotonic_ms, wall_ms, MOST_STEP_MS))
