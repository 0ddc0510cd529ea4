"""After a commit: the senders' acks, then the push to online members (DESIGN section 3, step 5).

A push frame is built once per conversation, batch and encoding. An entry that changes the
membership ends a frame, so that nobody is sent what lies outside their view (I13).
"""

from collections.abc import Mapping, Sequence

from trunkline.core.appending import (
    Accepted,
    ConversationWrite,
    Decision,
    Known,
    Refused,
)
from trunkline.core.packets import Cut, cuts, membership_of
from trunkline.errors import Internal, TrunklineError
from trunkline.model import (
    MEMBERSHIP_KINDS,
    Conversation,
    ConversationId,
    Draft,
    Entry,
    Kind,
    Member,
    UserId,
)
from trunkline.services.metrics import Metrics
from trunkline.services.refusals import Refusals
from trunkline.services.registry import Connection, Registry
from trunkline.wire.close import Close
from trunkline.wire.encoding import Encoding
from trunkline.wire.frames import Ack, Notice, Push

Item = tuple[Draft, Connection]


class FanOut:
    """Delivers what a batch committed to the connections of this process."""

    def __init__(self, registry: Registry, metrics: Metrics, refusals: Refusals) -> None:
        self._registry = registry
        self._metrics = metrics
        self._refusals = refusals

    def deliver(self, items: Sequence[Item], decision: Decision) -> None:
        """Answers the senders and pushes the entries; called only after the commit (I5)."""
        sole_sender: dict[ConversationId, Connection | None] = {}
        senders: dict[Connection, None] = {}
        duplicates = 0
        for (draft, connection), outcome in zip(items, decision.outcomes, strict=True):
            conversation = draft.conversation
            if isinstance(outcome, Accepted):
                connection.acks.append(
                    Ack(draft.client_message_id, conversation, outcome.seq, outcome.time_ms)
                )
                sole = sole_sender.setdefault(conversation, connection)
                if sole is not connection or draft.kind is not Kind.MESSAGE:
                    sole_sender[conversation] = None
            elif isinstance(outcome, Known):
                duplicates += 1
                connection.acks.append(
                    Ack(draft.client_message_id, conversation, outcome.seq, duplicate=True)
                )
            elif isinstance(outcome, Refused):
                self._refuse(draft, connection, outcome.error)
            senders[connection] = None
        for connection in senders:
            connection.flush_acks()
        pushed = 0
        for write in decision.writes:
            pushed += self._push(write, sole_sender.get(write.conversation.id))
        self._metrics.pushed.inc(pushed)
        if duplicates:
            self._metrics.duplicates.inc(duplicates)

    def refuse(self, items: Sequence[Item], error: TrunklineError) -> None:
        """Answers every sender of a batch that was not committed."""
        for draft, connection in items:
            self._refuse(draft, connection, error)

    def regroup(self, conversation: Conversation, members: Mapping[UserId, Member]) -> None:
        """Lets those watch who are members, and no others (I13); tells them all to sync.

        `members`: who is one, and who may just have ceased to be.
        """
        for user, member in members.items():
            for connection in self._registry.of_user(user):
                if member.left_at:
                    self._registry.unwatch(connection, conversation.key)
                else:
                    self._registry.watch(connection, conversation)
                if connection.push:
                    connection.write(Notice(conversation.id))

    def close_all(self) -> None:
        """Who watches what is not known any more: all come back and register again."""
        self._registry.close_all(Close.INTERNAL, Internal())

    def _refuse(self, draft: Draft, connection: Connection, error: TrunklineError) -> None:
        connection.refuse(
            self._refusals.error(error, id=draft.client_message_id, conversation=draft.conversation)
        )

    def _push(self, write: ConversationWrite, sole_sender: Connection | None) -> int:
        """Returns the number of entries written, all connections together."""
        conversation = write.conversation
        if write.members:
            sole_sender = None
            self._unwatch_until_joined(conversation, write.opened)
        pushed = 0
        for cut in cuts(write):
            self._watch(conversation, cut.first_watchers(conversation))
            pushed += self._push_cut(conversation, cut, sole_sender)
            if cut.change in (Kind.CREATED, Kind.JOINED):
                self._watch(conversation, cut.users)
            if cut.told(conversation):
                self._tell(conversation, cut)
        return pushed

    def _tell(self, conversation: Conversation, cut: Cut) -> None:
        """Those whom a change concerns sync; who left watches no more."""
        for user in cut.told(conversation):
            for connection in self._registry.of_user(user):
                if cut.change is Kind.LEFT:
                    self._registry.unwatch(connection, conversation.key)
                if connection.push:
                    connection.write(Notice(conversation.id))

    def _unwatch_until_joined(self, conversation: Conversation, entries: Sequence[Entry]) -> None:
        """Whom the batch made a member is not sent what stands in it before that (I13).

        A connection that registered between commit and fan-out watches already.
        """
        seen: set[UserId] = set()
        for entry in entries:
            if entry.kind not in MEMBERSHIP_KINDS:
                continue
            for user in membership_of(entry.body).users:
                if entry.kind is Kind.JOINED and user not in seen:
                    for connection in self._registry.of_user(user):
                        self._registry.unwatch(connection, conversation.key)
                seen.add(user)

    def _watch(self, conversation: Conversation, users: Sequence[UserId]) -> None:
        for user in users:
            for connection in self._registry.of_user(user):
                self._registry.watch(connection, conversation)

    def _push_cut(
        self, conversation: Conversation, cut: Cut, sole_sender: Connection | None
    ) -> int:
        written = 0
        frames: dict[Encoding, bytes] = {}
        for connection in self._registry.watchers(conversation.key):
            if connection is sole_sender:
                continue
            frame = frames.get(connection.encoding)
            if frame is None:
                frame = frames[connection.encoding] = connection.encode(
                    Push(conversation.id, cut.version, cut.entries)
                )
            connection.outlet.write(frame)
            written += 1
        return written * len(cut.entries)
