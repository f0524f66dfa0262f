"""TLS of the Flight endpoints: what a server shows, and what a client trusts.

Without TLS the token and the episodes cross the network as they are. The files are read when an endpoint or a client is
made, so a renewed certificate counts from the next start of its process.
"""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from buffer.config import FlightTls
from buffer.errors import ReplayError


@dataclass(frozen=True)
class Identity:
    """What a server shows: its chain of certificates and its private key, in PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Return a text without the key."""
        return "Identity(...)"


@dataclass(frozen=True)
class Trust:
    """What a client trusts: certificates in PEM, and the name to expect in place of the address, or None."""

    authority: bytes
    name: str | None = None


def read_identity(tls: FlightTls) -> Identity:
    """Return what a server shows. Raises ReplayError if a file cannot be read, others may read the key, or certificate
    and key do not belong together."""
    certificate, key = _read(tls.certificate, "certificate"), _read(tls.key, "key")
    if stat.S_IMODE(os.stat(tls.key).st_mode) & stat.S_IROTH:
        raise ReplayError(f"replay.tls.key: every user of this machine can read {tls.key}; chmod 600 {tls.key}")
    try:
        # The empty password: OpenSSL would ask the terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ReplayError(
            f"replay.tls: {tls.certificate} and {tls.key} are no certificate and its key ({error}); give both in PEM, "
            "the key without a password"
        ) from error
    return Identity(certificate, key)


def read_trust(tls: FlightTls) -> Trust:
    """Return what a client trusts. Raises ReplayError if the file cannot be read or holds no certificate."""
    path = tls.authority or tls.certificate
    authority = _read(path, "authority" if tls.authority else "certificate")
    try:
        ssl.create_default_context(cadata=authority.decode())
    except (ssl.SSLError, ValueError) as error:
        raise ReplayError(f"replay.tls: {path} holds no certificate in PEM ({error})") from error
    return Trust(authority, tls.name)


def refusal(text: str) -> str | None:
    """Return a sentence if an error of a connection says that TLS failed for good, else None."""
    _, failed, reason = text.partition("certificate verify failed")
    if failed:
        reason = (reason.strip(": ").splitlines() or [""])[0]
        return f"its certificate is not one that this client trusts ({reason}); give the authority that signed it"
    if "is not in peer certificate" in text:
        return "its certificate has another name than the address; set the name to one that the certificate has"
    if "wrong version number" in text:
        return "it does not speak TLS; connect without TLS, or serve it with TLS"
    return None


def _read(path: str | Path, field: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ReplayError(
            f"replay.tls.{field}: {path} cannot be read on this node ({error.strerror}); every node with a replay "
            "process or a client needs the file"
        ) from error
