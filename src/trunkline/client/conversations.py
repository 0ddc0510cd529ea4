"""What the client shows of a conversation: its messages, its standing, its proof."""

from typing import Any

import msgspec

from trunkline.model import (
    JSON,
    ConversationId,
    ConversationKind,
    Digest,
    Entry,
    Kind,
    Seq,
    UserId,
)


class Message(msgspec.Struct, frozen=True, gc=False):
    """One entry of a conversation. `time_ms` is the server's clock, display only."""

    conversation: ConversationId
    seq: Seq
    sender: UserId
    time_ms: int
    body: str
    kind: Kind
    content_type: str
    refers_to: Seq

    @classmethod
    def of(cls, conversation: ConversationId, entry: Entry) -> "Message":
        """The entry, with its conversation."""
        return cls(
            conversation,
            entry.seq,
            entry.sender,
            entry.time_ms,
            entry.body,
            entry.kind,
            entry.content_type,
            entry.refers_to,
        )

    def json(self) -> Any:
        """The body as JSON; raises ValueError if it is of another content type."""
        if self.content_type != JSON:
            raise ValueError(f"The body is {self.content_type}, not JSON.")
        return msgspec.json.decode(self.body)


class ConversationInfo(msgspec.Struct, frozen=True):
    """A conversation as this endpoint knows it.

    The view is first..head, of which the copy holds first..last. `left`: the user is no
    member any more. `shredded`: the server destroyed its key, for ever: the copy stays as it
    is, its head is its last, and sends raise `ConversationShredded`.
    """

    conversation: ConversationId
    kind: ConversationKind
    name: str | None
    first: Seq
    last: Seq
    head: Seq
    unread: int
    marker: Seq
    left: bool
    shredded: bool


class SetApart(msgspec.Struct, frozen=True):
    """What this endpoint keeps of a conversation that is not in the server's store, or no more.

    `store` is the id of the store that it was of (empty: not known), `name` the
    conversation's; the entries lie within first..last.
    """

    number: int
    store: str
    conversation: ConversationId
    name: str | None
    first: Seq
    last: Seq


class Proof(msgspec.Struct, frozen=True):
    """The digest over the copy's entries first..last (DESIGN section 9).

    It equals the server's digest of that range if, and only if, the entries do.
    """

    first: Seq
    last: Seq
    digest: Digest
