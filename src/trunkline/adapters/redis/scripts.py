"""The Lua scripts of this folder, by name: what calls them and what loads them."""

from hashlib import sha1
from importlib.resources import files
from typing import Final

from trunkline.adapters.redis.link import pack

NAMES: Final = ("append", "read", "confirm", "raise_offsets")


def _source(name: str) -> bytes:
    return (files("trunkline.adapters.redis") / "scripts" / f"{name}.lua").read_bytes()


SHAS: Final = {
    name: sha1(_source(name), usedforsecurity=False).hexdigest().encode() for name in NAMES
}
"""What EVALSHA names each script by."""

LOADS: Final = [pack((b"SCRIPT", b"LOAD", _source(name))) for name in NAMES]
"""Commands that make a server know all scripts."""
