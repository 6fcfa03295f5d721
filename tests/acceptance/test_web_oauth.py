"""Flower's logins by OAuth and its TLS, with our pages behind them; GitHub and Okta are made up."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests

CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
    *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
)
KEY, SECRET = "our-client", "our-secret"


class Provider(BaseHTTPRequestHandler):
    """Says who somebody is, as GitHub and Okta do; everybody is `server.email`."""

    server: Any

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if address.path.endswith("/authorize"):
            assert query["client_id"] == KEY
            back = urlencode({"code": "one-time", "state": query["state"]})
            self.send_response(302)
            self.send_header("Location", f"{query['redirect_uri']}?{back}")
            self.end_headers()
            return
        assert self.headers["Authorization"].split()[1] == "token-of-ann"
        person = {"email": self.server.email, "email_verified": True, "verified": True}
        self.answer([person] if address.path.endswith("/emails") else person)

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        assert (body["code"], body["client_secret"]) == (["one-time"], [SECRET])
        self.answer({"access_token": "token-of-ann"})

    def answer(self, told: Any) -> None:
        text = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate of this machine, signed by itself, and its key."""
    made = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = [*CERTIFICATE, "-out", made[0], "-keyout", made[1]]
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.fixture
def provider(certificate: tuple[str, str]) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["GithubLoginHandler", "OktaLoginHandler"])
def test_who_logs_in_at_a_provider_sees_the_pages_over_tls_and_who_is_not_let_in_does_not(
    tmp_path: Path,
    redis_url: str,
    certificate: tuple[str, str],
    provider: Any,
    free_port: Callable[[], int],
    name: str,
) -> None:
    port, place = free_port(), f"localhost:{provider.server_port}"
    home = f"https://localhost:{port}"
    options = (
        f"--port={port}",
        "--auth=ann@example.org",
        f"--auth_provider=flower.views.auth.{name}",
        f"--oauth2_key={KEY}",
        f"--oauth2_secret={SECRET}",
        f"--oauth2_redirect_uri={home}/login",
        f"--certfile={certificate[0]}",
        f"--keyfile={certificate[1]}",
    )
    env = {
        "BATCHQ_BROKER_URL": redis_url,
        "FLOWER_GITHUB_OAUTH_DOMAIN": place,
        "FLOWER_OAUTH2_OKTA_BASE_URL": f"https://{place}/oauth2",
        "SSL_CERT_FILE": certificate[0],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "batchq", "flower", *options],
        env=os.environ | env,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )

    def visit(email: str, *paths: str) -> list[requests.Response]:
        provider.email = email
        with requests.Session() as browser:
            browser.verify, browser.trust_env = certificate[0], False
            return [browser.get(home + path, timeout=20) for path in paths]

    assert process.stderr is not None
    with process:
        line = process.stderr.readline()
        try:
            login, ours, theirs = visit("ann@example.org", "/runs", "/runs?state=open", "/tasks")
            [refused] = visit("eve@example.org", "/runs")
            [twin] = visit("eve@example.org", "/api/batchq/runs")
            with pytest.raises(requests.ConnectionError):
                requests.get(f"http://localhost:{port}/runs", timeout=20)
        finally:
            process.terminate()

    assert f"is at https://127.0.0.1:{port}/" in line
    # Flower does not remember where somebody wanted to go.
    assert (login.status_code, login.url) == (200, f"{home}/")
    assert place in login.history[2].url
    assert ours.status_code == 200
    assert "No run is like that" in ours.text
    assert theirs.status_code == 200
    assert 'href="/runs"' in theirs.text
    assert (refused.status_code, twin.status_code) == (403, 401)
