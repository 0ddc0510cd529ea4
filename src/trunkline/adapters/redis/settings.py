"""Settings of Redis as the cached tier and the bus, with their defaults and bounds."""

from typing import Annotated

from msgspec import Meta

from trunkline.ports.tls import TlsSettings

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(TlsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Redis is, how long it may take, and how much of a conversation it keeps."""

    nodes: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="`host:port` of the server; several are nodes of one Redis Cluster.",
        ),
    ] = ("127.0.0.1:6379",)
    user: Annotated[str, Meta(description="Whom to log in as, if not the default user.")] = ""
    password: Annotated[str, Meta(description="With which password; none: no login.")] = ""
    database: Annotated[
        int, Meta(ge=0, description="Number of the logical database; a cluster has only 0.")
    ] = 0
    prefix: Annotated[
        str,
        Meta(description="What all keys and channels begin with: no braces.", pattern="^[^{}]*$"),
    ] = "trunkline"
    answer_seconds: Annotated[
        Seconds, Meta(description="How long a batch or a publish waits before it goes on without.")
    ] = 0.05
    read_seconds: Annotated[
        Seconds, Meta(description="How long everything else waits; then the hot tier answers.")
    ] = 0.25
    pause_seconds: Annotated[
        Seconds,
        Meta(description="After a missing answer calls fail at once this long, then one probes."),
    ] = 0.1
    stall_seconds: Annotated[
        Seconds, Meta(description="A probe unanswered this long ends the connection.")
    ] = 2.0
    connect_seconds: Annotated[
        Seconds, Meta(description="How long connecting and logging in may take.")
    ] = 2.0
    reconnect_seconds: Annotated[
        Seconds, Meta(description="Longest pause between two tries to connect; half is jitter.")
    ] = 2.0
    in_flight: Annotated[
        Count, Meta(description="Commands without an answer yet; past it calls fail at once.")
    ] = 16_384
    conversation_entries: Annotated[
        Count,
        Meta(description="Most entries of a conversation; cut back to it once an eighth over."),
    ] = 4_096
    idle_seconds: Annotated[
        Seconds,
        Meta(description="A conversation without a write, an endpoint without a word: gone."),
    ] = 21_600.0
    registration_seconds: Annotated[
        Seconds,
        Meta(
            description="Who watches and who is present is forgotten unless renewed; a third of it."
        ),
    ] = 900.0
    lookout_seconds: Annotated[
        Seconds,
        Meta(description="Within so long a worker notices that Redis lost a key that names it."),
    ] = 4.0
    inbox_packets: Annotated[
        Count, Meta(description="Packets received and not yet taken; past it all are dropped.")
    ] = 10_000
    inbox_bytes: Annotated[
        Count, Meta(description="The same in bytes; dropped ones are made up for from hot.")
    ] = 64 << 20
