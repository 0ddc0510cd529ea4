"""SQL literals. Text and bytes stand in hex: nothing in them can end a literal."""

from collections.abc import Iterable

Value = int | str | bytes


def literal(value: Value) -> str:
    """One value."""
    if isinstance(value, int):
        return str(int(value))
    data = value.encode() if isinstance(value, str) else value
    return f"x'{data.hex()}'"


def literals(values: Iterable[Value]) -> str:
    """A list of values, without brackets."""
    return ",".join(map(literal, values))


def key(value: int) -> str:
    """A conversation key in a list of them.

    In decimal, some would be signed to MariaDB and some not: it would compare all of them as
    fractions, read every row of the table, and lock what it reads.
    """
    return f"0x{value:016x}"


def keys(values: Iterable[int]) -> str:
    """A list of conversation keys, without brackets."""
    return ",".join(map(key, values))


def bracketed(values: Iterable[Value]) -> str:
    """One row, in brackets."""
    return f"({literals(values)})"


def rows(values: Iterable[Iterable[Value]]) -> str:
    """A list of rows, each in brackets."""
    return ",".join(map(bracketed, values))
