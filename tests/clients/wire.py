"""A client that sends exactly the bytes of a test, and reads the answers."""

import json
import os
import socket
import struct
import urllib.request

HOST = "127.0.0.1"
PORT = int(os.environ["TEST_PORT"])
ADMIN_PORT = int(os.environ["TEST_ADMIN_PORT"])

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION = 0x0

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# The answer RFC 6455 section 1.3 gives for that key.
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def get(target, *headers):
    """A GET request's bytes."""
    return head(f"GET {target} HTTP/1.1", "Host: murre", *headers)


def head(*lines):
    """A request head of these lines."""
    return "".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1")


def upgrade(path="/echo"):
    """The request for a WebSocket."""
    return get(
        path,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
    )


def frame(opcode, payload=b"", final=True, mask=b"\x12\x34\x56\x78"):
    """A frame as a client sends it, or unmasked with `mask=None`."""
    if len(payload) < 126:
        length = struct.pack("!B", len(payload))
    elif len(payload) < 1 << 16:
        length = struct.pack("!BH", 126, len(payload))
    else:
        length = struct.pack("!BQ", 127, len(payload))
    first = bytes([opcode | (0x80 if final else 0)])
    if mask is None:
        return first + length + payload
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return first + bytes([length[0] | 0x80]) + length[1:] + mask + masked


def text_of(length):
    """The first bytes of the text that `/?length=N` answers with."""
    alphabet = b"abcdefghijklmnopqrstuvwxyz"
    return (alphabet * (length // 26 + 1))[:length]


def stats():
    """`/stats` of the admin port."""
    with urllib.request.urlopen(f"http://{HOST}:{ADMIN_PORT}/stats", timeout=180) as answer:
        return json.load(answer)


class Response:
    """One HTTP answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


class Wire:
    """One connection. Use it in a `with`, which closes it in any case."""

    def __init__(self, first=b"", timeout=180):
        self.socket = socket.create_connection((HOST, PORT), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""
        self.send(first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def send_slowly(self, data):
        """One byte at a time, each in a segment of its own."""
        for byte in data:
            self.socket.sendall(bytes([byte]))

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Ends the connection with a reset instead of a FIN."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def more(self):
        """Waits for more bytes and appends them to the unread ones."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the server closed after {self.unread!r}")
        self.unread += data

    def take(self, count):
        """The next `count` bytes."""
        while len(self.unread) < count:
            self.more()
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def response(self, body=True):
        """The next HTTP answer; `body=False` for one to HEAD, or an interim one."""
        while b"\r\n\r\n" not in self.unread:
            self.more()
        head, self.unread = self.unread.split(b"\r\n\r\n", 1)
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (l.split(":", 1) for l in lines)}
        length = int(headers.get("content-length", 0)) if body else 0
        return Response(int(status.split()[1]), headers, self.take(length))

    def frame(self):
        """The next frame as (opcode, payload). A server's frames are never masked."""
        first, second = self.take(2)
        assert second < 0x80, "the server masked a frame"
        assert first & 0x70 == 0, "the server set a reserved bit"
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif second == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return first & 0x0F, self.take(length)

    def closed(self):
        """Reads until the server closes its side; a reset counts as closed."""
        try:
            while True:
                self.more()
        except (EOFError, ConnectionResetError):
            rest, self.unread = self.unread, b""
            return rest
