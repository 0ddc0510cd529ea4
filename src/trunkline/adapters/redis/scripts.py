"""The Lua scripts of this folder, by name: what calls them and what loads them."""

from hashlib import sha1
from importlib.resources import files
from typing import Final

from trunkline.adapters.redis.link import pack

NAMES: Final = (
    "append", "append_when_full", "read", "confirm", "raise_offsets", "register", "life",
)  # fmt: skip


def source(name: str) -> bytes:
    """The text of a script."""
    folder = files("trunkline.adapters.redis") / "scripts"
    if name == "append_when_full":
        text = (folder / "append.lua").read_bytes()
        return text.replace(b"#!lua\n", b"#!lua flags=allow-oom\n", 1)
    return (folder / f"{name}.lua").read_bytes()


SHAS: Final = {
    name: sha1(source(name), usedforsecurity=False).hexdigest().encode() for name in NAMES
}
"""What EVALSHA names each script by."""

LOADS: Final = [pack((b"SCRIPT", b"LOAD", source(name))) for name in NAMES]
"""Commands that make a server know all scripts."""
