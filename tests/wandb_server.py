"""A server that speaks as much of wandb's language as a test needs."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer(BaseHTTPRequestHandler):
    """Answers a GraphQL question by the method of its name; subclasses have more of them."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("graphql"):
            body = json.loads(sent)
            name = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])[1]
            data = getattr(self, name, self.unknown)(body.get("variables"))
            self.reply({"data": data})
        else:
            self.reply(self.stream())

    def reply(self, content: Any) -> None:
        answer = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def unknown(self, _):
        return {}

    def stream(self):
        """Take what a run logs."""
        return {}

    def Viewer(self, _):
        me = {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}"}
        return {"viewer": me | {"teams": {"edges": []}}}

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def serving(handler: type[WandbServer]) -> Iterator[str]:
    """Its address, while it is entered."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
