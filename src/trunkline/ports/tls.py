"""TLS towards the servers of a tier: the settings, the same for each, and what they make."""

import ssl
from typing import Annotated

from msgspec import Meta, Struct

from trunkline.errors import ConfigInvalid


class TlsSettings(Struct, frozen=True, kw_only=True):
    """How connections to a tier's servers are encrypted; the files are read at a start."""

    tls: Annotated[
        bool,
        Meta(description="Whether connections are encrypted, the server's certificate verified."),
    ] = False
    ca_file: Annotated[
        str, Meta(description="PEM, certificates to trust, over TLS; none: the system's.")
    ] = ""
    certificate_file: Annotated[
        str, Meta(description="PEM, the certificate to show to a server that wants one.")
    ] = ""
    key_file: Annotated[
        str, Meta(description="PEM, its private key, where that is not in the same file.")
    ] = ""
    check_server_name: Annotated[
        bool,
        Meta(description="Whether the certificate must name the host as the settings name it."),
    ] = True

    def tls_context(self) -> ssl.SSLContext | None:
        """What to connect with, None without TLS.

        Raises `ConfigInvalid` if a file is not what it should be, or is named without `tls`: who
        named it did not mean to talk in the clear.
        """
        if not self.tls:
            if self.ca_file or self.certificate_file or self.key_file:
                raise ConfigInvalid("A certificate is named without `tls = true`.")
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.certificate_file or self.key_file:
                # With a password at hand nobody is asked for one on the terminal.
                context.load_cert_chain(self.certificate_file, self.key_file or None, password=b"")
        except OSError as error:
            files = ", ".join(filter(None, (self.ca_file, self.certificate_file, self.key_file)))
            raise ConfigInvalid(f"The certificates ({files}) cannot be read: {error}.") from None
        context.check_hostname = self.check_server_name
        return context


def why_refused(error: OSError) -> str:
    """In words why there is no connection; of a certificate, what is wrong with it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted ({error.verify_message})"
    return str(error)
