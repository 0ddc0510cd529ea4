"""TLS to every tier: a server that can be verified is talked to, any other one is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import hbase_tables
import msgspec
import pytest
import pytest_asyncio
from certificates import Authority, Files, mariadb_options, redis_options, terminating
from databases import database
from mariadb_server import PrivateMariadb, private_mariadb
from redis_server import PrivateRedis, opened, patient, private_redis

from trunkline.adapters.hbase.opening import open_hbase
from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.adapters.mysql.settings import Settings as MysqlSettings
from trunkline.adapters.mysql.stores import migrate_mysql
from trunkline.errors import ConfigInvalid, StorageUnavailable, TierUnavailable
from trunkline.model import ConversationKey, WorkerId
from trunkline.ports.tls import TlsSettings
from trunkline.testing.conformance.bus import take
from trunkline.testing.conformance.cached_eviction import write
from trunkline.testing.proxy import Proxy

CANNOT_VERIFY = "certificate is not to be trusted"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def trusted(authority: Authority) -> dict[str, Any]:
    return authority.trusted()


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    """One that signed nothing here."""
    return Authority(tmp_path, "other")


# --- the settings ---------------------------------------------------------------------------


def test_a_file_that_is_named_without_tls_is_refused() -> None:
    """Who names one does not mean to talk in the clear."""
    with pytest.raises(ConfigInvalid, match="tls = true"):
        TlsSettings(ca_file="ca.pem").tls_context()


def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nothing.pem"
    file.write_text("nothing")
    for settings in (
        TlsSettings(tls=True, ca_file=str(file)),
        TlsSettings(tls=True, certificate_file=str(file)),
        TlsSettings(tls=True, ca_file=str(tmp_path / "absent.pem")),
    ):
        with pytest.raises(ConfigInvalid, match=r"nothing\.pem|absent\.pem"):
            settings.tls_context()


# --- Redis ----------------------------------------------------------------------------------


@pytest.fixture
def redis(tmp_path: Path, authority: Authority) -> Iterator[PrivateRedis]:
    with private_redis(tmp_path, *redis_options(authority, "no"), tls=True) as server:
        yield server


async def test_redis_is_talked_to_over_tls(redis: PrivateRedis, authority: Authority) -> None:
    async with opened(patient(redis, tls=True, ca_file=str(authority.file)), "me") as stores:
        await stores.cached.append([write(ConversationKey(1), 1, 1, [])])
        assert not await stores.bus.publish({WorkerId("me"): b"to myself"})
        assert await take(stores.bus, 1) == [b"to myself"]


async def test_a_redis_of_another_authority_is_refused(
    redis: PrivateRedis, other: Authority
) -> None:
    for ca_file in (str(other.file), ""):
        with pytest.raises(TierUnavailable, match=CANNOT_VERIFY):
            async with opened(patient(redis, tls=True, ca_file=ca_file)):
                pass


async def test_a_redis_of_another_name_is_refused_unless_the_name_does_not_matter(
    tmp_path: Path, authority: Authority
) -> None:
    options = redis_options(authority, "no", address="127.0.0.2")
    with private_redis(tmp_path, *options, tls=True) as server:
        settings = patient(server, tls=True, ca_file=str(authority.file))
        with pytest.raises(TierUnavailable, match=CANNOT_VERIFY):
            async with opened(settings):
                pass
        async with opened(msgspec.structs.replace(settings, check_server_name=False)):
            pass


async def test_a_redis_that_wants_a_certificate_is_shown_one(
    tmp_path: Path, authority: Authority, trusted: dict[str, Any]
) -> None:
    client = Files(Path(trusted["certificate_file"]), Path(trusted["key_file"]))
    options = redis_options(authority, "yes")
    with private_redis(tmp_path, *options, tls=True, client=client) as server:
        async with opened(patient(server, **trusted)):
            pass
        async with opened(patient(server, tls=True, ca_file=str(authority.file))) as stores:
            with pytest.raises(TierUnavailable):
                await stores.cached.append([write(ConversationKey(1), 1, 1, [])])


# --- MariaDB --------------------------------------------------------------------------------


@pytest.fixture
def mariadb(tmp_path: Path, authority: Authority) -> Iterator[PrivateMariadb]:
    """A server whose user must show a certificate of the authority."""
    with private_mariadb(
        tmp_path / "mariadb", *mariadb_options(authority), require="REQUIRE X509"
    ) as server:
        yield server


async def refusal(settings: MysqlSettings) -> str:
    """Why a database cannot be asked."""
    async with database(settings) as reader:
        with pytest.raises(StorageUnavailable) as error:
            await reader.query("SELECT 1")
    return error.value.detail


async def test_mariadb_is_talked_to_over_tls_and_any_other_is_refused(
    mariadb: PrivateMariadb, authority: Authority, other: Authority, trusted: dict[str, Any]
) -> None:
    settings = mariadb.whole(**trusted)
    await migrate_mysql(settings, lambda: b"sentinel")
    async with database(settings) as reader:
        ((_, cipher),) = await reader.query("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    assert cipher
    for ca_file in (str(other.file), ""):
        wrong = msgspec.structs.replace(settings, ca_file=ca_file)
        assert CANNOT_VERIFY in await refusal(wrong)
    assert "Access denied" in await refusal(mariadb.whole())
    assert "Access denied" in await refusal(mariadb.whole(tls=True, ca_file=str(authority.file)))


async def test_a_database_without_tls_is_not_talked_to_in_the_clear(
    tmp_path: Path, trusted: dict[str, Any]
) -> None:
    with private_mariadb(tmp_path / "mariadb", "--skip-ssl") as server:
        async with database(server.whole()) as reader:
            assert await reader.query("SELECT 1") == ((1,),)
        await refusal(server.whole(**trusted))


# --- HBase ----------------------------------------------------------------------------------


@pytest.fixture
def hbase(hbase_server: HbaseSettings) -> HbaseSettings:
    """A table of these tests' own."""
    return msgspec.structs.replace(hbase_server, table=f"{hbase_server.table}_tls")


