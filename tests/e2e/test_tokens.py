"""A token proves who is there; nothing else does, and not for longer than it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from foreign_client import ForeignClient, Server

from trunkline.adapters.jwt import TokenKey

EDDSA = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = EDDSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
Forge = Callable[[Server], str]


def claims(user: Any = "alice", *, seconds: float = 600, **others: Any) -> dict[str, Any]:
    return {"sub": user, "exp": int(time.time() + seconds), **others}


def signed(server: Server, payload: dict[str, Any], *, kid: Any = "1") -> str:
    secret = server.keys.keys[0].material()
    return jwt.encode(payload, secret, "HS256", headers={"kid": kid})


def by_hand(payload: dict[str, Any], algorithm: str, key: bytes, kid: str) -> str:
    """A token whose header says anything, signed by HMAC-SHA256, as a forger would make it."""
    part = jwt.utils.base64url_encode
    header = jwt.api_jws.json.dumps({"alg": algorithm, "typ": "JWT", "kid": kid}).encode()
    text = part(header) + b"." + part(jwt.api_jws.json.dumps(payload).encode())
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(text, key)
    return (text + b"." + (part(signature) if key else b"")).decode()


def tampered(server: Server) -> str:
    header, _, signature = server.token("alice").split(".")
    payload = server.token("mallory").split(".")[1]
    return f"{header}.{payload}.{signature}"


FORGED: dict[str, Forge] = {
    "no token at all": lambda _: "certainly",
    "another's claims under a good signature": tampered,
    "another secret": lambda _: jwt.encode(claims(), b"x" * 32, "HS256", headers={"kid": "1"}),
    "no signature": lambda _: jwt.encode(claims(), "", "none", headers={"kid": "1"}),
    "the algorithm none with a key id": lambda _: by_hand(claims(), "none", b"", "1"),
    "no key id": lambda s: jwt.encode(claims(), s.keys.keys[0].material(), "HS256"),
    "an unknown key id": lambda s: signed(s, claims(), kid="7"),
    "a public key used as a secret": lambda _: by_hand(claims(), "HS256", PUBLIC, "ed"),
    "a public key used as a secret, said to be EdDSA": lambda _: by_hand(
        claims(), "EdDSA", PUBLIC, "ed"
    ),
    "EdDSA under the key id of a secret": lambda _: jwt.encode(
        claims(), EDDSA, "EdDSA", headers={"kid": "1"}
    ),
    "a retired key": lambda s: jwt.encode(
        claims(), s.keys.keys[-1].material(), "HS256", headers={"kid": "old"}
    ),
    "HS512 under the key id of HS256": lambda s: by_hand(
        claims(), "HS512", s.keys.keys[0].material(), "1"
    ),
    "no user": lambda s: signed(s, {"exp": int(time.time() + 600)}),
    "a user that is a number": lambda s: by_hand(
        claims(7), "HS256", s.keys.keys[0].material(), "1"
    ),
    "a user that is no id": lambda s: signed(s, claims("a\0b")),
    "no expiry": lambda s: signed(s, {"sub": "alice"}),
    "an expiry that is no number": lambda s: signed(s, {"sub": "alice", "exp": "soon"}),
    "an expiry that is not finite": lambda s: by_hand(
        {"sub": "alice", "exp": float("nan")}, "HS256", s.keys.keys[0].material(), "1"
    ),
    "not valid before tomorrow": lambda s: signed(s, claims(nbf=int(time.time() + 86_400))),
    "an audience": lambda s: signed(s, claims(aud="another service")),
    "10 KB": lambda s: signed(s, claims(note="x" * 10_000)),
}


@pytest.fixture
async def guarded(start_server: Any) -> Server:
    """A server with a secret, a public key and a retired secret."""
    server: Server = await start_server(
        keys=[
            TokenKey("ed", "EdDSA", public_key=PUBLIC.decode()),
            TokenKey("old", "HS256", secret="b2xk" * 16, retired=True),
        ]
    )
    return server


async def refusal(client: ForeignClient) -> tuple[str, int, bool]:
    """Code, close code, and whether to come back."""
    frames, close = await client.end()
    assert [frame["t"] for frame in frames] == ["error", "goodbye"]
    assert frames[0]["code"] == frames[1]["code"]
    return frames[0]["code"], close, frames[1]["reconnect"]


async def hello(server: Server, token: str, **fields: Any) -> ForeignClient:
    client = await server.dial()
    await client.send("hello", token=token, endpoint="e1", **fields)
    return client


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_token_is_refused(guarded: Server, forge: Forge) -> None:
    client = await hello(guarded, forge(guarded))
    assert await refusal(client) == ("token_invalid", 4003, False)


async def test_no_token_is_refused(guarded: Server) -> None:
    assert await refusal(await hello(guarded, "")) == ("token_missing", 4003, False)


async def test_another_users_token_is_refused(guarded: Server) -> None:
    client = await hello(guarded, guarded.token("mallory"), user="alice")
    assert await refusal(client) == ("token_wrong_user", 4003, False)


async def test_an_expired_token_is_refused_after_the_leeway(guarded: Server) -> None:
    client = await hello(guarded, signed(guarded, claims(seconds=-32)))
    assert await refusal(client) == ("token_expired", 4004, False)


async def test_a_token_is_good_for_30_seconds_more_than_it_says(guarded: Server) -> None:
    payload = claims(seconds=-15)
    client = await hello(guarded, signed(guarded, payload))
    welcome = await client.receive()
    assert welcome["token_expires_ms"] == (payload["exp"] + 30) * 1000


async def test_a_token_signed_with_the_private_key_of_a_public_one_is_good(
    guarded: Server,
) -> None:
    token = jwt.encode(claims(nbf=int(time.time())), EDDSA, "EdDSA", headers={"kid": "ed"})
    assert (await (await hello(guarded, token, user="alice")).receive())["user"] == "alice"


async def test_a_token_that_ends_while_connected_ends_the_connection(guarded: Server) -> None:
    others = await guarded.connect("bob")
    client = await guarded.connect("alice", token=signed(guarded, claims(seconds=-29)))
    frames, close = await client.end()
    assert (close, frames[-1]["code"]) == (4004, "token_expired")
    assert (await others.ask("send", id="1", to="alice", body="still here"))["seq"] == 2


async def test_a_refresh_keeps_the_connection_past_the_first_tokens_end(
    guarded: Server,
) -> None:
    short = signed(guarded, claims(seconds=-28))
    kept = await guarded.connect("alice", token=short)
    ended = await guarded.connect("alice", endpoint="e2", token=short)
    done = await kept.ask("refresh", request=5, token=guarded.token("alice"))
    assert done == {"t": "done", "request": 5}
    assert (await ended.end())[1] == 4004
    assert (await kept.ask("send", id="1", to="bob", body="still here"))["seq"] == 2


async def test_a_refresh_with_another_users_token_ends_the_connection(guarded: Server) -> None:
    client = await guarded.connect("alice")
    await client.send("refresh", request=1, token=guarded.token("mallory"))
    assert await refusal(client) == ("token_wrong_user", 4003, False)
