"""Makes a certificate authority for one test session, and a certificate for the loopback address."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate for 127.0.0.1 and localhost, its private key, and the authority that clients must trust."""

    ca_bundle: Path
    certificate: Path
    private_key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.private_key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.ca_bundle))


def make_tls(folder: Path) -> TlsFiles:
    """Write a new authority and certificate into ``folder``; the private key is mode 0600."""
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(files.ca_bundle)
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(files.certificate, append=index > 0)
    files.private_key.touch(mode=0o600)
    files.private_key.write_bytes(issued.private_key_pem.bytes())
    return files
