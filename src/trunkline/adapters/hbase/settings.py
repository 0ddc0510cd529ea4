"""Settings of the cold tier on HBase, with their defaults and bounds."""

from typing import Annotated

from msgspec import Meta

from trunkline.ports.tls import TlsSettings

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(TlsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where HBase's Thrift 2 server is, and how long it is waited for.

    The server speaks the binary protocol, unframed: what `hbase thrift2 start` does unasked.
    """

    host: Annotated[str, Meta(description="Host of HBase's Thrift 2 server, unframed.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=1, le=65_535, description="Port of the Thrift 2 server.")] = 9_090
    table: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9_]+:)?[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            description="The table, with its namespace before a colon unless it is the default.",
        ),
    ] = "trunkline"
    regions: Annotated[
        int,
        Meta(ge=1, le=4_096, description="Regions that `trunkline migrate` makes a new table of."),
    ] = 16
    connections: Annotated[
        Count, Meta(description="Connections of a process, and so questions at one time.")
    ] = 8
    connect_seconds: Annotated[
        Seconds, Meta(description="Longest time that a connection may take to open.")
    ] = 2.0
    call_seconds: Annotated[
        Seconds,
        Meta(description="Longest time for one try of a question, and for its turn to come."),
    ] = 5.0
    attempts: Annotated[
        Count,
        Meta(
            description="Tries of a question before it is given up; together they take no longer "
            "than twice `call_seconds`."
        ),
    ] = 3
    backoff_seconds: Annotated[
        Seconds, Meta(description="Pause after the first failed try; it doubles, with jitter.")
    ] = 0.1
    retry_seconds: Annotated[
        Seconds,
        Meta(
            description="Once HBase did not answer, pulls of old history are refused at once, "
            "and after each such pause one question is let through to see if it answers again."
        ),
    ] = 1.0
