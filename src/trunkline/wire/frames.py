"""Every frame of the protocol, one struct each; `docs/protocol.md` is held against them.

`t` tells the frame's type. A field left at its default is not sent. Unknown fields are
refused on the server's side and ignored on the client's.
"""

from typing import Annotated

import msgspec

from trunkline.errors import TrunklineError
from trunkline.model import (
    TEXT,
    ClientMessageId,
    ConversationId,
    ConversationKind,
    EndpointId,
    Entry,
    Seq,
    StoreLife,
    UserId,
)

PROTOCOL_VERSION = 1
NO_MESSAGE = ClientMessageId("")
"""The `id` of an answer that answers no operation."""
WireSeq = Annotated[Seq, msgspec.Meta(ge=0, lt=2**53)]
"""A seq as it may arrive: what JSON readers hold exactly."""
RequestNumber = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""Chosen by the client, unique among its open requests; 0: no answer wanted."""


class _FromClient(
    msgspec.Struct, tag_field="t", forbid_unknown_fields=True, omit_defaults=True, frozen=True
):
    """Base of what a client sends."""


class _FromServer(msgspec.Struct, tag_field="t", omit_defaults=True, frozen=True):
    """Base of what the server sends."""


# --- from the client --------------------------------------------------------------------


class Hello(_FromClient, tag="hello", frozen=True):
    """First frame. `push` false: this connection only sends and asks, it is pushed nothing."""

    token: str
    endpoint: EndpointId
    versions: tuple[int, ...] = (PROTOCOL_VERSION,)
    user: UserId | None = None
    push: bool = True
    agent: str = ""


class Refresh(_FromClient, tag="refresh", frozen=True):
    """A new token for this connection, before the old one expires."""

    token: str
    request: RequestNumber = 0


class Send(_FromClient, tag="send", gc=False, frozen=True):
    """A message to `conversation`, or to the user `to` (a single conversation).

    `name` is given to the single conversation if this send creates it.
    """

    id: ClientMessageId
    body: str
    conversation: ConversationId | None = None
    to: UserId | None = None
    content_type: str = TEXT
    refers_to: WireSeq = Seq(0)
    name: str | None = None


class Create(_FromClient, tag="create", frozen=True):
    """A group with its first members; the creator is one of them without being named."""

    id: ClientMessageId
    conversation: ConversationId
    users: list[UserId] = []
    name: str | None = None


class Add(_FromClient, tag="add", frozen=True):
    id: ClientMessageId
    conversation: ConversationId
    users: list[UserId]


class Remove(_FromClient, tag="remove", frozen=True):
    id: ClientMessageId
    conversation: ConversationId
    users: list[UserId]


class Leave(_FromClient, tag="leave", frozen=True):
    id: ClientMessageId
    conversation: ConversationId


class Rename(_FromClient, tag="rename", frozen=True):
    id: ClientMessageId
    conversation: ConversationId
    name: str


class Range(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Entries after+1..up_to of a conversation; `up_to` 0: the end of the view."""

    conversation: ConversationId
    after: WireSeq
    up_to: WireSeq = Seq(0)


class Pull(_FromClient, tag="pull", frozen=True):
    """Asks for ranges, or, with `next` of an earlier answer, for what is left of them."""

    request: RequestNumber
    ranges: list[Range] = []
    next: str = ""


