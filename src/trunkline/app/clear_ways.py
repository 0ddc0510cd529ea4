"""Names the ways to a cluster's tiers on which others could read what is sent."""

from ipaddress import ip_address

import structlog

from trunkline.config import Config

_log = structlog.get_logger("trunkline.app")


def clear_ways(config: Config) -> list[str]:
    """Tiers that are neither on loopback nor talked to over TLS, each as `tier HOST:PORT`."""
    places = [
        *(
            (f"database {d.host}:{d.port}", d.host, config.mysql.tls)
            for d in config.mysql.databases
        ),
        *(
            (f"Redis {node}", node.rpartition(":")[0].strip("[]"), config.redis.tls)
            for node in config.redis.nodes
        ),
        (f"HBase {config.hbase.host}:{config.hbase.port}", config.hbase.host, config.hbase.tls),
    ]
    return [place for place, host, tls in places if not tls and not _on_loopback(host)]


def warn_of_clear_ways(config: Config) -> None:
    """Logs each of them: names of users, sizes and times can be read there, logins be taken."""
    for place in clear_ways(config):
        _log.warning("tier_without_tls", place=place, advice="Set `tls = true` for it.")


def _on_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
