"""Writes into a hot store as the server does: real planner, real sealing, drafts by name."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from trunkline.core import digest as digests
from trunkline.core.appending import Accepted, AppendPlanner, Decision, Known, Outcome, Refused
from trunkline.core.envelope import associated_data_of, opened
from trunkline.core.ids import conversation_key, shard_hash, shard_of, single_conversation_id
from trunkline.core.tiering import is_whole
from trunkline.core.views import view_of
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    Entry,
    FreshKey,
    Kind,
    Member,
    Seq,
    StoredEntry,
    UserId,
    place_of,
)
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer
from trunkline.ports.tasks import TaskStore

GROUP_MEMBERS = 20
FOREVER_SECONDS = 3_600.0


def name_on_shard_of(key: int) -> str:
    """A conversation id that belongs to the shard of a key."""
    shard = shard_of(ConversationKey(key))
    names = (f"g{key}-{number}" for number in count())
    return next(name for name in names if shard_hash(ConversationId(name)) == shard)


def seq_of(outcome: Outcome) -> Seq:
    """The seq of an accepted draft."""
    assert isinstance(outcome, Accepted), outcome
    return outcome.seq


def known_seq_of(outcome: Outcome) -> Seq:
    """The seq of a draft that was known."""
    assert isinstance(outcome, Known), outcome
    return outcome.seq


def refusal_of(outcome: Outcome) -> str:
    """The code of a refused draft's error."""
    assert isinstance(outcome, Refused), outcome
    return outcome.error.code


class Writer:
    """Makes drafts and appends them. Users, conversations and ids are given as plain strings."""

    def __init__(self, sealer: Sealer) -> None:
        self.sealer = sealer
        self.decide: Callable[..., Decision] = AppendPlanner(
            sealer.cipher, sealer.macs, group_members=GROUP_MEMBERS
        ).decide
        self._time_ms = 1_700_000_000_000
        self._next_key = 1

    def message(
        self, conversation: str, sender: str, message_id: str, body: str = "hello"
    ) -> Draft:
        """A message to a conversation that exists."""
        return self._draft(conversation, sender, message_id, Kind.MESSAGE, body=body)

    def first_send(
        self, sender: str, to: str, message_id: str, body: str = "hello", *, key: int | None = None
    ) -> Draft:
        """A message to another user, which creates their conversation if need be."""
        users = (UserId(sender), UserId(to))
        conversation = single_conversation_id(*users)
        return self._draft(
            conversation, sender, message_id, Kind.MESSAGE, body=body, users=users,
            fresh=self.fresh(conversation, key),
        )  # fmt: skip

    def create(
        self,
        conversation: str,
        sender: str,
        message_id: str,
        users: Sequence[str] = (),
        *,
        name: str | None = None,
        key: int | None = None,
    ) -> Draft:
        """A new group."""
        return self._draft(
            conversation, sender, message_id, Kind.CREATED, users=users, name=name,
            fresh=self.fresh(ConversationId(conversation), key),
        )  # fmt: skip

    def join(self, conversation: str, sender: str, message_id: str, users: Sequence[str]) -> Draft:
        """Adds users to a group."""
        return self._draft(conversation, sender, message_id, Kind.JOINED, users=users)

    def leave(
        self, conversation: str, sender: str, message_id: str, users: Sequence[str] = ()
    ) -> Draft:
        """Removes users from a group; the sender leaves if nobody is named."""
        return self._draft(conversation, sender, message_id, Kind.LEFT, users=users or (sender,))

    def rename(self, conversation: str, sender: str, message_id: str, name: str) -> Draft:
        """Renames a group."""
        return self._draft(conversation, sender, message_id, Kind.RENAMED, name=name)

    def fresh(self, conversation: ConversationId, key: int | None = None) -> FreshKey:
        """Material for a new conversation; keys count up in its shard."""
        if key is None:
            key = conversation_key(shard_hash(conversation), self._next_key)
            self._next_key += 1
        return FreshKey(
            ConversationKey(key),
            self.sealer.new_wrapped_key(place_of(ConversationKey(key), conversation)),
        )

    async def append(self, hot: HotStore, *drafts: Draft) -> list[Outcome]:
        """Appends drafts as one batch."""
        return (await hot.append(drafts, self.decide)).outcomes

    def open(self, conversation: Conversation, entries: Sequence[StoredEntry]) -> list[Entry]:
        """Opens entries as the reader does."""
        cipher = self.sealer.cipher(conversation.wrapped_key, conversation.place)
        return [
            opened(entry, cipher.open(entry.sealed, associated_data_of(conversation.id, entry)))
            for entry in entries
        ]

    def _draft(
        self,
        conversation: str,
        sender: str,
        message_id: str,
        kind: Kind,
        *,
        body: str = "",
        users: Sequence[str] = (),
        name: str | None = None,
        fresh: FreshKey | None = None,
    ) -> Draft:
        self._time_ms += 1
        return Draft(
            ConversationId(conversation), UserId(sender), ClientMessageId(message_id), kind,
            self._time_ms, body, users=tuple(UserId(user) for user in users), name=name,
            fresh=fresh,
        )  # fmt: skip


