"""Decides what a batch of drafts becomes: seqs, membership, sealed entries (DESIGN section 3).

Pure: the adapter reads `AppendState` inside its transaction, calls `AppendPlanner.decide`,
writes what the `Decision` holds, commits. The rule stands here once, for every store.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.core.bodies import pack_body
from trunkline.core.envelope import entry_associated_data, name_associated_data
from trunkline.core.member_macs import MemberMacs
from trunkline.core.recent import Recent
from trunkline.core.sealing import Cipher
from trunkline.errors import (
    ConversationExists,
    GroupFull,
    InvalidInput,
    NotAllowed,
    NotMember,
    SealBroken,
    TooManyUsers,
    TrunklineError,
)
from trunkline.model import (
    JSON,
    NOBODY,
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKind,
    Draft,
    Entry,
    Kind,
    Member,
    Place,
    Seq,
    StoredEntry,
    UserId,
)

DraftIdentity = tuple[ConversationId, UserId, ClientMessageId]
KnownIds = Mapping[DraftIdentity, Seq]


class AppendState(msgspec.Struct, frozen=True, gc=False):
    """What a decision needs to know of the store, as of the transaction.

    `conversations`: the rows that exist, of the drafts' conversations. `members`: for each
    of these at least the rows of the drafts' senders and named users. `known`: the seqs of
    those (conversation, sender, client message id) that were stored before.
    """

    conversations: Mapping[ConversationId, Conversation]
    members: Mapping[ConversationId, Mapping[UserId, Member]]
    known: KnownIds


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The draft became entry `seq`."""

    seq: Seq
    time_ms: int


class Known(msgspec.Struct, frozen=True, gc=False):
    """The draft's client message id was stored before, as entry `seq` (I6)."""

    seq: Seq


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The draft was not stored."""

    error: TrunklineError


class Contended(msgspec.Struct, frozen=True, gc=False):
    """Another worker writes this conversation right now: nothing was decided, ask again."""


CONTENDED: Final = Contended()

Outcome = Accepted | Known | Refused | Contended


class ConversationWrite(msgspec.Struct, frozen=True, gc=False):
    """What a batch does to one conversation, in absolute values.

    `conversation` is the row afterwards; `opened` are the entries as members see them, in
    the order of `entries`; `members` are the rows that changed. The read markers of those
    who sent move besides, as `move_markers` says.
    """

    conversation: Conversation
    created: bool
    entries: list[StoredEntry]
    opened: list[Entry]
    members: dict[UserId, Member]

    @classmethod
    def of_head(cls, conversation: Conversation) -> "ConversationWrite":
        """Nothing new: only where the conversation is."""
        return cls(conversation, False, [], [], {})


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Outcomes in the drafts' order, and what must be written for them."""

    outcomes: list[Outcome]
    writes: list[ConversationWrite]


class MembershipBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON body of `created`, `joined`, `left` and `renamed` entries."""

    users: tuple[UserId, ...] = ()
    name: str | None = None


def sent_markers(entries: Sequence[StoredEntry]) -> dict[UserId, StoredEntry]:
    """The last message of each sender: there their own read marker moves."""
    return {entry.sender: entry for entry in entries if entry.kind is Kind.MESSAGE}


def move_markers(members: MutableMapping[UserId, Member], entries: Sequence[StoredEntry]) -> None:
    """Moves the read markers of those who sent messages, forward only (I9)."""
    for sender, entry in sent_markers(entries).items():
        member = members.get(sender)
        if member is not None and member.marker < entry.seq:
            members[sender] = member.marked(entry.seq, entry.countable)


_encode_json = msgspec.json.Encoder().encode


Joins = Callable[[Draft, Sequence[UserId]], None]
"""Told a draft that puts users into a conversation, and these users."""
_CHARGED_KEPT: Final = 8_192
_SEALS_KEPT: Final = 65_536
LOST_AT_ONCE: Final = 256
"""So many `lost` entries does one draft become at most."""
_SENDERS_HELD: Final = 64


class _Seals:
    """What a conversation's entries are sealed and hashed with, and its members' rows checked.

    `held`: the MACs of members who were found to be there.
    """

    __slots__ = ("cipher", "compress", "entry_hash", "held", "id_bytes", "wrapped_key")

    def __init__(self, conversation: Conversation, cipher: Cipher, *, compress: bool) -> None:
        self.held: dict[UserId, bytes] = {}
        self.compress = compress
        self.wrapped_key = conversation.wrapped_key
        self.cipher = cipher
        self.id_bytes = conversation.id.encode()
        self.entry_hash = digests.hasher(conversation.id, cipher.digest_key)


class _Work:
    """One conversation while a batch is decided."""

    __slots__ = (
        "_macs", "_membership_bytes", "_seals", "_seals_of", "conversation", "countable", "created",
        "digest", "entries", "head", "known_members", "member_count", "members", "opened",
        "sealed_name", "version",
    )  # fmt: skip

    def __init__(
        self,
        conversation: Conversation,
        members: Mapping[UserId, Member],
        seals_of: Callable[[Conversation], _Seals],
        macs: MemberMacs,
        *,
        created: bool,
        membership_bytes: int,
    ) -> None:
        self._membership_bytes = membership_bytes
        self.conversation = conversation
        self.created = created
        self._seals: _Seals | None = None
        self._seals_of = seals_of
        self._macs = macs
        self.head = conversation.head
        self.countable = conversation.countable
        self.digest = conversation.digest
        self.version = conversation.membership_version
        self.member_count = conversation.member_count
        self.sealed_name = conversation.sealed_name
        self.known_members = members
        self.members: dict[UserId, Member] = {}
        self.entries: list[StoredEntry] = []
        self.opened: list[Entry] = []

    @property
    def seals(self) -> _Seals:
        """Opened by what is written first: who may not write learns nothing of the key (I13)."""
        if self._seals is None:
            self._seals = self._seals_of(self.conversation)
        return self._seals

    def member(self, user: UserId) -> Member | None:
        """The user's row; raises `SealBroken` if it is not as it was written (I13)."""
        member = self.members.get(user)
        if member is None:
            member = self.known_members.get(user)
            if member is not None and not self._macs.hold(self.conversation.key, member):
                raise SealBroken(f"The row of the member {user!r} does not have its MAC.")
        return member

    def present(self, user: UserId) -> bool:
        """Whether the user is a member now; raises as `member`, if the row says so."""
        member = self.members.get(user)
        if member is not None:
            return not member.left_at
        known = self.known_members.get(user)
        if known is None or known.left_at:
            return False
        # A MAC that once was that of a member who is there: checked again, it would hold.
        held = self.seals.held
        if held.get(user) != known.mac:
            self.member(user)
            if self._macs.required:
                if len(held) >= _SENDERS_HELD:
                    held.clear()
                held[user] = known.mac
        return True

    def write(self, draft: Draft, kind: Kind, content_type: str, body: str) -> Seq:
        """Makes the next entry of the conversation."""
        seals = self.seals
        self.head = seq = Seq(self.head + 1)
        sender = draft.sender
        time_ms = draft.time_ms
        client_message_id = draft.client_message_id
        refers_to = draft.refers_to
        if kind is Kind.MESSAGE:
            self.countable += 1
        elif kind is Kind.LOST:
            sender, client_message_id = NOBODY, ClientMessageId("")
        elif kind is not draft.kind:  # the `created` entry of a single conversation
            client_message_id = ClientMessageId("")
            refers_to = Seq(0)
        entry_hash = seals.entry_hash(seq, sender, kind, time_ms, content_type, body, refers_to)
        self.digest = digests.add(self.digest, entry_hash)
        sealed = seals.cipher.seal(
            pack_body(content_type, body, compress=seals.compress),
            entry_associated_data(
                seals.id_bytes, seq, sender, client_message_id, kind, time_ms, refers_to
            ),
        )
        self.entries.append(
            StoredEntry(
                seq, sender, client_message_id, kind, time_ms, refers_to, self.countable,
                entry_hash, digests.to_bytes(self.digest), sealed,
            )
        )  # fmt: skip
        self.opened.append(Entry(seq, sender, time_ms, body, kind, content_type, refers_to))
        return seq

    def write_membership(self, draft: Draft, kind: Kind, users: tuple[UserId, ...]) -> Seq:
        body = _encode_json(MembershipBody(users, draft.name))
        if len(body) > self._membership_bytes:
            raise TooManyUsers(f"Such an entry has at most {self._membership_bytes} bytes.")
        return self.write(draft, kind, JSON, body.decode())

    def join(self, draft: Draft, kind: Kind, users: tuple[UserId, ...]) -> Seq:
        before = self.digest
        seq = self.write_membership(draft, kind, users)
        for user in users:
            self._put(
                Member(
                    user,
                    visible_from=seq,
                    digest_before=before,
                    countable_before=self.countable,
                    marker=Seq(seq - 1),
                    marker_countable=self.countable,
                )
            )
        self.member_count += len(users)
        self.version += 1
        return seq

    def leave(self, draft: Draft, users: tuple[UserId, ...]) -> Seq:
        leaving = [self.member(user) for user in users]  # nothing is written if one is not right
        seq = self.write_membership(draft, Kind.LEFT, users)
        for member in leaving:
            assert member is not None
            self._put(
                msgspec.structs.replace(
                    member, left_at=seq, left_digest=self.digest, left_countable=self.countable
                )
            )
        self.member_count -= len(users)
        self.version += 1
        return seq

    def lose(self, draft: Draft) -> Seq:
        """Fills what was shown and is gone, as far as one draft may."""
        for _ in range(min(draft.lost_up_to - self.head, LOST_AT_ONCE)):
            self.write(draft, Kind.LOST, JSON, "{}")
        return self.head

    def _put(self, member: Member) -> None:
        self.members[member.user] = self._macs.seal(self.conversation.key, member)

    def rename(self, name: str) -> None:
        self.sealed_name = self.seals.cipher.seal(
            name.encode(), name_associated_data(self.conversation.id)
        )

    def result(self) -> ConversationWrite:
        old = self.conversation
        return ConversationWrite(
            Conversation(
                old.key, old.id, old.kind, old.wrapped_key, self.head, self.countable,
                self.digest, old.archived_up_to, old.trimmed_up_to, self.version,
                self.member_count, self.sealed_name,
            ),
            self.created,
            self.entries,
            self.opened,
            self.members,
        )  # fmt: skip


