"""A chat endpoint on 127.0.0.1 that says and does what a script tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Say:
    """One answer of the server: a chat reply, or whatever else a server may do."""

    text: str = '{"spans": []}'
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # instead of a chat completion
    wait: float = 0.0
    cut: bool = False  # the connection ends after half of the body
    finish: str = "stop"


Script = Callable[[int, dict[str, Any]], Say]
"""(number of the request from 0, its JSON) -> what to do."""


@dataclass
class Server:
    """A running server: its address, and every request it got."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


class Quiet(ThreadingHTTPServer):
    """A server that does not mind when a client goes."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    """A server that follows the script until the block ends."""
    lock = threading.Lock()
    server = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.requests)
                server.requests.append(asked)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                server.times.append(time.monotonic())
            said = script(number, asked)
            time.sleep(said.wait)
            body = (said.body if said.body is not None else completion(said)).encode()
            try:
                self.send_response(said.status)
                for name, value in {"Content-Type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if said.cut else body)
                self.wfile.flush()
            except OSError:
                pass  # the client has gone
            self.close_connection = self.close_connection or said.cut

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def completion(said: Say) -> str:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": said.text}
    choice = {"index": 0, "message": message, "finish_reason": said.finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return json.dumps({"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
                       "usage": usage})  # fmt: skip


def error(message: str, code: str | None = None, param: str | None = None) -> str:
    """The body of an error as OpenAI's servers write it."""
    return json.dumps({"error": {"message": message, "type": "x", "code": code, "param": param}})
