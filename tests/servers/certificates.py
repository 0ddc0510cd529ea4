"""Certificates of a test's own: an authority, and what it signs for servers and clients."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Files(NamedTuple):
    """PEM files of a certificate and of its key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; `file` is what those trust who trust it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        certificate = self._signed(self._name, self._key, None)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def trusted(self) -> dict[str, str | bool]:
        """Settings of who trusts this authority and shows a certificate of it."""
        client = self.issue("client")
        return {
            "tls": True, "ca_file": str(self.file),
            "certificate_file": str(client.certificate), "key_file": str(client.key),
        }  # fmt: skip

    def issue(self, name: str, address: str = "127.0.0.1") -> Files:
        """A certificate for a host of this address, with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_name(name), key, address)
        files = Files(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, address: str | None
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=address is None, path_length=None), True)
        )
        if address is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def redis_options(authority: Authority, clients: str, address: str = "127.0.0.1") -> list[str]:
    """Of a Redis with TLS only; `clients`: whether they must show a certificate."""
    files = authority.issue("server", address)
    return [
        "--tls-port", "{port}", "--port", "0", "--tls-auth-clients", clients,
        "--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key),
        "--tls-ca-cert-file", str(authority.file),
    ]  # fmt: skip


def mariadb_options(authority: Authority) -> list[str]:
    """Of a MariaDB that offers TLS."""
    files = authority.issue("server")
    return [
        f"--ssl-ca={authority.file}", f"--ssl-cert={files.certificate}", f"--ssl-key={files.key}",
    ]  # fmt: skip


def terminating(authority: Authority) -> ssl.SSLContext:
    """Of what ends TLS in front of a server, and wants a certificate of the client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(*authority.issue("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