def _at_no_charge(draft: Draft, users: Sequence[UserId]) -> None:
    """Whoever wants may put others into what he likes."""


class AppendPlanner:
    """Decides batches. `cipher_of` opens a wrapped data key, `macs` are those of members' rows."""

    def __init__(
        self,
        cipher_of: Callable[[bytes, Place], Cipher],
        macs: MemberMacs,
        *,
        group_members: int,
        membership_bytes: int = 64 * 1024,
        compress_bodies: bool = True,
        joins: Joins = _at_no_charge,
    ) -> None:
        """`membership_bytes`: most bytes of an entry's body that names users, as it is made.

        `joins` is asked before users are put into a conversation, by who may do so: once a
        draft, however often that is decided. It refuses by an error.
        """
        self._joins = joins
        self._charged: Recent[DraftIdentity, bool] = Recent(_CHARGED_KEPT)
        self._cipher_of = cipher_of
        self._macs = macs
        self._compress_bodies = compress_bodies
        self._group_members = group_members
        self._membership_bytes = membership_bytes
        self._seals: Recent[ConversationId, _Seals] = Recent(_SEALS_KEPT)

    def forget_idle(self) -> None:
        """Forgets the data keys that were not used since the last call."""
        self._seals.age()

    def decide(self, drafts: Sequence[Draft], state: AppendState) -> Decision:
        """Turns drafts into entries, in their order.

        Each draft is accepted, known or refused by itself; entries of a conversation get
        head+1, head+2 … (I1, I3). A draft whose client message id is known, in the store
        or earlier in this batch, answers with that seq (I6).
        """
        works: dict[ConversationId, _Work] = {}
        known = dict(state.known)
        outcomes: list[Outcome] = []
        for draft in drafts:
            identity = (draft.conversation, draft.sender, draft.client_message_id)
            seq = known.get(identity)
            if seq is not None:
                outcomes.append(Known(seq))
                continue
            try:
                work = works.get(draft.conversation) or self._open(draft, state, works)
                seq = self._apply(draft, work)
            except TrunklineError as error:
                outcomes.append(Refused(error))
                continue
            known[identity] = seq
            outcomes.append(Accepted(seq, draft.time_ms))
        return Decision(outcomes, [work.result() for work in works.values() if work.entries])

    def _open(self, draft: Draft, state: AppendState, works: dict[ConversationId, _Work]) -> _Work:
        conversation = state.conversations.get(draft.conversation)
        created = conversation is None
        if conversation is None:
            if draft.fresh is None:
                raise NotMember
            kind = ConversationKind.GROUP if draft.kind is Kind.CREATED else ConversationKind.SINGLE
            conversation = Conversation(
                draft.fresh.key, draft.conversation, kind, draft.fresh.wrapped_key
            )
        work = _Work(
            conversation,
            state.members.get(draft.conversation, {}),
            self._seals_of,
            self._macs,
            created=created,
            membership_bytes=self._membership_bytes,
        )
        works[draft.conversation] = work
        return work

    def _seals_of(self, conversation: Conversation) -> _Seals:
        seals = self._seals.get(conversation.id)
        if seals is None or seals.wrapped_key != conversation.wrapped_key:
            seals = _Seals(
                conversation,
                self._cipher_of(conversation.wrapped_key, conversation.place),
                compress=self._compress_bodies,
            )
            self._seals.put(conversation.id, seals)
        return seals

    def _apply(self, draft: Draft, work: _Work) -> Seq:
        if draft.kind is Kind.MESSAGE:
            if work.head == 0 and draft.fresh is not None:
                self._charge(draft, draft.users)
                work.join(draft, Kind.CREATED, draft.users)
                if draft.name is not None:
                    work.rename(draft.name)
            elif not work.present(draft.sender):
                raise NotMember
            return work.write(draft, Kind.MESSAGE, draft.content_type, draft.body)
        if draft.kind is Kind.CREATED:
            return self._create(draft, work)
        if not work.present(draft.sender):
            raise NotMember
        if draft.kind is Kind.LOST:
            return work.lose(draft)
        if work.conversation.kind is ConversationKind.SINGLE:
            raise NotAllowed("The members and the name of a single conversation do not change.")
        if draft.kind is Kind.JOINED:
            users = tuple(u for u in dict.fromkeys(draft.users) if not work.present(u))
            if not users:
                raise InvalidInput("All of these users are members already.")
            self._check_room(work, users)
            self._charge(draft, users)
            return work.join(draft, Kind.JOINED, users)
        if draft.kind is Kind.LEFT:
            users = tuple(u for u in dict.fromkeys(draft.users) if work.present(u))
            if not users:
                raise InvalidInput("None of these users is a member.")
            return work.leave(draft, users)
        seq = work.write_membership(draft, Kind.RENAMED, ())
        work.rename(draft.name or "")
        return seq

    def _charge(self, draft: Draft, users: Sequence[UserId]) -> None:
        """A batch may be decided again; who is put somewhere is charged for the first time."""
        identity = (draft.conversation, draft.sender, draft.client_message_id)
        if self._charged.get(identity) is None:
            self._joins(draft, users)
            self._charged.put(identity, True)

    def _create(self, draft: Draft, work: _Work) -> Seq:
        if work.head:
            raise ConversationExists
        users = tuple(dict.fromkeys((draft.sender, *draft.users)))
        self._check_room(work, users)
        self._charge(draft, users)
        seq = work.join(draft, Kind.CREATED, users)
        if draft.name is not None:
            work.rename(draft.name)
        return seq

    def _check_room(self, work: _Work, users: tuple[UserId, ...]) -> None:
        if work.member_count + len(users) > self._group_members:
            raise GroupFull(f"A group has at most {self._group_members} members.")
