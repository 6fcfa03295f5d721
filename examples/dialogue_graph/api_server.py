"""Tells the stats of graphs over HTTP: GET /api/synthetic-graph/<setting>/stats.

python api_server.py --port 8000
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from beats import InputError, find_setting
from figures import stats

PATH = re.compile(r"/api/synthetic-graph/(?P<setting>[^/]+)/stats/?")


def answer(path: str) -> tuple[int, dict[str, Any]]:
    """The status and the body for a path."""
    match = PATH.fullmatch(urllib.parse.urlsplit(path).path)
    if match is None:
        return 404, {"error": "there is /api/synthetic-graph/<setting>/stats"}
    try:
        return 200, stats(find_setting(urllib.parse.unquote(match["setting"])))
    except InputError as error:
        return 404, {"error": str(error)}


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self) -> None:
        """Writes the answer as JSON."""
        status, body = answer(self.path)
        data = json.dumps(body, indent=2).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description="tells the stats of graphs over HTTP")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=8000, type=int, help="0: any that is free")
    options = parser.parse_args()
    with ThreadingHTTPServer((options.host, options.port), Handler) as server:
        print(f"http://{options.host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