class HeldPart(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """All that the endpoint holds in one part of a range: places and seqs, 8 bytes each."""

    part: Annotated[int, msgspec.Meta(ge=0, lt=2**13)]
    held: bytes


class Sync(_FromClient, tag="sync", frozen=True):
    """Asks what changed.

    `cursor` is that of the last finished sync (0: none). `vector_digest` is the hex digest
    over the endpoint's last seqs; `range_sums` its 256 ranges, `parts` what is held in some
    parts of them, `vector` the seqs themselves: each sent when asked for.
    `next` continues a long answer.
    """

    request: RequestNumber
    cursor: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    vector_digest: str = ""
    vector: dict[ConversationId, WireSeq] | None = None
    next: str = ""
    range_sums: bytes | None = None
    parts: list[HeldPart] | None = None


class Confirm(_FromClient, tag="confirm", frozen=True):
    """Read offsets: the endpoint holds everything of these conversations up to here."""

    offsets: dict[ConversationId, WireSeq]
    request: RequestNumber = 0


class Claim(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """An endpoint holds a conversation up to `seq`. `proof`: that of a confirm of this `seq`."""

    seq: WireSeq
    proof: str = ""


class Ahead(_FromClient, tag="ahead", frozen=True):
    """The endpoint holds more than a sync listed. `mark`: of the life in which it was given it."""

    request: RequestNumber
    mark: str
    claims: dict[ConversationId, Claim]


class Mark(_FromClient, tag="mark", frozen=True):
    """Read marker: the person has seen everything up to `seq`."""

    conversation: ConversationId
    seq: WireSeq
    request: RequestNumber = 0


ClientFrame = (
    Hello
    | Refresh
    | Send
    | Create
    | Add
    | Remove
    | Leave
    | Rename
    | Pull
    | Sync
    | Confirm
    | Ahead
    | Mark
)


# --- from the server --------------------------------------------------------------------


class Limits(msgspec.Struct, frozen=True):
    """What the server accepts; sizes in bytes of UTF-8."""

    body_bytes: int
    frame_bytes: int
    group_members: int
    users_per_operation: int
    open_requests: int
    sends_per_second: float
    send_burst: int
    offsets_per_frame: int = 0


class Welcome(_FromServer, tag="welcome", frozen=True):
    """Answers `hello`. `connection` names this connection in the server's log.

    `store` says which store this is; a server that does not know says nothing.
    """

    version: int
    user: UserId
    connection: str
    time_ms: int
    heartbeat_seconds: float
    token_expires_ms: int
    limits: Limits
    store: StoreLife | None = None


class Ack(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """One entry is stored. `duplicate`: it was before, under this very id; `time_ms` is 0 then."""

    id: ClientMessageId
    conversation: ConversationId
    seq: Seq
    time_ms: int = 0
    duplicate: bool = False


class Acked(_FromServer, tag="acked", gc=False, frozen=True):
    acks: list[Ack]


class Push(_FromServer, tag="push", gc=False, frozen=True):
    """Entries of one conversation just committed, in order, contiguous within the frame."""

    conversation: ConversationId
    membership_version: int
    entries: list[Entry]


class Run(msgspec.Struct, frozen=True, gc=False):
    """Contiguous entries after+1.. of a conversation."""

    conversation: ConversationId
    after: Seq
    entries: list[Entry]


class Pulled(_FromServer, tag="pulled", gc=False, frozen=True):
    """A page of a pull. With `next` there is more; without, all that was asked has come."""

    request: int
    runs: list[Run]
    next: str = ""


class Changed(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """What an endpoint must know of a conversation that changed.

    The view is first..head; `left`: the member is gone and head is where the view ends.
    `digest` is the view's, `digest_key` the key of its hashes (both hex). `shredded`: its
    key was destroyed, `digest_key` is empty and nothing of it can be pulled or sent any more.
    """

    conversation: ConversationId
    kind: ConversationKind
    head: Seq
    first: Seq
    digest: str
    digest_key: str
    unread: int = 0
    marker: Seq = Seq(0)
    name: str | None = None
    left: bool = False
    shredded: bool = False


class RangeParts(msgspec.Struct, frozen=True, gc=False):
    """The sums of the 32 parts of a range, 8 bytes each, of all that there is to hold."""

    range: int
    sums: bytes


class Synced(_FromServer, tag="synced", frozen=True):
    """A page of a sync. `vector_wanted`: nothing is answered, send the vector first; with
    `ranges_wanted` or `parts_wanted` the sums of its ranges, or parts of it, are enough.

    `store`: as in `welcome`, but as of this answer.
    """

    request: int
    cursor: int = 0
    conversations: list[Changed] = []
    next: str = ""
    vector_wanted: bool = False
    store: StoreLife | None = None
    ranges_wanted: bool = False
    parts_wanted: list[RangeParts] = []


class Notice(_FromServer, tag="notice", frozen=True):
    """Something of this conversation changed for this user (joined, gone, marker): sync."""

    conversation: ConversationId


class Done(_FromServer, tag="done", frozen=True):
    """Answers `confirm`, `mark` and `refresh` where they carried a request number.

    `proofs`: of each position that was confirmed, hex, where the server knows which store it is.
    """

    request: int
    proofs: dict[ConversationId, str] = {}


class Error(_FromServer, tag="error", frozen=True):
    """A refusal. It names what it answers: a client message `id` or a `request`."""

    code: str
    message: str
    retryable: bool = False
    retry_after_seconds: float | None = None
    id: ClientMessageId = NO_MESSAGE
    conversation: ConversationId | None = None
    request: int = 0

    @classmethod
    def of(
        cls,
        error: TrunklineError,
        *,
        id: ClientMessageId = NO_MESSAGE,
        conversation: ConversationId | None = None,
        request: int = 0,
    ) -> "Error":
        """What a client is told of an error."""
        return cls(
            error.code, error.told, error.retryable, error.retry_after_seconds, id, conversation,
            request,
        )  # fmt: skip


class Goodbye(_FromServer, tag="goodbye", frozen=True):
    """Sent before the server closes; the WebSocket close code follows (`wire.close`)."""

    code: str
    message: str
    reconnect: bool
    retry_after_seconds: float | None = None

    @classmethod
    def of(cls, error: TrunklineError, *, reconnect: bool) -> "Goodbye":
        """What a client is told of an error that closes its connection."""
        return cls(error.code, error.told, reconnect, error.retry_after_seconds)


ServerFrame = Welcome | Acked | Push | Pulled | Synced | Notice | Done | Error | Goodbye
