"""The Python SDK: a client with a local store, an outbox and proof that its copy is complete."""

from trunkline.client.client import Client
from trunkline.client.conversations import ConversationInfo, Message, Proof, SetApart
from trunkline.client.counters import Counters
from trunkline.client.outbox import Posted, SentMessage
from trunkline.client.policy import AtOnce, OnOpen, Recent, SyncPolicy, WhenIdle
from trunkline.client.sqlite_store import SqliteStore
from trunkline.client.store import LocalStore, MemoryStore

__all__ = [
    "AtOnce",
    "Client",
    "ConversationInfo",
    "Counters",
    "LocalStore",
    "MemoryStore",
    "Message",
    "OnOpen",
    "Posted",
    "Proof",
    "Recent",
    "SentMessage",
    "SetApart",
    "SqliteStore",
    "SyncPolicy",
    "WhenIdle",
]
