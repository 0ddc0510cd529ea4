"""Composition of what changes keys: a cluster while it runs, a data directory at rest."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec

from trunkline.adapters.keyring import (
    Keyring,
    KeyringSealer,
    KeyringSource,
    keyring_source,
    new_key,
)
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.sqlite import open_embedded
from trunkline.app.cluster import open_tiers
from trunkline.app.keys import SentinelFile, bind_directory, open_sealer
from trunkline.app.offline import is_made
from trunkline.config import Config
from trunkline.core.envelope import kek_of
from trunkline.errors import ConfigInvalid, DataDirInvalid, KeyInUse, KeyringWrong
from trunkline.model import Conversation, ConversationId
from trunkline.ports.keys import KeyAgreement, WrappedKeys
from trunkline.services.keys import SHREDDED, KeyChanges


class KeyStatus(msgspec.Struct, frozen=True):
    """Which KEKs there are, and what they wrap.

    `keyring`: ids that the keyring holds; `current` wraps new data keys; `agreed`: that of
    the deployment. `conversations`: per database, how many by the id of their KEK;
    `behind`: how many another KEK than the agreed one wraps; `shredded`: how many have no key
    any more.
    """

    keyring: tuple[int, ...]
    current: int
    agreed: int
    conversations: Mapping[str, Mapping[str, int]]
    behind: int
    shredded: int


class Rotated(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a change of keys did. `keyring`: the new one, where it is not kept in a file."""

    kek: int
    rewrapped: int = 0
    keyring: str = ""


class _Opened(msgspec.Struct, frozen=True):
    source: KeyringSource
    sealer: KeyringSealer
    keys: WrappedKeys
    agreement: KeyAgreement
    changes: KeyChanges


async def key_status(config: Config) -> KeyStatus:
    """Counts what is wrapped with which KEK."""
    async with _opened(config) as opened:
        counts = await opened.keys.counts()
        agreed = kek_of(await opened.agreement.sentinel())
        summed = Counter[int]()
        for counted in counts.values():
            summed.update(counted)
        return KeyStatus(
            tuple(sorted(opened.sealer.keyring.keys)),
            opened.sealer.kek_id,
            agreed,
            {
                name: {str(kek): counted[kek] for kek in sorted(counted) if kek != SHREDDED}
                for name, counted in counts.items()
            },
            sum(count for kek, count in summed.items() if kek not in (agreed, SHREDDED)),
            summed[SHREDDED],
        )


def add_key(config: Config) -> Rotated:
    """Adds a KEK to the keyring, for `rotate` to make current once every machine has it.

    Raises `KeyInUse` if there is one already that waits for that.
    """
    source = keyring_source(config.keyring, config.data_path)
    return _changed(source, source.change(_with_new_key))


async def rotate_keys(config: Config, *, told: Callable[[int], None] = lambda _: None) -> Rotated:
    """Makes the newest KEK the deployment's, and wraps every conversation's key with it.

    The newest is one that `add_key` added, or one whose rotation was cut short, wherever; else
    it is added now. Raises `ConfigInvalid` if it would have to be added to a keyring out of the
    environment, `KeyringWrong` if the deployment has agreed on another key of that id.
    """
    async with _opened(config) as opened:
        agreed = await opened.agreement.sentinel()
        await _have_newer(opened, kek_of(agreed))
        target = opened.sealer.keyring.newest
        opened.sealer.advance(target)
        if target > kek_of(agreed):
            stands = await opened.agreement.agree(agreed, opened.sealer.sentinel())
            _check_agreed(opened.sealer, stands)
        return await _rewrapped(opened, target, told)


async def rewrap_keys(config: Config, *, told: Callable[[int], None] = lambda _: None) -> Rotated:
    """Wraps with the deployment's KEK what is not yet; adds none, and makes none current."""
    async with _opened(config) as opened:
        agreed = kek_of(await opened.agreement.sentinel())
        opened.sealer.advance(agreed)
        return await _rewrapped(opened, agreed, told)


async def _rewrapped(opened: _Opened, kek_id: int, told: Callable[[int], None]) -> Rotated:
    changed = opened.source.change(lambda keyring: keyring.with_current(kek_id))
    count = await opened.changes.rewrap(told=told)
    done = _changed(opened.source, changed)
    return msgspec.structs.replace(done, kek=kek_id, rewrapped=count)


