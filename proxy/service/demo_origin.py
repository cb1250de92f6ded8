"""The origin of `sluicegate demo`: a small web server in a process of its own.

`python -m proxy.service.demo_origin ADDRESS PORT` prints its port and serves until it is ended.
Each response tells in `X-Requests-Seen` how many requests have come, so that the demo can show
that a blocked one never did.
"""

from __future__ import annotations

import gzip
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PLAIN = b"The quick brown fox jumps over the lazy dog.\n"
PAGE = b"<!doctype html><html><head><title>Shop</title></head><body><h1>Shop</h1></body></html>\n"
RECORD = b'{"customer": "Ada", "card": "4111 1111 1111 1111", "total": 42}\n'
SERVER = "demo-origin/1.0"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = 0

    def version_string(self) -> str:
        return SERVER

    def log_message(self, format: str, *args: object) -> None:
        """The demo tells the story itself."""

    def do_GET(self) -> None:
        if self.path.endswith(".json"):
            self._answer(gzip.compress(RECORD), "application/json", coding="gzip")
            return
        page = self.path.endswith(".html")
        self._answer(PAGE if page else PLAIN, "text/html" if page else "text/plain")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self._answer(b"took %d bytes\n" % len(self.rfile.read(length)), "text/plain")

    def _answer(self, body: bytes, content_type: str, coding: str = "") -> None:
        _Handler.seen += 1
        self.send_response(200)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        if coding:
            self.send_header("Content-Encoding", coding)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Requests-Seen", str(_Handler.seen))
        self.end_headers()
        self.wfile.write(body)


def main(address: str, port: int) -> None:
    """Serve for ever."""
    server = ThreadingHTTPServer((address, port), _Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
