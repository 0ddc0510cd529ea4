"""Where the keyring is: a file, or the environment."""

from typing import Annotated, Final

import msgspec


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the two, or none: then it is `keyring.json` in the data directory."""

    file: Annotated[
        str,
        msgspec.Meta(description="The keyring's file; none: `keyring.json` in `data`."),
    ] = ""
    json: Annotated[
        str,
        msgspec.Meta(
            description="The keyring itself, as such a file holds it: for the environment "
            "(`TRUNKLINE_KEYRING__JSON`). Not together with `file`."
        ),
    ] = ""


IN_DIRECTORY: Final = Settings()
"""The keyring is the file in the data directory."""
