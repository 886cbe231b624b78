"""A Redis that speaks TLS alone, with a certificate authority of the test's own. The wheel's Valkey has no TLS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest
import redis

from tests.valkey import INSTALLS, Server

OPENSSL = shutil.which("openssl")
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
# Extensions of our own, all that RFC 5280 asks for: since 3.13 Python wants them, and the machine's set-up has others.
_SETUP = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def authority(folder: Path, name: str = "ca") -> Path:
    """Make a certificate authority, and return its certificate."""
    made = folder / f"{name}.pem"
    _openssl(made, "authority", "-subj", f"/CN=test {name}")
    return made


def certificate(ca: Path, name: Literal["server", "client"]) -> Path:
    """Have an authority sign a certificate, and return it; its key lies beside it. A server's is for 127.0.0.1."""
    made = ca.with_name(f"{name}.pem")
    _openssl(made, name, "-CA", ca, "-CAkey", ca.with_suffix(".key"), "-subj", f"/CN={name}")
    made.with_suffix(".key").chmod(0o644)
    return made


def _openssl(made: Path, kind: str, *more: object) -> None:
    setup, files = made.with_suffix(".cnf"), ["-keyout", made.with_suffix(".key"), "-out", made]
    setup.write_text(_SETUP, encoding="utf-8")
    asked = ["req", "-x509", "-config", setup, "-extensions", kind, *_KEY, *files, *more]
    subprocess.run([str(OPENSSL), *map(str, asked)], check=True, capture_output=True, timeout=30)


class SecureServer(Server):
    """A server for 127.0.0.1 whose ``url`` has the authority in it. ``clients``: it asks for their certificates."""

    def __init__(self, ca: Path, *, clients: bool = False) -> None:
        made = certificate(ca, "server")
        files = [f"tls-ca-cert-file {ca}", f"tls-cert-file {made}", f"tls-key-file {made.with_suffix('.key')}"]
        super().__init__("redis", settings=[*files, f"tls-auth-clients {'yes' if clients else 'no'}"])
        self._settings = [*self._settings, "port 0", f"tls-port {self.port}"]
        self.plain_url, self.address = self.url, f"rediss://127.0.0.1:{self.port}"
        self.url = f"{self.address}/0?ssl_ca_certs={ca}"
        if clients:
            mine = certificate(ca, "client")
            self.url += f"&ssl_certfile={mine}&ssl_keyfile={mine.with_suffix('.key')}"

    def client(self) -> redis.Redis:
        """A connection over TLS, to look and to break things with."""
        return redis.Redis.from_url(self.url, socket_timeout=5)


def needed() -> None:
    """Skip the test where there is no Redis that can do it."""
    if "redis" not in INSTALLS or OPENSSL is None:
        pytest.skip("no Redis with TLS here, or no openssl: Debian's packages redis-server and openssl")
