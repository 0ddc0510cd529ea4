"""Settings of the WebSocket listener."""

from typing import Annotated

import msgspec


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen, and what one socket may hold; sizes in bytes, times in seconds."""

    host: Annotated[str, msgspec.Meta(description="Address that the WebSocket listener binds.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65_535, description="Its port; 0 takes a free one.")
    ] = 8480
    backlog: Annotated[
        int, msgspec.Meta(ge=1, description="Connections that may wait to be accepted.")
    ] = 4_096
    outlet_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=65_536,
            description="Bytes that may wait for one reader; past it a slow reader is closed.",
        ),
    ] = 4 * 1024 * 1024
    outlet_pause_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=1, description="Bytes waiting for a reader from which on its requests wait."
        ),
    ] = 512 * 1024
    read_buffer_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=1_024,
            description="First size of a connection's read buffer; it grows with the frames.",
        ),
    ] = 4 * 1024
