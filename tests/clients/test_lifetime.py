"""Connections that end in every possible way. Afterwards the server holds nothing of them.

The server is started with timeouts of a few seconds, so that silent connections end during the test.
"""

import contextlib
import struct
import time
import unittest

from wire import CLOSE, PING, PONG, TEXT, Wire, frame, get, stats, text_of, upgrade

# The longest that any timeout of the server under test may take.
PATIENCE_SECONDS = 180


class Lifetime(unittest.TestCase):
    def tearDown(self):
        """After each test the server has no connection left."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (held := stats()["connections"]) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual(held, 0)

    def test_half_close_behind_a_request(self):
        """A client that has closed its sending side still gets its answers."""
        with Wire(get("/?length=10") + get("/?length=11")) as wire:
            wire.half_close()
            self.assertEqual(wire.response().body, text_of(10))
            self.assertEqual(wire.response().body, text_of(11))
            self.assertEqual(wire.closed(), b"")

    def test_half_close_in_a_request(self):
        """A connection that ends within a request is closed."""
        with Wire(get("/?length=10")[:20]) as wire:
            wire.half_close()
            wire.closed()

    def test_half_close_before_a_request(self):
        with Wire() as wire:
            wire.half_close()
            self.assertEqual(wire.closed(), b"")

    def test_half_close_of_a_websocket(self):
        """A WebSocket that ends without a close frame still gets the answers to its messages."""
        with Wire(upgrade() + frame(TEXT, b"last words")) as wire:
            wire.half_close()
            self.assertEqual(wire.response(body=False).status, 101)
            self.assertEqual(wire.frame(), (TEXT, b"last words"))
            wire.closed()

    def test_resets(self):
        """Connections that are reset at any stage leave nothing behind."""
        half_a_frame = frame(TEXT, b"x" * 300)[:200]
        stages = [b"", b"GET", get("/?length=10240"), upgrade(), upgrade() + half_a_frame]
        for stage in stages * 100:
            with Wire(stage) as wire:
                wire.reset()

    def test_closes_at_once(self):
        """A thousand connections that send nothing and close leave nothing behind."""
        for _ in range(1_000):
            with Wire():
                pass

    def test_unread_answers(self):
        """A client that sends requests and never reads is closed, and its queued bytes are freed."""
        with Wire(upgrade(), timeout=10) as wire:
            message = frame(TEXT, b"m" * 100_000)
            with contextlib.suppress(ConnectionError, TimeoutError):
                for _ in range(200):
                    wire.send(message)

    def test_silence_before_a_request(self):
        """A connection that never sends anything is closed."""
        with Wire(timeout=PATIENCE_SECONDS) as wire:
            wire.closed()

    def test_a_request_that_never_ends(self):
        """A byte now and then does not hold a connection open."""
        with Wire() as wire:
            wire.socket.settimeout(0.3)
            deadline = time.monotonic() + PATIENCE_SECONDS
            with self.assertRaises((ConnectionError, EOFError)):
                while time.monotonic() < deadline:
                    wire.send(b"G")
                    with contextlib.suppress(TimeoutError):
                        wire.more()

    def test_a_pause(self):
        """After a long time without connections, new ones are answered."""
        time.sleep(5)
        for wire in [Wire(get("/?length=4")) for _ in range(32)]:
            with wire:
                self.assertEqual(wire.response().body, text_of(4))

    def test_silence_between_requests(self):
        """An idle keep-alive connection is closed after its timeout."""
        with Wire(get("/?length=4"), PATIENCE_SECONDS) as wire:
            self.assertEqual(wire.response().body, text_of(4))
            self.assertEqual(wire.closed(), b"")

    def test_a_websocket_that_vanishes(self):
        """A client that answers no ping is closed; one that answers stays open."""
        with Wire(upgrade(), PATIENCE_SECONDS) as kept, Wire(upgrade(), PATIENCE_SECONDS) as lost:
            for wire in (kept, lost):
                self.assertEqual(wire.response(body=False).status, 101)
            for _ in range(3):
                opcode, payload = kept.frame()
                self.assertEqual(opcode, PING)
                kept.send(frame(PONG, payload))
            self.assertEqual(lost.frame()[0], PING)
            lost.closed()
            kept.send(frame(CLOSE, struct.pack("!H", 1000)))
            self.assertEqual(kept.frame()[0], CLOSE)


if __name__ == "__main__":
    unittest.main()
