"""Event streams and polls by `requests`, as a Python program uses them."""

import os
import unittest

import requests

BASE = f"http://127.0.0.1:{os.environ['TEST_PORT']}"


class Streams(unittest.TestCase):
    def test_events_are_heard_as_they_come(self):
        """An event is read when it is here: the next bytes are a sign of life after two seconds,
        and a client that waited for more than the event has read those with it."""
        with requests.get(f"{BASE}/sse", {"topic": "a"}, stream=True, timeout=60) as stream:
            self.assertEqual(stream.status_code, 200)
            self.assertEqual(stream.headers["content-type"], "text/event-stream")
            self.assertIn("date", stream.headers)
            pieces = stream.iter_content(chunk_size=None)
            subscribed = next(pieces)
            self.assertTrue(subscribed.startswith(b"event: subscribed\ndata: {"), subscribed)
            self.assertEqual(subscribed.count(b"\n\n"), 1, subscribed)
            self.assertEqual(next(pieces), b":\n\n")

    def test_lines(self):
        """By lines, with the usual size of a piece: the stream says something after the event only
        after two seconds, and 512 bytes only after minutes."""
        with requests.get(f"{BASE}/sse", {"topic": "a"}, stream=True, timeout=60) as stream:
            lines = stream.iter_lines()
            self.assertEqual(next(lines), b"event: subscribed")
            self.assertEqual(next(lines)[:6], b"data: ")

    def test_head(self):
        """HEAD is answered as GET, at once, and the connection is used again."""
        with requests.Session() as session:
            for target, status in [("/sse?topic=a", 200), ("/sse", 400), ("/poll?topic=a", 400)]:
                answer = session.head(BASE + target, timeout=60)
                self.assertEqual(answer.status_code, status, target)
            self.assertEqual(session.get(f"{BASE}/healthz", timeout=60).text, "ok\n")


if __name__ == "__main__":
    unittest.main()
