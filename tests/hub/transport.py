"""The transport below the stand-in hub: a log of requests, trouble on demand, files in whole or in part."""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from tests.hub.repositories import Blob

if TYPE_CHECKING:
    from tests.hub.server import Hub


@dataclass
class Asked:
    """One request that came in.

    Attributes:
        method: GET, HEAD, POST, PUT or CONNECT.
        target: path and query as sent, or a whole address when it was meant for another host.
        headers: with names in lower case.
        status: of the answer; None while there is none.
    """

    method: str
    target: str
    headers: dict[str, str]
    status: int | None = None


@dataclass
class Fault:
    """What goes wrong with the requests whose ``METHOD target`` a regular expression finds.

    Attributes:
        pattern: searched in, for example, ``GET /gpt2/resolve/main/config.json``.
        status: answered instead of what was asked for; None = the true answer, with the trouble below.
        headers: sent along with ``status``.
        delay: seconds before anything is answered; ``float("inf")`` = until the hub stops.
        drip: seconds between one byte of the body and the next.
        cut: the connection breaks after so many bytes of the body.
        whole: a range that was asked for is ignored, as some caches do.
        times: how often it happens; None = always.
    """

    pattern: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    cut: int | None = None
    whole: bool = False
    times: int | None = None


class Server(ThreadingHTTPServer):
    """One port of a hub; its open connections can be broken."""

    daemon_threads = True

    def __init__(self, hub: Hub, handler: type[Handler], port: int) -> None:
        self.hub = hub
        self.open: set[Any] = set()
        super().__init__(("127.0.0.1", port), handler)

    def end(self) -> None:
        """Stop listening and break what is open."""
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            self.shutdown_request(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self.open.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent about clients that hang up, loud about mistakes of the stand-in itself."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """What both hosts do: keep a log, go wrong on demand, send files in whole or in part."""

    protocol_version = "HTTP/1.1"
    server: Server
    trouble: Fault

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on the terminal; :attr:`Hub.requests` has it."""

    def _answer(self) -> None:
        hub = self.server.hub
        self.entry = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        length = int(self.entry.headers.get("content-length", 0))
        self.body = self.rfile.read(length) if length else b""
        form = "urlencoded" in self.entry.headers.get("content-type", "")
        self.form = parse_qs(self.body.decode()) if form else {}
        with hub.lock:
            hub.requests.append(self.entry)
            self.trouble = self._pick()
        if self.trouble.delay and hub.stopping.wait(min(self.trouble.delay, threading.TIMEOUT_MAX)):
            self.close_connection = True
        elif self.trouble.status is not None:
            self.error(self.trouble.status, None, "On demand", self.trouble.headers)
        elif self.command == "CONNECT" or not self.path.startswith("/"):
            self.error(403, None, "No other host is reached from here")
        else:
            self.handle_path()

    do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = _answer

    def _pick(self) -> Fault:
        line = f"{self.command} {self.path}"
        for fault in self.server.hub.faults:
            if fault.times != 0 and re.search(fault.pattern, line):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return Fault("")

    def handle_path(self) -> None:
        """Answer a request in which nothing goes wrong."""
        raise NotImplementedError

    def head(self, status: int, headers: dict[str, Any]) -> None:
        """Send the status line and the headers."""
        self.entry.status = status
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()

    def error(self, status: int, code: str | None, message: str, more: dict[str, Any] | None = None) -> None:
        """Refuse, in the words that clients look for."""
        body = json.dumps({"error": message}).encode()
        named = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self.head(status, {**named, "Content-Length": len(body), **(more or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any, more: dict[str, Any] | None = None) -> None:
        """Answer with JSON."""
        self.whole(json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8", **(more or {})})

    def whole(self, body: bytes, headers: dict[str, Any]) -> None:
        """Answer with some bytes."""
        self.head(200, {**headers, "Content-Length": len(body)})
        self._send(Blob(body, len(body), "", ""), 0, len(body))

    def file(self, blob: Blob, headers: dict[str, Any]) -> None:
        """Answer with a file, or with the part of it that was asked for."""
        start, stop, asked = 0, blob.size, self.headers.get("Range")
        if asked and not self.trouble.whole:
            start, stop = _span(asked, blob.size)
            if start >= stop:
                self.error(416, None, "Range Not Satisfiable", {"Content-Range": f"bytes */{blob.size}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{blob.size}"}
        status = 206 if "Content-Range" in headers else 200
        self.head(status, {"Accept-Ranges": "bytes", **headers, "Content-Length": stop - start})
        self._send(blob, start, stop)

    def squeezed(self, blob: Blob, headers: dict[str, Any]) -> None:
        """Answer with a text file, compressed and of unsaid length, which is how the hub sends them when it may."""
        if self.command == "HEAD" or "gzip" not in (self.headers.get("Accept-Encoding") or ""):
            self.file(blob, headers)
            return
        body = gzip.compress(b"".join(blob.pieces(0, blob.size)))
        self.head(200, {**headers, "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"})
        self._send(Blob(body, len(body), "", ""), 0, len(body), chunked=True)

    def _send(self, blob: Blob, start: int, stop: int, chunked: bool = False) -> None:
        if self.command == "HEAD":
            return
        cut = self.trouble.cut is not None and start + self.trouble.cut < stop
        if cut:
            stop, self.close_connection = start + (self.trouble.cut or 0), True
        for piece in blob.pieces(start, stop, 1 if self.trouble.drip else 1 << 20):
            if self.trouble.drip and self.server.hub.stopping.wait(self.trouble.drip):
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked and not cut:
            self.wfile.write(b"0\r\n\r\n")


def _span(asked: str, size: int) -> tuple[int, int]:
    """Return the first byte of a range and the one after its last; an empty span if nothing is there."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    first, last = match.groups() if match else ("", "")
    if not first:
        return max(0, size - int(last or 0)), size
    return int(first), min(int(last) + 1, size) if last else size
