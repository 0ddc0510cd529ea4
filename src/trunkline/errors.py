"""One tree of errors: every error has a stable code, says whether to retry, and what to do.

The same codes stand on the WebSocket, in the SDK, the CLI and the logs. A code never
changes its meaning; `docs/protocol.md` lists them and a test holds the page against
this module.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class TrunklineError(Exception):
    """Base of all errors.

    Attributes:
        code: stable name, lower case with underscores.
        retryable: whether the same call may succeed later, unchanged.
        advice: a sentence for the reader: what to do.
        of_the_request: whether a detail of it speaks of nothing but the request that is
            refused and the limits that it met: only then it may be told to a client.
        retry_after_seconds: the earliest sensible time of a retry, where known.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    advice: ClassVar[str] = "This is a fault of the server; its log names it."
    of_the_request: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail or self.advice)
        self.detail = detail or self.advice
        self.retry_after_seconds = retry_after_seconds

    @property
    def told(self) -> str:
        """What a client is told: never a host, a path, or whatever else is the server's own."""
        return self.detail if self.of_the_request else self.advice


class Internal(TrunklineError):
    """A fault of ours. The answer carries no inner detail; the log does."""


class BatchRefused(Internal):
    """A store does not take a batch, and may take its parts: one of them may be the reason."""


# --- the protocol ---------------------------------------------------------------------


class ProtocolError(TrunklineError):
    """What arrived is not the protocol."""

    code = "bad_frame"
    of_the_request = True
    advice = "The frame is not valid: check its encoding, fields and types against the protocol."


class FrameTooLarge(ProtocolError):
    code = "frame_too_large"
    advice = "The frame is larger than the limit that `welcome` names."


class WrongOrder(ProtocolError):
    code = "wrong_order"
    advice = "The first frame must be `hello`, and `hello` comes once."


class UnsupportedVersion(ProtocolError):
    code = "unsupported_version"
    advice = "None of the versions offered in `hello` is spoken here."


class TooManyRequests(TrunklineError):
    code = "too_many_requests"
    retryable = True
    advice = "Too many requests of this connection are unanswered: wait for answers first."


class RateLimited(TrunklineError):
    code = "rate_limited"
    retryable = True
    advice = "This user sends faster than allowed: wait, then resend."


class UserCrowded(RateLimited):
    code = "user_crowded"
    advice = "One of these users was put into many conversations lately: wait, then resend."


class ListFull(TrunklineError):
    code = "list_full"
    advice = "One of these users has as many conversations as a user may have."


# --- who may ----------------------------------------------------------------------------


class Unauthenticated(TrunklineError):
    """The token is no proof of who is there."""

    code = "token_invalid"
    advice = "The token is not valid: get a new one from the application's backend."


class TokenMissing(Unauthenticated):
    code = "token_missing"
    advice = "`hello` needs a token."


class TokenExpired(Unauthenticated):
    code = "token_expired"
    advice = "The token has expired: get a new one and connect again."


class TokenOfAnotherUser(Unauthenticated):
    code = "token_wrong_user"
    advice = "The token was issued to another user than the one named."


class NotMember(TrunklineError):
    """No such conversation, or not a member of it: an outsider cannot tell which (I13)."""

    code = "not_member"
    advice = "This user is no member of such a conversation."


class ConversationExists(TrunklineError):
    code = "conversation_exists"
    advice = "A conversation of this id exists already: choose another id."


class NotAllowed(TrunklineError):
    code = "not_allowed"
    of_the_request = True
    advice = "This operation does not fit this kind of conversation."


class ConversationShredded(TrunklineError):
    """Its wrapped key was destroyed on purpose: no tier can be read any more, for ever."""

    code = "conversation_shredded"
    advice = "The key of this conversation was destroyed: nothing of it can be read or written."


# --- bad input --------------------------------------------------------------------------


class InvalidInput(TrunklineError):
    code = "invalid_input"
    of_the_request = True
    advice = "A field holds a value that is not allowed."


class InvalidId(InvalidInput):
    code = "invalid_id"
    advice = "Ids are 1 to 64 bytes of UTF-8 (conversations: 200); some prefixes are reserved."


class BodyEmpty(InvalidInput):
    code = "body_empty"
    advice = "A message needs a body."


class BodyTooLarge(InvalidInput):
    code = "body_too_large"
    advice = "The body is larger than the limit that `welcome` names."


class TooManyUsers(InvalidInput):
    code = "too_many_users"
    advice = "One operation may name fewer users: split it."


class GroupFull(InvalidInput):
    code = "group_full"
    advice = "The group has as many members as it may have."


class InvalidRange(InvalidInput):
    code = "invalid_range"
    advice = "A range must lie within the member's view and within the conversation's entries."


class AheadOfHead(InvalidInput):
    code = "ahead_of_head"
    advice = "The position lies past the conversation's head or the member's view."


# --- the server's state -----------------------------------------------------------------


class Overloaded(TrunklineError):
    code = "overloaded"
    retryable = True
    advice = "The server is at its bound: resend after a while."


class Replaced(TrunklineError):
    code = "replaced"
    advice = "This user has too many connections: the oldest makes room for the newest."


class ShuttingDown(TrunklineError):
    code = "shutting_down"
    retryable = True
    advice = "The server is going down: connect again and resend."


class OutcomeUnknown(TrunklineError):
    """Neither done nor not done: a resend with the same client message id settles it."""

    code = "outcome_unknown"
    retryable = True
    advice = "It is not known whether this was stored: resend it with the same id."


class StorageFull(TrunklineError):
    code = "storage_full"
    retryable = True
    advice = "The disk is full. Nothing acknowledged is lost; sends go on once there is room."


