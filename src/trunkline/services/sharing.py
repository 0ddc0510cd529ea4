"""Fan-out of a worker that is one of many: what it wrote itself, and what others send it.

Whether an entry may be written to a watcher (I13) is decided at both ends of the view:

- where it begins, by `seq`: a watch names its first entry, and a frame that begins before
  it is not written;
- where it ends, by membership version: a list of watchers of version v holds nobody whom a
  change up to v removed. A frame whose entries were written under a newer version waits until
  the members were read anew from the hot store. A frame of an older one may be written: who
  is still in the list was a member then, or is kept out by the first rule; who was removed
  since learns from a notice, and pulls what they may still see.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from trunkline.core.appending import ConversationWrite, Decision
from trunkline.core.packets import Cut, Frame, Note, cuts
from trunkline.model import Conversation, ConversationKey, Kind, Member, UserId, WorkerId
from trunkline.services.fanout import FanOut, Item
from trunkline.services.memberships import Memberships
from trunkline.services.metrics import Metrics
from trunkline.services.publishing import Publisher
from trunkline.services.refusals import Refusals
from trunkline.services.registry import Connection, Registry, Watchers
from trunkline.wire.encoding import JSON, MESSAGEPACK
from trunkline.wire.frames import Notice, Push

Others = Mapping[ConversationKey, Collection[WorkerId]]
NOBODY: Final[Others] = {}


class SharedFanOut(FanOut):
    """Delivers to the connections of this worker, and to the inboxes of the others."""

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        refusals: Refusals,
        memberships: Memberships,
        publisher: Publisher,
    ) -> None:
        super().__init__(registry, metrics, refusals)
        self._memberships = memberships
        self._publisher = publisher
        self._others = NOBODY
        memberships.show = self.show

    def deliver_and_publish(
        self, items: Sequence[Item], decision: Decision, others: Others
    ) -> None:
        """Answers, pushes, and queues the same frames for the other workers that watch."""
        self._others = others
        self.deliver(items, decision)
        self._others = NOBODY

    def show(self, frame: Frame, sole_sender: Connection | None = None) -> int:
        """Writes a frame to whom it may be written now; returns the number of entries written."""
        watchers = self._registry.watched(frame.key)
        if watchers is None:
            if self._registry.deserted is not None:
                self._registry.deserted[frame.key] = None
            self._change(frame)
            return 0
        if frame.audience > watchers.version:
            self._memberships.reload(frame.key, frame)
            return 0
        written = self._write(frame, watchers, sole_sender)
        watchers.reached = max(watchers.reached, frame.last)
        if frame.change is not None:
            watchers.version = max(watchers.version, frame.version)
            self._change(frame)
        return written

    def regroup(self, conversation: Conversation, members: Mapping[UserId, Member]) -> None:
        """The same here and at the other workers: all read the members anew and tell them."""
        self._memberships.reload(conversation.key, tell_all=True)
        self._memberships.settle(conversation.key, conversation.id, members)
        self._publisher.note(Note(conversation.key, conversation.id, tuple(members), True))

    def _push(self, write: ConversationWrite, sole_sender: Connection | None) -> int:
        conversation = write.conversation
        others = self._others.get(conversation.key, ())
        if write.members:
            sole_sender = None
        pushed = 0
        for cut in cuts(write):
            push = Push(conversation.id, cut.version, cut.entries)
            frame = Frame(
                conversation.key, conversation.id, cut.version, cut.entries[0].seq,
                cut.entries[-1].seq, MESSAGEPACK.encode(push), cut.change, cut.users,
            )  # fmt: skip
            self._let_in(conversation, cut, cut.first_watchers(conversation))
            pushed += self.show(frame, sole_sender)
            if cut.change in (Kind.CREATED, Kind.JOINED):
                self._let_in(conversation, cut, cut.users)
            if others:
                self._publisher.frame(frame, others)
            if cut.users:
                # Workers that watch learn it from the frame.
                note = Note(conversation.key, conversation.id, cut.users, True)
                self._publisher.note(note, but=others)
        return pushed

    def _let_in(self, conversation: Conversation, cut: Cut, users: Sequence[UserId]) -> None:
        """Whom this worker's own commit made a member is pushed from there on, at once.

        Frames of other workers come once the tier knows of it: then a notice tells of what
        was missed in between.
        """
        seq = cut.entries[-1].seq
        row = msgspec.structs.replace(conversation, head=seq, membership_version=cut.version)
        for user in users:
            for connection in self._registry.of_user(user):
                self._registry.watch(connection, row, seq)

    def _write(self, frame: Frame, watchers: Watchers, sole_sender: Connection | None) -> int:
        written = 0
        text: bytes | None = None
        for connection, first in watchers.items():
            if first > frame.first or connection is sole_sender:
                continue
            data = frame.data
            if connection.encoding is not MESSAGEPACK:
                if text is None:
                    text = JSON.encode(MESSAGEPACK.decode_server(data))
                data = text
            connection.outlet.write(data)
            written += 1
        return written * (frame.last - frame.first + 1)

    def _change(self, frame: Frame) -> None:
        if frame.change is not Kind.LEFT:
            self._memberships.settle(frame.key, frame.conversation, frame.users)
            return
        for user in frame.users:
            for connection in self._registry.of_user(user):
                self._registry.unwatch(connection, frame.key, frame.last)
                if connection.push:
                    connection.write(Notice(frame.conversation))
