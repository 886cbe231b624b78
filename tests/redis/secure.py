"""A Redis that speaks TLS alone, with a certificate authority of the test's own. The wheel's Valkey has no TLS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from tests.valkey import INSTALLS, Server

OPENSSL = shutil.which("openssl")
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]


def authority(folder: Path, name: str = "ca") -> Path:
    """Make a certificate authority, and return its certificate."""
    made = folder / f"{name}.pem"
    _openssl("-keyout", folder / f"{name}.key", "-out", made, "-subj", f"/CN=test {name}")
    return made


def certificate(ca: Path, name: str, *more: str) -> Path:
    """Have an authority sign a certificate, and return it; its key lies beside it."""
    made = ca.with_name(f"{name}.pem")
    signed = ["-CA", ca, "-CAkey", ca.with_suffix(".key"), "-subj", f"/CN={name}", *more]
    _openssl("-keyout", made.with_suffix(".key"), "-out", made, *signed)
    made.with_suffix(".key").chmod(0o644)
    return made


def _openssl(*arguments: object) -> None:
    subprocess.run(
        [str(OPENSSL), "req", "-x509", *_KEY, *map(str, arguments)], check=True, capture_output=True, timeout=30
    )


class SecureServer(Server):
    """A server for 127.0.0.1 whose ``url`` has the authority in it. ``clients``: it asks for their certificates."""

    def __init__(self, ca: Path, *, clients: bool = False) -> None:
        made = certificate(ca, "server", "-addext", "subjectAltName=IP:127.0.0.1")
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
