"""A server of our own that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[int], str | None]
"""Number of the request, from 0 -> what goes wrong, if anything."""

_SENT = 32 * 1024


def never(_: int) -> None:
    """Nothing goes wrong."""


def always(fault: str) -> Fault:
    return lambda _: fault


def at(fault: str, *numbers: int) -> Fault:
    return lambda number: fault if number in numbers else None


def every(step: int, fault: str) -> Fault:
    """The first of so many, and so on."""
    return lambda number: fault if number % step == 0 else None


class FaultyServer:
    """Serves a folder with ranges; `fault` says what goes wrong, `latency` delays every answer.

    A fault is "reset" (half an answer, then RST), "cut" (half of it, then a clean end), "stall"
    (half of it, then silence), "wrong" (other bytes), "gone" (the object is shorter than it was),
    or a status such as "503".
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.latency, self.bucket = folder, 0.0, ""
        self.fault: Fault = never
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def requests(self) -> int:
        return self.asked.total()

    def begin(self, name: str) -> str | None:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self._now, self.most_at_once)
            fault = self.fault(self.requests)
            self.asked[name] += 1
            if fault:
                self.faults[fault] += 1
        return fault

    def end(self) -> None:
        with self._lock:
            self._now -= 1

    @contextmanager
    def running(self) -> Iterator[str]:
        """The URL of the folder."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                name = self.path.lstrip("/").removeprefix(outer.bucket)
                fault = outer.begin(name)
                try:
                    time.sleep(outer.latency)
                    with contextlib.suppress(ConnectionError):
                        self.send(name, fault, body=body)
                finally:
                    outer.end()

            def send(self, name: str, fault: str | None, *, body: bool) -> None:
                file = outer.folder / name
                if (fault and fault.isdigit()) or not file.is_file():
                    self.plain(int(fault) if fault else 404)
                    return
                data = file.read_bytes()
                if fault == "gone":
                    data = data[: len(data) // 2]
                whole, first = len(data), 0
                wanted = self.headers.get("Range")
                if wanted:
                    start, _, stop = wanted.removeprefix("bytes=").partition("-")
                    first = int(start)
                    if first >= whole:
                        self.plain(416)
                        return
                    data = data[first : int(stop) + 1 if stop else None]
                if fault == "wrong":
                    data = bytes(b ^ 0x55 for b in data[:64]) + data[64:]
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Accept-Ranges", "bytes")
                if wanted:
                    span = f"bytes {first}-{first + len(data) - 1}/{whole}"
                    self.send_header("Content-Range", span)
                self.end_headers()
                if not body:
                    return
                if fault in {"reset", "cut", "stall"}:
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    if fault == "stall":
                        outer._stop.wait(60)
                    if fault == "reset":  # no linger: RST instead of FIN
                        linger = struct.pack("ii", 1, 0)
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    else:
                        self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    self.connection.close()
                    return
                for at in range(0, len(data), _SENT):
                    self.wfile.write(data[at : at + _SENT])

            def plain(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        server = Quiet(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self._stop.set()
            server.shutdown()
            server.server_close()
            thread.join()


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that went away; asked for by many at once."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        pass
