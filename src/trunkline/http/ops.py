"""The operators' listener: `/healthz`, `/readyz`, `/metrics`."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from trunkline.errors import AddressInUse
from trunkline.services.readiness import Readiness


class OpsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where operators ask; not for the public net."""

    host: Annotated[
        str, msgspec.Meta(description="Address that the operators' listener binds.")
    ] = "127.0.0.1"
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65_535, description="Its port; 0 takes a free one.")
    ] = 8481


@asynccontextmanager
async def serve_ops(
    settings: OpsSettings, registry: CollectorRegistry, readiness: Readiness
) -> AsyncIterator[int]:
    """Listens while the context is open; yields the port. Raises `AddressInUse`.

    `/healthz` answers 200 while the process runs its loop; `/readyz` 200 while it can serve, else
    503, with a `services.readiness.Report` as JSON; `/metrics` the Prometheus text format.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        report = readiness.report()
        return web.Response(
            body=msgspec.json.encode(report),
            status=200 if report.ready else 503,
            content_type="application/json",
        )

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"{settings.host}:{settings.port} is in use: choose another ops port."
                ) from None
            raise
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
