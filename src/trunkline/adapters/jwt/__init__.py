"""Tokens as signed JWTs (RFC 7519): HS256 and EdDSA, key ids, rotation, expiry, leeway."""

from trunkline.adapters.jwt.tokens import JwtAuthenticator, TokenKey, TokenKeys, mint

__all__ = ["JwtAuthenticator", "TokenKey", "TokenKeys", "mint"]
