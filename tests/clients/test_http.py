"""HTTP/1.1 requests cut, joined and malformed in ways that curl cannot send."""

import random
import unittest

from wire import Wire, get, head, text_of


class WellFormed(unittest.TestCase):
    def test_one_byte_at_a_time(self):
        """A request that arrives in single bytes gets the same answer."""
        with Wire() as wire:
            wire.send_slowly(get("/?length=100"))
            self.assertEqual(wire.response().body, text_of(100))

    def test_pipelined(self):
        """Requests sent at once are answered in their order."""
        with Wire(b"".join(get(f"/?length={n}") for n in range(1, 201))) as wire:
            for n in range(1, 201):
                self.assertEqual(wire.response().body, text_of(n))

    def test_pipelined_in_any_cuts(self):
        """The boundaries of TCP segments do not change the answers."""
        seed = random.randrange(1 << 32)
        with self.subTest(seed=seed), Wire() as wire:
            cuts = random.Random(seed)
            stream = b"".join(get(f"/?length={n}", f"X-Pad: {'p' * n}") for n in range(1, 101))
            while stream:
                size = cuts.randint(1, 400)
                wire.send(stream[:size])
                stream = stream[size:]
            for n in range(1, 101):
                self.assertEqual(wire.response().body, text_of(n))

    def test_a_body_in_any_cuts(self):
        """A body is read whole, and the request behind it is answered."""
        body = bytes(range(256)) * 16
        for size in (1, 7, 1000, len(body)):
            request = head("POST /nowhere HTTP/1.1", "Host: murre", f"Content-Length: {len(body)}")
            with self.subTest(size=size), Wire(request) as wire:
                for start in range(0, len(body), size):
                    wire.send(body[start : start + size])
                wire.send(get("/?length=5"))
                self.assertEqual(wire.response().status, 404)
                self.assertEqual(wire.response().body, text_of(5))

    def test_head(self):
        """HEAD answers the length of a body that it does not send."""
        with Wire(head("HEAD /?length=77 HTTP/1.1", "Host: murre")) as wire:
            self.assertEqual(wire.response(body=False).headers["content-length"], "77")
            wire.send(get("/?length=3"))
            self.assertEqual(wire.response().body, text_of(3))

    def test_connection_close(self):
        """After `Connection: close` the answer says so, and the connection ends."""
        with Wire(get("/?length=9", "Connection: close")) as wire:
            answer = wire.response()
            self.assertEqual(answer.body, text_of(9))
            self.assertEqual(answer.headers["connection"], "close")
            self.assertEqual(wire.closed(), b"")

    def test_http_1_0(self):
        """An HTTP/1.0 connection ends after the answer, unless it asks for keep-alive."""
        with Wire(head("GET /?length=9 HTTP/1.0")) as wire:
            self.assertEqual(wire.response().body, text_of(9))
            self.assertEqual(wire.closed(), b"")
        with Wire(head("GET /?length=9 HTTP/1.0", "Connection: keep-alive")) as wire:
            self.assertEqual(wire.response().headers["connection"].lower(), "keep-alive")
            wire.send(get("/?length=8"))
            self.assertEqual(wire.response().body, text_of(8))

    def test_expect_continue(self):
        """A client that expects 100 Continue gets it, once."""
        request = ["POST /nowhere HTTP/1.1", "Host: murre", "Expect: 100-continue"]
        with Wire(head(*request, "Content-Length: 4")) as wire:
            self.assertEqual(wire.response(body=False).status, 100)
            wire.send(b"body")
            self.assertEqual(wire.response().status, 404)


class Malformed(unittest.TestCase):
    """Each request gets its status, and only its own connection is closed."""

    CASES = [
        ("no host", 400, head("GET / HTTP/1.1")),
        ("two hosts", 400, get("/", "Host: other")),
        ("not HTTP", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("a bare line feed", 400, b"GET / HTTP/1.1\nHost: murre\n\n"),
        ("a bare carriage return", 400, get("/", "A: b\rC: d")),
        ("folding", 400, get("/", "A: b", " c")),
        ("space before the colon", 400, get("/", "A : b")),
        ("a zero byte", 400, get("/", "A: b\0c")),
        ("two lengths", 400, get("/", "Content-Length: 1", "Content-Length: 2")),
        ("a list of lengths", 400, get("/", "Content-Length: 1, 1")),
        ("a negative length", 400, get("/", "Content-Length: -1")),
        ("a signed length", 400, get("/", "Content-Length: +1")),
        ("a length that overflows", 413, get("/", "Content-Length: 18446744073709551617")),
        ("both framings", 400, get("/", "Content-Length: 3", "Transfer-Encoding: chunked")),
        ("chunks", 411, get("/", "Transfer-Encoding: chunked")),
        ("a body too long", 413, get("/", "Content-Length: 99999999")),
        ("a target too long", 414, get("/" + "a" * 30_000)),
        ("another expectation", 417, get("/", "Expect: tea")),
        ("a head too long", 431, get("/", "A: " + "b" * 40_000)),
        ("too many headers", 431, get("/", *(f"H{n}: v" for n in range(100)))),
        ("HTTP/2", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ]

    def test_status_and_close(self):
        neighbour = Wire()
        with neighbour:
            for name, status, request in self.CASES:
                with self.subTest(name), Wire(request) as wire:
                    answer = wire.response()
                    self.assertEqual(answer.status, status)
                    self.assertEqual(answer.headers["connection"], "close")
                    self.assertEqual(wire.closed(), b"")
            neighbour.send(get("/?length=2"))
            self.assertEqual(neighbour.response().body, text_of(2))

    def test_random_bytes(self):
        """Random bytes never stop the server."""
        seed = random.randrange(1 << 32)
        noise = random.Random(seed)
        with self.subTest(seed=seed):
            for _ in range(200):
                with Wire(noise.randbytes(noise.randint(1, 3000))) as wire:
                    wire.half_close()
                    wire.closed()
            with Wire(get("/?length=2")) as wire:
                self.assertEqual(wire.response().body, text_of(2))


if __name__ == "__main__":
    unittest.main()
