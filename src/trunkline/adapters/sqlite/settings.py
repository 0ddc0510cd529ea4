"""Settings of the embedded store, with their defaults and bounds."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the embedded store trades memory, latency and disk writes."""

    materialiser: Annotated[
        Literal["process", "thread"],
        Meta(description="Where the tables are written: a process of its own, or a thread."),
    ] = "process"
    slice_entries: Annotated[
        Count, Meta(description="Entries gathered before they are moved into the tables.")
    ] = 100_000
    slice_bytes: Annotated[
        Count, Meta(description="Journal bytes gathered before they are moved into the tables.")
    ] = 64 << 20
    slice_age_seconds: Annotated[
        Seconds, Meta(description="Longest time that a commit stays in the journal alone.")
    ] = 30.0
    idle_seconds: Annotated[
        Seconds, Meta(description="After this long without a commit what is there is moved.")
    ] = 1.0
    pending_entries: Annotated[
        Count, Meta(description="Entries held in memory; past it appends wait.")
    ] = 400_000
    pending_wait_seconds: Annotated[
        Seconds, Meta(description="How long an append waits for room before it is refused.")
    ] = 10.0
    cached_conversations: Annotated[
        Count, Meta(description="Conversations whose rows are kept in memory.")
    ] = 50_000
    journal_wal_bytes: Annotated[
        Count, Meta(description="Size of the journal's write-ahead log that is checkpointed.")
    ] = 8 << 20
    transaction_entries: Annotated[
        Count, Meta(description="Entries that the materialiser writes in one transaction.")
    ] = 2_000
    tables_cache_bytes: Annotated[
        Count, Meta(description="Page cache of each connection to the tables.")
    ] = 64 << 20
    idempotency_days: Annotated[
        int, Meta(ge=7, description="Days of running that a client message id is remembered (I6).")
    ] = 8
    witness_seconds: Annotated[
        Seconds,
        Meta(description="How often is noted how far the files have come, for the next start."),
    ] = 60.0
    lock_wait_seconds: Annotated[
        Seconds, Meta(description="How long opening waits for the lock of a dying process.")
    ] = 1.0