class StorageUnavailable(TrunklineError):
    code = "storage_unavailable"
    retryable = True
    advice = "A store does not answer. Nothing acknowledged is lost; retry later."


class TierUnavailable(StorageUnavailable):
    code = "tier_unavailable"
    advice = "The tier that holds this range does not answer: retry later."


class ShardMoved(TrunklineError):
    """Another writer has taken the shard over: what this one would write is refused (I11).

    It may have the shard again at once, or never: the detail says so where the database that
    it writes to holds the shard no more.
    """

    code = "shard_moved"
    retryable = True
    advice = "The shard was taken over meanwhile: resend with the same id, then to another worker."


# --- starting, files, keys --------------------------------------------------------------


class ConfigInvalid(TrunklineError):
    code = "config_invalid"
    advice = "The configuration has an unknown key or a value out of bounds."


class DataDirLocked(TrunklineError):
    code = "data_dir_locked"
    advice = "Another process has this data directory open: stop it first."


class DataDirNewer(TrunklineError):
    code = "data_dir_newer"
    advice = "The data directory was written by a newer version: use that one."


class DataDirInvalid(TrunklineError):
    code = "data_dir_invalid"
    advice = "This is not a data directory of Trunkline."


class ServerUnsafe(TrunklineError):
    """A database server is set so that it may lose what it committed."""

    code = "server_unsafe"
    advice = "Change the server's setting, or accept it with `accept_unsafe`, for a trial."


class SqliteUnsafe(TrunklineError):
    """The SQLite library that is loaded may lose what it committed."""

    code = "sqlite_unsafe"
    advice = "This SQLite library has a known fault: install a newer apsw, which brings its own."


class StoreNotMigrated(TrunklineError):
    code = "store_not_migrated"
    advice = "A store's tables are missing or of an older version: run `trunkline migrate`."


class StoreNewer(TrunklineError):
    code = "store_newer"
    advice = "A store's tables were made by a newer version: use that one."


class TargetNotEmpty(TrunklineError):
    """Where conversations are to be moved, some of them are already."""

    code = "target_not_empty"
    advice = "The cluster holds conversations of this directory already: none was changed."


class DataDamaged(TrunklineError):
    """Stored bytes are not what was written."""

    code = "data_damaged"
    advice = "Stored data is damaged: run `trunkline audit`, restore from a backup or a replica."


class KeyringMissing(TrunklineError):
    code = "keyring_missing"
    advice = "The keyring is not there; without it nothing stored can be read."


class KeyringWrong(TrunklineError):
    code = "keyring_wrong"
    advice = "The keyring does not hold the key that the data was sealed with."


class TokenKeysWrong(TrunklineError):
    code = "token_keys_wrong"
    advice = "The token keys do not hold the key that tokens in use were signed with."


class KeyringBehind(KeyringWrong):
    """Something was wrapped with a key that is not here, or created with an old one."""

    code = "keyring_behind"
    retryable = True
    advice = "This server's keyring is older than the data: copy the newest keyring to it."


class KeyInUse(TrunklineError):
    code = "key_in_use"
    advice = "Conversations are still wrapped with this key: run `trunkline keys rotate` first."


class SealBroken(DataDamaged):
    code = "seal_broken"
    advice = "A sealed body does not open: it was changed, moved, or sealed by another key."


class AddressInUse(TrunklineError):
    code = "address_in_use"
    advice = "Something else listens on this address: choose another port."


# --- the client's side ------------------------------------------------------------------


class Unreachable(TrunklineError):
    code = "unreachable"
    retryable = True
    advice = "The server cannot be reached."


class Redirected(Unreachable):
    """Something on the way, or the server's proxy, answers with another address."""

    code = "redirected"
    advice = "The address redirects to another one, which is not followed: name the right one."


class StoreOfAnotherEndpoint(TrunklineError):
    code = "local_store_wrong"
    advice = "The local store belongs to another user or endpoint, or to another server."


class StoreReplaced(TrunklineError):
    """The server has another store than this endpoint's copies are of."""

    code = "store_replaced"
    advice = "Another store answers: what this endpoint holds of the one before is set apart."


class StoreRestored(TrunklineError):
    """The server's store is in another life than this endpoint's copies are of."""

    code = "store_restored"
    advice = "The store may have lost what it has shown: all copies are compared with it."


class EntriesLost(TrunklineError):
    """Entries that this endpoint holds are not in the store.

    Attributes:
        conversation: of which they are.
        entries: what was lost, in order; those of the endpoint's own user may be sent again.
    """

    code = "entries_lost"
    advice = "Entries that this endpoint holds are not in the store: they are set apart."

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_seconds: float | None = None,
        conversation: str = "",
        entries: Sequence[Any] = (),
    ) -> None:
        super().__init__(detail, retry_after_seconds=retry_after_seconds)
        self.conversation = conversation
        self.entries = entries


class DigestMismatch(TrunklineError):
    """The endpoint's copy is not the server's (I14)."""

    code = "digest_mismatch"
    retryable = True
    advice = "The local copy differs from the server's: it is pulled afresh."


def _walk(root: type[TrunklineError]) -> dict[str, type[TrunklineError]]:
    found: dict[str, type[TrunklineError]] = {}
    for kind in root.__subclasses__():
        if "code" in vars(kind) or kind is Internal:
            found[kind.code] = kind
        found.update(_walk(kind))
    return found


BY_CODE: dict[str, type[TrunklineError]] = _walk(TrunklineError)
"""Every error of the tree by its code."""


def from_code(
    code: str, detail: str, *, retry_after_seconds: float | None = None
) -> TrunklineError:
    """The error that a code names, as it came over the wire.

    A code of a newer server that is not known here comes back as `Internal`.
    """
    kind = BY_CODE.get(code, Internal)
    return kind(detail, retry_after_seconds=retry_after_seconds)