async def view(hot: HotStore, user: str, conversation: str) -> tuple[Conversation, Member]:
    """The conversation's row and the user's member row."""
    identity = ConversationId(conversation)
    return (await hot.views(UserId(user), [identity]))[identity]


async def read_all(hot: HotStore, conversation: Conversation) -> Sequence[StoredEntry]:
    """Every entry of a conversation that was not trimmed."""
    return await hot.read(conversation.key, Seq(0), conversation.head)


async def check_view(writer: Writer, hot: HotStore, user: str, conversation: str) -> list[Entry]:
    """Checks I1 and I14 on a member's view that was not trimmed; returns its entries.

    The entries are exactly the view's range, every running value is the sum of what is
    before, and the view's digest and the unread count are those of the opened entries.
    """
    row, member = await view(hot, user, conversation)
    shown = view_of(row, member)
    after = Seq(shown.first - 1)
    stored = await hot.read(row.key, after, shown.last)
    assert is_whole(stored, after, shown.last)
    entries = writer.open(row, stored)
    entry_hash = digests.hasher(row.id, writer.sealer.cipher(row.wrapped_key, row.place).digest_key)
    running, countable = member.digest_before, member.countable_before
    for entry, at_rest in zip(entries, stored, strict=True):
        assert at_rest.entry_hash == digests.hash_entry(entry, entry_hash)
        running = digests.add(running, at_rest.entry_hash)
        countable += entry.kind is Kind.MESSAGE
        assert (at_rest.digest, at_rest.countable) == (digests.to_bytes(running), countable)
    assert shown.digest == digests.subtract(running, member.digest_before)
    unread = [e for e in entries if e.kind is Kind.MESSAGE and e.seq > shown.marker]
    assert shown.unread == len(unread)
    return entries


async def mark_archived(tasks: TaskStore, up_to: Mapping[ConversationKey, int]) -> None:
    """Marks conversations archived up to a seq, as the archiver does after it compared."""
    for task in await tasks.lease(1_000, FOREVER_SECONDS):
        if task.conversation.key in up_to:
            await tasks.archived([(task, Seq(up_to[task.conversation.key]))])
        await tasks.done([task])


async def fill_group(writer: Writer, hot: HotStore) -> None:
    """Group `g` of ann, bob and dan, with 8 messages of the first two: head 9."""
    await writer.append(hot, writer.create("g", "ann", "c", ["bob", "dan"], name="Gräfin 🦊"))
    for i in range(8):
        sender = "ann" if i % 2 else "bob"
        await writer.append(hot, writer.message("g", sender, f"fill{i}", f"body {i}"))
