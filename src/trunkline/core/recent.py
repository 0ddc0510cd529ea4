"""A bounded cache that forgets by itself what is not used any more."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Two generations: what is used moves into the young one, `age` drops the old one.

    So what was not used between two calls of `age` is gone after them, at no cost to what is
    in use. Data keys are kept so: one that was destroyed is not used again.
    """

    __slots__ = ("_most", "_old", "_young")

    def __init__(self, most: int) -> None:
        """`most`: how many are kept at most."""
        self._most = max(1, most // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as its use."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keeps a value; None is none."""
        if len(self._young) >= self._most:
            self.age()
        self._young[key] = value

    def age(self) -> None:
        """Forgets what was not used since the last call."""
        self._old, self._young = self._young, {}
