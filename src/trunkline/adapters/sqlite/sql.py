"""Reads the SQL files of this folder: schemas whole, statements by their name."""

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def schema(name: str) -> str:
    """The script `sql/<name>.sql`."""
    return (files("trunkline.adapters.sqlite") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def _statements() -> dict[str, str]:
    parts = _NAME.split(schema("statements"))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def statement(name: str) -> str:
    """The statement of this name; raises `KeyError` if there is none."""
    return _statements()[name]
