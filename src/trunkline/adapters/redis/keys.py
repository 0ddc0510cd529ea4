"""Names of keys and channels. What one script touches shares a hash tag, so one slot."""

from typing import NamedTuple

from trunkline.model import ConversationKey, EndpointId, UserId, WorkerId


class ConversationKeys(NamedTuple):
    """The keys of one conversation, and the tag that they share."""

    tag: bytes
    entries: bytes
    row: bytes
    offsets: bytes
    watchers: bytes


class Keys:
    """All names, behind one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}:{{".encode()

    def conversation(self, key: ConversationKey) -> ConversationKeys:
        """List of entries, hash of head and base, offsets of members, watching workers."""
        tag = b"%016x" % key
        stem = self._prefix + tag
        return ConversationKeys(
            tag, stem + b"}:entries", stem + b"}:head", stem + b"}:offsets", stem + b"}:watchers"
        )

    def row(self, key: ConversationKey) -> tuple[bytes, bytes]:
        """Tag and name of the hash of a conversation's head and base."""
        tag = b"%016x" % key
        return tag, self._prefix + tag + b"}:head"

    def watchers(self, key: ConversationKey) -> tuple[bytes, bytes]:
        """Tag and name of the hash of a conversation's watching workers."""
        tag = b"%016x" % key
        return tag, self._prefix + tag + b"}:watchers"

    def endpoint(self, user: UserId, endpoint: EndpointId) -> tuple[bytes, bytes]:
        """Tag and name of the hash of an endpoint's read offsets."""
        tag = _tag(user)
        return tag, self._prefix + tag + b"}:endpoint:" + endpoint.encode()

    def workers(self, user: UserId) -> tuple[bytes, bytes]:
        """Tag and name of the hash of the workers that serve a user."""
        tag = _tag(user)
        return tag, self._prefix + tag + b"}:workers"

    def inbox(self, worker: WorkerId) -> tuple[bytes, bytes]:
        """Tag and name of a worker's channel."""
        tag = _tag(worker)
        return tag, self._prefix + tag + b"}:inbox"

    def life(self, number: int) -> tuple[bytes, bytes]:
        """Tag and name of a mark that is gone once the server's data set is."""
        tag = b"life %d" % number
        return tag, self._prefix + tag + b"}"


def _tag(name: str) -> bytes:
    """A name that does not end the tag early and is never empty; no two become one."""
    return b"=" + name.replace("%", "%25").replace("}", "%7D").encode()
