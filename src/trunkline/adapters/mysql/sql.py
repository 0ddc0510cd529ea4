"""Reads the statements of this adapter by their name; they stand in a file of their own."""

import re
from functools import cache
from importlib.resources import files
from typing import Final

from trunkline.adapters.mysql.literals import Value, literal

FOLDER: Final = files("trunkline.adapters.mysql") / "sql"
_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _statements() -> dict[str, str]:
    parts = _NAME.split((FOLDER / "statements.sql").read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def statement(name: str, *, lists: dict[str, str] | None = None, **values: Value) -> str:
    """The statement of this name with its values; `lists` are put in as they are."""
    return _statements()[name].format(
        **(lists or {}), **{key: literal(value) for key, value in values.items()}
    )
