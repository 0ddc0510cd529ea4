"""Composition of `migrate-data`: an embedded data directory moves into a cluster."""

from pathlib import Path

from trunkline.adapters.hbase.opening import open_hbase
from trunkline.adapters.jwt import TokenKeys
from trunkline.adapters.jwt.tokens import TOKENS_FILE
from trunkline.adapters.keyring import KeyringSealer, keyring_source
from trunkline.adapters.keyring.source import KEYRING_FILE
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.mysql.inspection import MysqlInspection
from trunkline.adapters.mysql.stores import agreed_sentinel
from trunkline.adapters.node.durably import write_durably
from trunkline.adapters.sqlite import open_embedded
from trunkline.adapters.sqlite.inspect import Inspection
from trunkline.app.cluster import migrate, open_tiers
from trunkline.app.keys import bind_directory, open_sealer
from trunkline.app.offline import is_made
from trunkline.config import Config
from trunkline.errors import (
    ConfigInvalid,
    DataDamaged,
    DataDirInvalid,
    KeyringMissing,
    KeyringWrong,
    TokenKeysWrong,
)
from trunkline.services.moving import Holder, Move, MoveReport, OnProgress, compare, keys_of


async def move_directory(
    path: Path, config: Config, *, resume: bool, on_progress: OnProgress
) -> MoveReport:
    """Moves all that the directory holds, with its keys, then compares; the directory stays.

    The node's keyring and token keys are the directory's from then on: they are copied where
    there are none. The tables are made first where they are not. Safe to be cut off anywhere
    and run again with `resume`.

    Raises `KeyringWrong` or `TokenKeysWrong` if the node or the databases have others,
    `TargetNotEmpty` if the cluster holds any of the conversations, `DataDirLocked` while a
    server has the directory open, `DataDamaged`, `ConfigInvalid`, and what the tiers raise.
    """
    if config.tiers != "cluster":
        raise ConfigInvalid("The settings are not a cluster's: `tiers` must be `cluster`.")
    if not is_made(path):
        raise DataDirInvalid(f"{path} holds no conversation yet.")
    clock = SystemClock()
    started = clock.monotonic()
    sealer = open_sealer(path)
    if not sealer.bound:
        async with open_embedded(path, config.sqlite, clock) as stores:
            await bind_directory(path, stores, sealer)
    with Inspection(path, config.sqlite) as inspection:
        for fault in inspection.left_over:
            raise DataDamaged(f"{fault.where}: {fault.what}")
        await _bring_keys(path, config, sealer)
        await migrate(config, sentinel=sealer.sentinel)
        source = Holder(inspection.hot, inspection.cold)
        keys = await keys_of(source)
        async with open_tiers(config, clock) as tiers:
            if tiers.sealer.macs.key != sealer.macs.key:
                raise KeyringWrong(
                    f"The databases' members are authenticated with another key than those of "
                    f"{path}: move into databases that were not begun yet."
                )
            move = Move(source, keys, tiers.hot.intake, tiers.cold.cold, on_progress)
            present = await move.present(resume=resume)
            await move.run(present)
        async with MysqlInspection(config.mysql) as hot, open_hbase(config.hbase) as cold:
            report = await compare(source, Holder(hot, cold.inspection), keys, on_progress)
    report.kept = len(present)
    report.seconds = clock.monotonic() - started
    return report


async def _bring_keys(path: Path, config: Config, sealer: KeyringSealer) -> None:
    """Sees to it that the node opens what the directory's keys sealed, and takes its tokens."""
    node = config.data_path
    keyring = Path(config.keyring.file) if config.keyring.file else node / KEYRING_FILE
    try:
        held = keyring_source(config.keyring, node).read()
    except KeyringMissing:
        if (agreed := await agreed_sentinel(config.mysql)) is not None:
            KeyringSealer(sealer.keyring, fresh=False).verify_sentinel(agreed)
    else:
        if any(held.keys.get(number) != key for number, key in sealer.keyring.keys.items()):
            raise KeyringWrong(
                f"{held.place} does not hold the keys of {path / KEYRING_FILE}. Where nothing "
                "was sealed with it yet, move it away and empty the databases: it is copied then."
            )
    tokens = path / TOKENS_FILE
    if tokens.exists() and (node / TOKENS_FILE).exists():
        known = {key.kid: key for key in TokenKeys.load(node / TOKENS_FILE).keys}
        if any(known.get(key.kid) != key for key in TokenKeys.load(tokens).keys):
            raise TokenKeysWrong(
                f"{node / TOKENS_FILE} does not hold the keys of {tokens}: clients would be "
                "refused. Put them there, each with a `kid` of its own, or move it away."
            )
    node.mkdir(mode=0o700, parents=True, exist_ok=True)
    copies = [(tokens, node / TOKENS_FILE)]
    if not config.keyring.json:
        copies.append((path / KEYRING_FILE, keyring))
    for here, there in copies:
        if here.exists() and not there.exists():
            write_durably(there, here.read_bytes(), mode=0o600)
