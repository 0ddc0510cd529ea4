"""Settings of the hot tier on MySQL or MariaDB."""

from typing import Annotated

from msgspec import Meta, Struct

from trunkline.ports.tls import TlsSettings

_Port = Annotated[int, Meta(ge=1, le=65_535)]
_Shard = Annotated[int, Meta(ge=0, le=1023)]
_Positive = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0)]


class DatabaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One database, and which shards it holds."""

    shards: Annotated[
        tuple[_Shard, _Shard], Meta(description="First and last of its shards, of 0 to 1023.")
    ] = (0, 1023)
    host: Annotated[str, Meta(description="Address of the server.")] = "127.0.0.1"
    port: Annotated[_Port, Meta(description="Its port.")] = 3306
    database: Annotated[str, Meta(description="Name of the database.")] = "trunkline"


class Settings(TlsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the hot databases are, and how they are talked to."""

    databases: Annotated[
        tuple[DatabaseSettings, ...],
        Meta(min_length=1, description="The databases; together they hold every shard once."),
    ] = (DatabaseSettings(),)
    user: Annotated[str, Meta(description="Whom to log in as.")] = "trunkline"
    password: Annotated[str, Meta(description="With which password.")] = ""
    readers: Annotated[_Positive, Meta(description="Most connections to a database that read.")] = 8
    writers: Annotated[
        _Positive, Meta(description="Most connections to a database that write.")
    ] = 6
    connect_seconds: Annotated[_Seconds, Meta(description="How long to wait for a connection.")] = (
        5.0
    )
    answer_seconds: Annotated[
        _Seconds, Meta(description="How long to wait for the answer to a statement.")
    ] = 15.0
    lock_wait_seconds: Annotated[
        _Positive, Meta(description="How long a transaction waits for a lock before it retries.")
    ] = 3
    attempts: Annotated[
        _Positive, Meta(description="How often a transaction is tried that met others' locks.")
    ] = 8
    busy_commit_seconds: Annotated[
        _Seconds,
        Meta(
            description="While a small commit on a database takes longer, archivers slow down "
            "there, by halves, to a fiftieth of `services.archive_entries_per_second`."
        ),
    ] = 0.03
    resend_days: Annotated[
        int, Meta(ge=7, description="Days that a client message id is remembered (I6).")
    ] = 8
    accept_unsafe: Annotated[
        bool,
        Meta(description="Start on a server that may lose what it committed, for a trial."),
    ] = False
