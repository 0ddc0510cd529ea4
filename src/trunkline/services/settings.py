"""Limits and intervals of the services, as one table that the configuration reads."""

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting of the services; sizes in bytes of UTF-8, times in seconds."""

    body_bytes: Annotated[
        Positive, msgspec.Meta(description="Largest body of a message, in bytes of UTF-8.")
    ] = 12 * 1024
    frame_bytes: Annotated[
        Positive, msgspec.Meta(description="Largest frame that a client may send.")
    ] = 1024 * 1024
    compress_bodies: Annotated[
        bool,
        msgspec.Meta(
            description="Whether new bodies are compressed before they are sealed. "
            "Either kind is read at any time."
        ),
    ] = True
    name_bytes: Annotated[Positive, msgspec.Meta(description="Longest name of a conversation.")] = (
        256
    )
    group_members: Annotated[
        Positive, msgspec.Meta(description="Most members that a group has at a time.")
    ] = 10_000
    users_per_operation: Annotated[
        Positive, msgspec.Meta(description="Most users that one `create`, `add` or `remove` names.")
    ] = 1_000
    open_requests: Annotated[
        Positive,
        msgspec.Meta(
            description="Requests of one connection that may wait behind the one being served."
        ),
    ] = 16
    ranges_per_pull: Annotated[
        Positive, msgspec.Meta(description="Most ranges that one `pull` asks for.")
    ] = 256
    sends_per_second: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            description="Rate of a user's operations with an `id`, over all connections.",
        ),
    ] = 1_000.0
    send_burst: Annotated[
        Positive,
        msgspec.Meta(description="Sends that a user may make at once before the rate counts."),
    ] = 2_000
    named_per_second: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            description="Users that a user's `create`, `add` and `remove` may name a second, over "
            "all connections to a worker; a `create` counts one more, a first message to a user "
            "two.",
        ),
    ] = 100.0
    named_burst: Annotated[
        Positive,
        msgspec.Meta(description="Users that may be named at once before that rate counts."),
    ] = 10_000
    joined_per_second: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            description="Conversations that others may put a user into a second, all of them "
            "together, through a worker.",
        ),
    ] = 10.0
    joined_burst: Annotated[
        Positive,
        msgspec.Meta(
            description="Conversations that others may put a user into at once before that rate "
            "counts."
        ),
    ] = 2_500
    user_conversations: Annotated[
        Positive,
        msgspec.Meta(
            description="Conversations of a user, those left too, from about which on `create` "
            "and `add` put the user into no more; lists are counted after the fact."
        ),
    ] = 100_000
    membership_bytes: Annotated[
        Positive,
        msgspec.Meta(
            description="Largest body of an entry that changes the members, in bytes of UTF-8, as "
            "it is stored: names with many characters that JSON escapes make it longer."
        ),
    ] = 64 * 1024
    connections: Annotated[
        Positive,
        msgspec.Meta(description="Most open connections; further ones are told to come back."),
    ] = 20_000
    connections_per_user: Annotated[
        Positive,
        msgspec.Meta(description="Most of one user; the oldest is closed for one more."),
    ] = 32
    append_queue: Annotated[
        Positive,
        msgspec.Meta(
            description="Sends that may wait for a commit; further ones are answered `overloaded`."
        ),
    ] = 20_000
    append_queue_bytes: Annotated[
        Positive,
        msgspec.Meta(
            description="Memory for the sends that wait for a commit, for each database; a user "
            "whom a membership change names counts 512 bytes."
        ),
    ] = 64 * 1024 * 1024
    append_batch: Annotated[
        Positive, msgspec.Meta(description="Most sends that one commit takes.")
    ] = 256
    append_batch_bytes: Annotated[
        Positive,
        msgspec.Meta(description="Size at which the sends of one commit end, counted likewise."),
    ] = 4 * 1024 * 1024
    page_bytes: Annotated[
        Positive,
        msgspec.Meta(
            description="Size at which a page of a pull ends; a page stays below twice this."
        ),
    ] = 256 * 1024
    sync_page_conversations: Annotated[
        Positive, msgspec.Meta(description="Most conversations on one page of a sync.")
    ] = 500
    page_cache_bytes: Annotated[
        Positive,
        msgspec.Meta(description="Memory for encoded runs of entries that were pulled lately."),
    ] = 64 * 1024 * 1024
    segment_cache_bytes: Annotated[
        Positive,
        msgspec.Meta(
            description="Memory for entries of the cold tier that were opened lately, about."
        ),
    ] = 32 * 1024 * 1024
    read_cache_seconds: Annotated[
        Seconds,
        msgspec.Meta(
            description="What was read is given again from memory for so long and no longer: "
            "by then an erasure shows in every worker."
        ),
    ] = 60.0
    sync_bytes: Annotated[
        Positive,
        msgspec.Meta(
            description="Memory for users' conversation lists and their endpoints' read offsets, "
            "about; those of users who synced longest ago go first."
        ),
    ] = 256 * 1024 * 1024
    offsets_per_frame: Annotated[
        Positive,
        msgspec.Meta(description="Most conversations in one `confirm`, or in a `vector`."),
    ] = 20_000
    offsets_per_second: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            description="Rate of the conversations that a user's `confirm` and `sync` name; each "
            "of these frames counts as 20 more, and each row of an answer as a quarter.",
        ),
    ] = 5_000.0
    offsets_burst: Annotated[
        Positive,
        msgspec.Meta(description="Conversations named at once before that rate counts."),
    ] = 40_000
    heartbeat_seconds: Annotated[
        Seconds,
        msgspec.Meta(
            description="An endpoint silent for this long is pinged; it has half of it to answer."
        ),
    ] = 30.0
    hello_seconds: Annotated[
        Seconds, msgspec.Meta(description="Time that a new connection has for `hello`.")
    ] = 10.0
    offsets_write_seconds: Annotated[
        Seconds, msgspec.Meta(description="How often read offsets are written to the hot tier.")
    ] = 1.0
    offsets_waiting: Annotated[
        Positive,
        msgspec.Meta(
            description="Read offsets that may wait for a database; further ones are dropped, "
            "which costs a re-delivery."
        ),
    ] = 100_000
    newest_single: Annotated[
        Positive,
        msgspec.Meta(
            description="Newest entries of a single conversation that stay in the hot tier."
        ),
    ] = 80
    newest_group: Annotated[
        Positive, msgspec.Meta(description="Newest entries of a group that stay in the hot tier.")
    ] = 12_000
    archive_interval_seconds: Annotated[
        Seconds, msgspec.Meta(description="Pause of the archiver when nothing waits.")
    ] = 1.0
    archive_lease: Annotated[
        Positive, msgspec.Meta(description="Conversations that the archiver takes on at a time.")
    ] = 256
    archive_busy_batches_per_second: Annotated[
        Positive, msgspec.Meta(description="Commits a second from which on the archiver yields.")
    ] = 50
    archive_entries_per_second: Annotated[
        Positive,
        msgspec.Meta(
            description="Most entries that an archiver copies a second, of each database."
        ),
    ] = 60_000
    sweep_seconds: Annotated[
        Seconds,
        msgspec.Meta(
            description="Among several workers: within so long everything that is watched "
            "is compared with its head once."
        ),
    ] = 300.0
    keys_refresh_seconds: Annotated[
        Seconds,
        msgspec.Meta(
            description="How often the keyring is read again; an opened data key that is not "
            "used for twice as long is forgotten."
        ),
    ] = 10.0
    drain_seconds: Annotated[
        Seconds, msgspec.Meta(description="Time that clients have to leave when the server stops.")
    ] = 10.0
