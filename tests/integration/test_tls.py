"""A broker behind TLS: all connections check its certificate."""

from __future__ import annotations

import runpy
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from batchq.embedded.binary import find_redis_server
from batchq.errors import QueueError
from batchq.queue.app import make_app
from batchq.settings import Settings

CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
    *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
)


@pytest.fixture
def tls_port(
    tmp_path: Path, wait_for: Callable[..., None], free_port: Callable[[], int]
) -> Iterator[int]:
    """A Redis behind TLS, with a certificate that nobody knows."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "ca.pem")
    command = [*CERTIFICATE, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port = free_port()
    argv = [str(find_redis_server()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    wait_for(answers, "Redis answers")
    path = Path(__file__).parents[1] / "chaos" / "proxy.py"
    proxy = runpy.run_path(str(path))["Proxy"](port, tls=context)
    yield proxy.port
    client.close()
    proxy.close()
    server.terminate()
    server.wait(10)


def reached(url: str) -> dict[str, Any]:
    """What becomes of each kind of connection."""
    app = make_app(Settings(broker_url=url))
    app.services.patience_s = 1.0
    found: dict[str, Any] = {}
    for name, reach in {
        "broker": lambda: app.connection_for_write().channel().client.ping(),
        "results": lambda: app.backend.client.ping(),
        "ledger": lambda: app.services.ledger.runs(),
    }.items():
        try:
            reach()
            found[name] = "reached"
        except (redis.RedisError, QueueError) as error:
            found[name] = "certificate" in str(error).lower()
    app.close()
    return found


def test_every_connection_to_a_broker_behind_tls_checks_its_certificate(
    tls_port: int, tmp_path: Path
) -> None:
    url = f"rediss://127.0.0.1:{tls_port}/0"

    known = reached(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}")
    unknown = reached(url)

    assert known == dict.fromkeys(("broker", "results", "ledger"), "reached")
    assert unknown == dict.fromkeys(("broker", "results", "ledger"), True)