@pytest_asyncio.fixture
async def terminated(hbase: HbaseSettings, authority: Authority) -> AsyncIterator[Proxy]:
    """What ends TLS in front of the Thrift server, and wants a certificate of the client."""
    async with Proxy(hbase.host, hbase.port, Random(1), tls=terminating(authority)) as proxy:
        await hbase_tables.make(hbase)
        yield proxy
        await hbase_tables.drop(hbase)


async def test_hbase_is_talked_to_over_tls_on_few_connections(
    terminated: Proxy, hbase: HbaseSettings, trusted: dict[str, Any]
) -> None:
    settings = msgspec.structs.replace(hbase, host="127.0.0.1", port=terminated.port, **trusted)
    async with open_hbase(settings) as tier:
        for number in range(20):
            assert await tier.cold.metadata(ConversationKey(number)) is None
    assert terminated.opened == 1


async def test_an_hbase_of_another_authority_is_refused(
    terminated: Proxy, hbase: HbaseSettings, trusted: dict[str, Any], other: Authority
) -> None:
    settings = msgspec.structs.replace(
        hbase, host="127.0.0.1", port=terminated.port, attempts=1, **trusted
    )
    for wrong in ({"ca_file": str(other.file)}, {"ca_file": ""}, {"host": "localhost"}):
        with pytest.raises(TierUnavailable, match=CANNOT_VERIFY):
            async with open_hbase(msgspec.structs.replace(settings, **wrong)):
                pass
    for plain in (
        {"certificate_file": "", "key_file": ""},
        dict.fromkeys(trusted, "") | {"tls": False},
    ):
        async with open_hbase(msgspec.structs.replace(settings, **plain)) as tier:
            with pytest.raises(TierUnavailable):
                await tier.cold.metadata(ConversationKey(1))
