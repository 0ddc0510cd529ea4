"""The keyring and the token keys of a node's directory."""

import secrets
import stat
from pathlib import Path

import structlog

from trunkline.adapters.jwt import TokenKeys
from trunkline.adapters.jwt.tokens import SECRET_BYTES, TOKENS_FILE
from trunkline.adapters.keyring import KeyringSealer, keyring_source, open_sealer_of
from trunkline.adapters.keyring.settings import IN_DIRECTORY
from trunkline.adapters.keyring.settings import Settings as KeyringSettings
from trunkline.adapters.node.durably import write_durably
from trunkline.adapters.sqlite import EmbeddedStores
from trunkline.adapters.sqlite.directory import read_format
from trunkline.errors import ConfigInvalid, KeyringWrong
from trunkline.ports.keys import KeyAgreement
from trunkline.services.keys import KeyChanges

SENTINEL_FILE = "sentinel"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_log = structlog.get_logger("trunkline.app")


def open_node_sealer(data: Path, settings: KeyringSettings, *, create: bool) -> KeyringSealer:
    """The sealer over a node's keyring, which is made if need be and `create` says so.

    Raises `KeyringMissing`, `KeyringWrong` or, if the settings name two, `ConfigInvalid`.
    """
    if data.exists():
        _keep_private(data)
    sealer = open_sealer_of(keyring_source(settings, data), create=create)
    if sealer.keyring.created:
        _log.warning(
            "keyring_made", path=sealer.keyring.place,
            advice="Keep a copy elsewhere: without it nothing stored can be read.",
        )  # fmt: skip
    if sealer.keyring.readable_by_others:
        place = Path(sealer.keyring.place)
        if place.parent == data:
            _keep_private(place)
        else:
            _log.warning("keyring_readable_by_others", path=sealer.keyring.place)
    return sealer


def open_sealer(data: Path, settings: KeyringSettings = IN_DIRECTORY) -> KeyringSealer:
    """A data directory's keyring, made with it and checked against it.

    Raises `DataDirInvalid`, `DataDirNewer`, `KeyringMissing` or `KeyringWrong` before
    anything is opened or written.
    """
    fresh = read_format(data) is None
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    sentinel = data / SENTINEL_FILE
    sealer = open_node_sealer(data, settings, create=fresh and not sentinel.exists())
    if sentinel.exists():
        sealer.verify_sentinel(sentinel.read_bytes())
    elif fresh:
        write_durably(sentinel, sealer.sentinel())
    else:
        raise KeyringWrong(f"{sentinel} is missing: it tells that the keyring is the right one.")
    return sealer


def open_token_keys(data: Path, *, create: bool) -> TokenKeys:
    """The token keys of a directory; made if there are none and `create` says so.

    Raises `ConfigInvalid` if they cannot be read.
    """
    path = data / TOKENS_FILE
    if not path.exists():
        if create:
            return TokenKeys.create(path, secrets.token_bytes(SECRET_BYTES))
        raise ConfigInvalid(
            f"There are no token keys at {path}: copy them from a machine that has them, or put "
            "the public key of the application's backend there."
        )
    _keep_private(path)
    return TokenKeys.load(path)


def _keep_private(path: Path) -> None:
    """Takes a folder or file of a node from all but its owner; says so, or that it cannot (I12).

    What signs tokens or opens bodies stands in there, and a lock on a database file is enough to
    stop all sends.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & _OTHERS:
        return
    try:
        path.chmod(mode & ~_OTHERS)
    except OSError as error:
        _log.warning(
            "open_to_others", path=str(path), mode=f"{mode:o}", reason=error.strerror,
            advice="Other users of this machine may read it: run `chmod go=` on it.",
        )  # fmt: skip
    else:
        _log.warning("closed_to_others", path=str(path), mode=f"{mode:o}")


class SentinelFile:
    """A `ports.keys.KeyAgreement` of a data directory, which one process has open at a time."""

    def __init__(self, data: Path) -> None:
        self._path = data / SENTINEL_FILE

    async def sentinel(self) -> bytes:
        """What the file holds."""
        return self._path.read_bytes()

    async def agree(self, old: bytes, new: bytes) -> bytes:
        """Replaces the file."""
        if await self.sentinel() != old:
            return await self.sentinel()
        write_durably(self._path, new)
        return new

    async def fence(self, kek_id: int) -> None:
        """Nobody else creates anything here: the directory's lock is held."""


async def bind_directory(data: Path, stores: EmbeddedStores, sealer: KeyringSealer) -> KeyChanges:
    """What changes the keys of an open data directory, whose rows are bound from then on."""
    changes = KeyChanges(stores.hot, stores.keys, stores.cold, sealer)
    await bind_rows(sealer, SentinelFile(data), changes)
    return changes


async def bind_rows(sealer: KeyringSealer, agreement: KeyAgreement, changes: KeyChanges) -> None:
    """Takes over the rows of a store of the first version: binds keys and members to their places.

    May be cut off anywhere and run again. Nobody who does not bind what he writes may write
    meanwhile. Raises as `KeyChanges.rewrap`.
    """
    if sealer.bound:
        return
    begun = await agreement.agree(await agreement.sentinel(), sealer.sentinel())
    sealer.verify_sentinel(begun)
    _log.warning("rows_bound", conversations=await changes.bind())
    sealer.all_bound()
    await agreement.agree(begun, sealer.sentinel())
