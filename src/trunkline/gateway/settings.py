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
    outlets_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=1_048_576,
            description="Bytes that may wait for all readers together; past it those are closed "
            "first that took nothing for longest.",
        ),
    ] = 64 * 1024 * 1024
    inlets_bytes: Annotated[
        int,
        msgspec.Meta(
            ge=1_048_576,
            description="Bytes of frames and messages that have not ended yet, of all clients "
            "together; past it those are closed first that began longest ago.",
        ),
    ] = 64 * 1024 * 1024
    strangers: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            description="Connections that have not said `hello`; at the bound further ones wait, "
            "and who had a second makes room for them.",
        ),
    ] = 2_048
    strangers_per_address: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            description="The same from one address (of IPv6: a network of 64 bits); further ones "
            "are closed. Behind a proxy all come from its address: set it to `strangers` there.",
        ),
    ] = 1_024
    pings_per_second: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            description="Rate of a connection's pings and pongs, ten seconds' worth at once; "
            "past it the connection is closed.",
        ),
    ] = 10.0
