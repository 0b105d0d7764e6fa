"""Runs a server on loopback that receives notifications."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "s3cr3t-webhook-token"


class Receiver:
    """A receiver of notifications on a free port of 127.0.0.1, which answers ``status``."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.status == 200:
                    receiver.messages.append(body)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"json://user:{SECRET}@127.0.0.1:{self._server.server_port}/{SECRET}"

    @property
    def bodies(self) -> list[str]:
        return [message["message"] for message in self.messages]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
