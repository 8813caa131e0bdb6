"""Handshakes and frames cut, joined and malformed in ways that `ws` cannot send."""

import struct
import unittest

from wire import ACCEPT, BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT
from wire import Wire, frame, get, head, upgrade


def close(code, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


def opened(path="/echo"):
    wire = Wire(upgrade(path))
    assert wire.response(body=False).status == 101
    return wire


class WellFormed(unittest.TestCase):
    def test_one_byte_at_a_time(self):
        """A handshake and frames that arrive in single bytes are read correctly."""
        with Wire() as wire:
            wire.send_slowly(upgrade())
            answer = wire.response(body=False)
            self.assertEqual(answer.status, 101)
            self.assertEqual(answer.headers["sec-websocket-accept"], ACCEPT)
            wire.send_slowly(frame(TEXT, b"slow") + frame(PING, b"too") + frame(BINARY, b"s" * 200))
            self.assertEqual(wire.frame(), (TEXT, b"slow"))
            self.assertEqual(wire.frame(), (PONG, b"too"))
            self.assertEqual(wire.frame(), (BINARY, b"s" * 200))

    def test_frames_behind_the_handshake(self):
        """Frames sent before the answer to the handshake are not lost."""
        with Wire(upgrade() + frame(TEXT, b"early") + close(1000)) as wire:
            self.assertEqual(wire.response(body=False).status, 101)
            self.assertEqual(wire.frame(), (TEXT, b"early"))
            self.assertEqual(wire.frame(), (CLOSE, struct.pack("!H", 1000)))
            self.assertEqual(wire.closed(), b"")

    def test_a_request_before_the_handshake(self):
        """A keep-alive connection can become a WebSocket after a request."""
        with Wire(get("/?length=1") + upgrade() + frame(TEXT, b"hello")) as wire:
            self.assertEqual(wire.response().body, b"a")
            self.assertEqual(wire.response(body=False).status, 101)
            self.assertEqual(wire.frame(), (TEXT, b"hello"))

    def test_a_reset_between_messages_is_not_seen_by_others(self):
        """A reset ends only its own connection."""
        with opened() as stays, opened() as goes:
            goes.send(frame(TEXT, b"half a mess")[:9])
            goes.reset()
            stays.send(frame(TEXT, b"here"))
            self.assertEqual(stays.frame(), (TEXT, b"here"))

    def test_a_length_of_64_bits(self):
        """A large frame in many reads comes back whole."""
        message = bytes(range(256)) * 1000
        with opened() as wire:
            wire.send(frame(BINARY, message))
            self.assertEqual(wire.frame(), (BINARY, message))


class Handshakes(unittest.TestCase):
    """Each handshake is refused with its status (RFC 6455 section 4.2)."""

    LINES = {
        "Host": "murre",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }

    def refused(self, status, request="GET /echo HTTP/1.1", **changed):
        lines = {**self.LINES, **{name.replace("_", "-"): value for name, value in changed.items()}}
        with Wire(head(request, *(f"{name}: {value}" for name, value in lines.items() if value))) as wire:
            answer = wire.response()
            self.assertEqual(answer.status, status)
            return answer

    def test_key(self):
        for key in (None, "short", KEY + KEY, "#" * 24):
            with self.subTest(key):
                self.refused(400, Sec_WebSocket_Key=key)

    def test_version(self):
        for version in (None, "8", "14"):
            with self.subTest(version):
                answer = self.refused(426, Sec_WebSocket_Version=version)
                self.assertEqual(answer.headers["sec-websocket-version"], "13")

    def test_method_and_protocol(self):
        self.refused(405, "PUT /echo HTTP/1.1")
        self.refused(426, "GET /echo HTTP/1.1", Upgrade=None)


class Malformed(unittest.TestCase):
    """Each violation ends only its own connection, with its close code."""

    CASES = [
        ("unmasked", 1002, frame(TEXT, b"bare", mask=None)),
        ("reserved bit", 1002, b"\xc1" + frame(TEXT, b"x")[1:]),
        ("unknown opcode", 1002, frame(0x3, b"x")),
        ("unknown control opcode", 1002, frame(0xB, b"x")),
        ("ping in fragments", 1002, frame(PING, b"x", final=False)),
        ("ping too long", 1002, frame(PING, b"x" * 126)),
        ("nothing to continue", 1002, frame(CONTINUATION, b"x")),
        ("a second start", 1002, frame(TEXT, b"a", final=False) + frame(TEXT, b"b")),
        ("16 bits for a short length", 1002, b"\x82\xfe\x00\x05" + b"\0" * 9),
        ("64 bits for a short length", 1002, b"\x82\xff" + struct.pack("!Q", 65535) + b"\0" * 4),
        ("the highest bit of a length", 1002, b"\x82\xff\x80" + b"\0" * 11),
        ("half a close code", 1002, frame(CLOSE, b"\x03")),
        ("a close code never sent", 1002, close(1005)),
        ("a close code never used", 1002, close(999)),
        ("a close reason not UTF-8", 1007, close(1000, b"\xff")),
        ("text not UTF-8", 1007, frame(TEXT, b"\xc3\x28")),
        ("text cut in a character", 1007, frame(TEXT, b"\xe2\x82")),
        ("a surrogate in fragments", 1007, frame(TEXT, b"\xed", False) + frame(CONTINUATION, b"\xa0\x80")),
        ("invalid before the message ends", 1007, frame(TEXT, b"\xff" + b"x" * 5000)[:1000]),
        ("a length over the limit", 1009, b"\x82\xff" + struct.pack("!Q", 1 << 40) + b"\0" * 4),
    ]

    def test_code_and_close(self):
        with opened() as neighbour:
            for name, code, frames in self.CASES:
                with self.subTest(name), opened() as wire:
                    wire.send(frames)
                    opcode, payload = wire.frame()
                    self.assertEqual(opcode, CLOSE)
                    self.assertEqual(struct.unpack("!H", payload[:2])[0], code)
                    self.assertEqual(wire.closed(), b"")
            neighbour.send(frame(TEXT, b"unharmed"))
            self.assertEqual(neighbour.frame(), (TEXT, b"unharmed"))


if __name__ == "__main__":
    unittest.main()
