"""Checks and mints the tokens that say which user a connection is."""

import base64
import binascii
import os
from pathlib import Path
from typing import Any, Literal

import jwt
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from trunkline.core.ids import check_id
from trunkline.errors import (
    ConfigInvalid,
    InvalidId,
    TokenExpired,
    TokenMissing,
    Unauthenticated,
)
from trunkline.model import UserId
from trunkline.ports.authenticator import Grant
from trunkline.ports.clock import Clock

SECRET_BYTES = 32
TOKENS_FILE = "tokens.json"
"""The file of token keys in a data directory."""
LEEWAY_SECONDS = 30
_MOST_TOKEN_BYTES = 8_192


class TokenKey(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A key that tokens may be signed with.

    `secret` (base64url, HS256) or `public_key` (PEM, EdDSA). `retired`: tokens signed with
    it are refused.
    """

    kid: str
    alg: Literal["HS256", "EdDSA"]
    secret: str = ""
    public_key: str = ""
    retired: bool = False

    def material(self) -> Any:
        """The key as the JWT library takes it; raises `ConfigInvalid`."""
        try:
            if self.alg == "HS256":
                secret = base64.urlsafe_b64decode(self.secret + "=" * (-len(self.secret) % 4))
                if len(secret) < SECRET_BYTES:
                    raise ConfigInvalid(
                        f"The secret of token key {self.kid} has fewer than {SECRET_BYTES} bytes."
                    )
                return secret
            return load_pem_public_key(self.public_key.encode())
        except (binascii.Error, ValueError) as error:
            raise ConfigInvalid(f"Token key {self.kid} cannot be read: {error}.") from None


class TokenKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of token keys; the first HS256 key that is not retired mints."""

    keys: list[TokenKey]

    @classmethod
    def load(cls, path: Path) -> "TokenKeys":
        """Reads the file; raises `ConfigInvalid`."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigInvalid(f"The token keys in {path.name} cannot be read: {error}.") from None

    @classmethod
    def create(cls, path: Path, random_bytes: bytes) -> "TokenKeys":
        """Makes a file (0600) with one HS256 key of 32 random bytes."""
        secret = base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")
        keys = cls([TokenKey("1", "HS256", secret=secret)])
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(keys)))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        return keys


class JwtAuthenticator:
    """Authenticates tokens against a set of keys, chosen by the token's `kid`."""

    def __init__(self, keys: TokenKeys, clock: Clock) -> None:
        self._keys = {k.kid: (k.alg, k.material()) for k in keys.keys if not k.retired}
        self._clock = clock

    def authenticate(self, token: str) -> Grant:
        """The token's grant; raises `TokenMissing`, `TokenExpired` or `Unauthenticated`."""
        if not token:
            raise TokenMissing
        if len(token) > _MOST_TOKEN_BYTES:
            raise Unauthenticated
        try:
            kid = jwt.get_unverified_header(token)["kid"]
            algorithm, material = self._keys[kid]
            claims = jwt.decode(
                token,
                material,
                algorithms=[algorithm],
                options={
                    "require": ["sub", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            user, expires = claims["sub"], float(claims["exp"])
            not_before = float(claims.get("nbf", 0))
            check_id(user, "user id")
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, InvalidId):
            raise Unauthenticated from None
        now = self._clock.now_ms() / 1000
        if now > expires + LEEWAY_SECONDS:
            raise TokenExpired
        if now < not_before - LEEWAY_SECONDS or not expires < 1e11:
            raise Unauthenticated
        return Grant(UserId(user), int((expires + LEEWAY_SECONDS) * 1000))


def mint(keys: TokenKeys, user: UserId, *, now_ms: int, ttl_seconds: float) -> str:
    """A token for a user, signed with the first HS256 key; raises `ConfigInvalid`."""
    check_id(user, "user id")
    for key in keys.keys:
        if key.alg == "HS256" and not key.retired:
            now = now_ms // 1000
            claims = {"sub": user, "iat": now, "exp": int(now + ttl_seconds)}
            return jwt.encode(claims, key.material(), "HS256", headers={"kid": key.kid})
    raise ConfigInvalid("No token key here can sign: the application's backend mints tokens.")