async def retire_key(config: Config, kek_id: int) -> Rotated:
    """Takes a KEK out of the keyring, once nothing is wrapped with it any more.

    From then on no conversation can be created under it either, by whatever process. Raises
    `KeyInUse` if it is the current one, or some conversation is wrapped with it.
    """
    async with _opened(config) as opened:
        agreed = kek_of(await opened.agreement.sentinel())
        if kek_id >= agreed:
            raise KeyInUse(f"Key {kek_id} is not older than the current one, {agreed}.")
        if kek_id not in opened.sealer.keyring.keys:
            raise KeyringWrong(f"{opened.sealer.keyring.place} does not hold key {kek_id}.")
        await opened.agreement.fence(agreed)
        await opened.changes.check_unused(kek_id)
        changed = opened.source.change(lambda keyring: keyring.with_current(agreed).without(kek_id))
        return msgspec.structs.replace(_changed(opened.source, changed), kek=kek_id)


async def shred_conversation(config: Config, conversation: str) -> Conversation:
    """Destroys the data key of a conversation; returns its row before.

    Raises `NotMember` if there is none of this id.
    """
    async with _opened(config) as opened:
        return await opened.changes.shred(ConversationId(conversation))


async def _have_newer(opened: _Opened, agreed: int) -> None:
    """Adds a KEK, unless there is one that is still to be rotated to, or was not to the end.

    A rotation makes its KEK the deployment's, then the keyring's, then wraps: all of it was
    done where the two agree and nothing is wrapped with another.
    """
    keyring = opened.sealer.keyring
    if keyring.newest > agreed or keyring.current < agreed:
        return
    async for _ in opened.keys.wrapped_otherwise(agreed):
        return
    if not opened.source.kept:
        raise ConfigInvalid(
            "The keyring stands in the settings: put what `trunkline keys add` prints there, "
            "start every process anew, then rotate."
        )
    # Another rotation may have added one since the keyring was read.
    opened.source.change(lambda now: now if now.newest > agreed else now.with_key(new_key()))
    opened.sealer.refresh()


def _with_new_key(keyring: Keyring) -> Keyring:
    if keyring.newest > keyring.current:
        raise KeyInUse(
            f"Key {keyring.newest} was added and is not current yet: copy the keyring to every "
            "machine, then run `trunkline keys rotate`."
        )
    return keyring.with_key(new_key())


def _check_agreed(sealer: KeyringSealer, sentinel: bytes) -> None:
    """Raises `KeyringWrong` if another process was first, with another key."""
    try:
        sealer.verify_sentinel(sentinel)
    except KeyringWrong as error:
        raise KeyringWrong(
            f"The deployment agreed on another key {kek_of(sentinel)}: rotate where it was "
            "made, or copy that keyring here."
        ) from error


def _changed(source: KeyringSource, keyring: Keyring) -> Rotated:
    text = "" if source.kept else keyring.encode().decode()
    return Rotated(keyring.newest, keyring=text)


@asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[_Opened]:
    """What is needed of a cluster, or of a directory that no server has open (`DataDirLocked`)."""
    clock = SystemClock()
    source = keyring_source(config.keyring, config.data_path)
    if config.tiers == "cluster":
        async with open_tiers(config, clock) as tiers:
            # What was agreed on while the tiers were opened, the keyring may hold by now.
            tiers.sealer.agree(await tiers.hot.keys.sentinel())
            changes = KeyChanges(tiers.hot.hot, tiers.hot.keys, tiers.cold.cold, tiers.sealer)
            yield _Opened(source, tiers.sealer, tiers.hot.keys, tiers.hot.keys, changes)
        return
    data = config.data_path
    if not is_made(data):
        raise DataDirInvalid(f"{data} holds nothing yet.")
    sealer = open_sealer(data, config.keyring)
    async with open_embedded(data, config.sqlite, clock) as stores:
        changes = await bind_directory(data, stores, sealer)
        yield _Opened(source, sealer, stores.keys, SentinelFile(data), changes)
