"""SQL literals. Text and bytes stand in hex: nothing in them can end a literal."""

from collections.abc import Iterable

Value = int | str | bytes


def literal(value: Value) -> str:
    """One value."""
    if isinstance(value, int):
        return str(int(value))
    data = value.encode() if isinstance(value, str) else value
    return f"x'{data.hex()}'" if data else "''"


def literals(values: Iterable[Value]) -> str:
    """A list of values, without brackets."""
    return ",".join(map(literal, values))


def rows(values: Iterable[Iterable[Value]]) -> str:
    """A list of rows, each in brackets."""
    return ",".join(f"({literals(row)})" for row in values)
