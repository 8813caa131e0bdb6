#!/usr/bin/env -S python3 -B
"""Tests of scripts/reproduce-* and scripts/concurrency-search with few connections: their exit codes, what
they leave behind when interrupted, and what they refuse. Needs the release build.

As root each run has a network namespace of its own, so that several run at a time and change no setting of
the machine. Otherwise they run one after the other on the machine's loopback."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "reproduce-600k": "http-keepalive",
    "reproduce-512k-websockets": "ws-upper",
    "reproduce-phoenix": "phoenix",
    "reproduce-phoenix-node": "phoenix",
    "reproduce-1m-idle": "ws-idle",
    "reproduce-2m-idle": "ws-idle",
}
IDLE = "reproduce-1m-idle"
TW_BUCKETS = "net/ipv4/tcp_max_tw_buckets"
PATIENCE_SECONDS = 120


class Network:
    """A network namespace of its own, or the machine's if none can be made."""

    def __init__(self):
        self.holder = None
        if POSSIBLE:
            self.holder = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
            own = os.readlink("/proc/self/ns/net")
            until(lambda: os.readlink(self.path()) != own)
            self.run("ip", "link", "set", "lo", "up")

    def path(self):
        return f"/proc/{self.holder.pid}/ns/net"

    def enter(self, *command):
        return ["nsenter", f"--net={self.path()}", *command] if self.holder else list(command)

    def run(self, *command):
        """Runs a command in it, and returns its output."""
        done = subprocess.run(self.enter(*command), text=True, capture_output=True, check=True)
        return done.stdout.strip()

    def close(self):
        if self.holder:
            self.holder.kill()
            self.holder.wait()


def namespaces_are_possible():
    if os.geteuid() or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    return subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL).returncode == 0


POSSIBLE = namespaces_are_possible()


def until(condition):
    """Waits until `condition()` is true; fails after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE_SECONDS} s")
        time.sleep(0.05)


class Script:
    """A running script, with its own directory for records."""

    def __init__(self, test, name, *arguments, network=None, files=None, **environment):
        self.mark = uuid.uuid4().hex
        self.network = network or Network()
        self.records = Path(tempfile.mkdtemp())
        test.addCleanup(shutil.rmtree, self.records, ignore_errors=True)
        test.addCleanup(self.network.close)
        path = name if "/" in name else f"scripts/{name}"
        self.output = (self.records / "output").open("w+")
        test.addCleanup(self.output.close)

        def prepare():
            # Background processes of a shell ignore SIGINT, and a shell that starts with SIGINT ignored
            # cannot trap it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        self.process = subprocess.Popen(
            self.network.enter(path, *arguments), cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=prepare,
            env={**os.environ, "RECORDS": str(self.records), **environment, "TEST_RUN": self.mark})
        test.addCleanup(self.kill)

    def said(self):
        return (self.records / "output").read_text()

    def says(self, words):
        """Waits until the script has printed these words."""
        until(lambda: words in self.said() or self.process.poll() is not None)
        assert words in self.said(), self.said()

    def end(self):
        """Waits until it ends by itself, and returns its exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def lines(self):
        files = sorted(self.records.glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def processes(self):
        """The command lines of its processes that still run, by process id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"TEST_RUN={self.mark}".encode() in (process / "environ").read_bytes():
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(process.name)] = command
        return found

    def runs(self, words):
        return any(words in command for command in self.processes().values())

    def kill(self):
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Case(unittest.TestCase):
    def together(self, starts):
        """Starts the scripts: all at once if there are namespaces, otherwise one after the other."""
        if POSSIBLE:
            return list(map(lambda start: start(), starts))

        def one_after_the_other():
            for start in starts:
                script = start()
                yield script
                script.end()

        return one_after_the_other()

    def assert_ended(self, script, status):
        self.assertEqual(script.end(), status, script.said())
        self.assertEqual(script.processes(), {}, "left behind")


class SmallRuns(Case):
    def test_a_small_clean_run_is_not_judged_and_passes(self):
        """Each script on this machine alone: its record, its exit code, its comparison."""
        before = sorted((ROOT / "bench-results/records").iterdir())
        size = ("--conns", "1000", "--duration", "1s")
        starts = [lambda name=name: Script(self, name, *size) for name in SCRIPTS]
        for script, (name, scenario) in zip(self.together(starts), SCRIPTS.items()):
            with self.subTest(name):
                self.assert_ended(script, 0)
                self.assertRegex(script.said(), r"published +this run")
                self.assertIn("Not judged", script.said())
                [run] = script.lines()
                self.assertEqual((run["scenario"], run["outcome"]), (scenario, "passed"))
                self.assertEqual(run["connect"]["connections"], 1000)
        self.assertEqual(sorted((ROOT / "bench-results/records").iterdir()), before)

    def test_a_missed_promise_and_a_failed_run_fail(self):
        """A run as large as its promise that cannot show it, and a small one with wrong answers."""
        body = "\n".join(["source {root}/scripts/reproduce.sh",
                          "conns=100 duration=1s promised={0}", "options \"$@\"",
                          "prepare", "serve", "load {1}", "judge {2}"])
        cases = [((100, "ws-idle", "idle-1m"), "missed: user-1m: not shown", "passed"),
                 ((9999, "http-keepalive --path /none", "r1"), "garbled: status 404", "failed")]

        def start(arguments):
            file = Path(tempfile.mkdtemp()) / "reproduce-this"
            self.addCleanup(shutil.rmtree, file.parent)
            file.write_text("#!/usr/bin/env bash\n" + body.format(*arguments, root=ROOT) + "\n")
            file.chmod(0o755)
            return Script(self, str(file))

        starts = [lambda case=case: start(case[0]) for case in cases]
        for script, (_, words, outcome) in zip(self.together(starts), cases):
            self.assert_ended(script, 1)
            self.assertIn(words, script.said())
            self.assertEqual([run["outcome"] for run in script.lines()], [outcome])

    def test_the_search_ends_where_it_has_to(self):
        """All steps up to the ceiling hold: doubled, then the rest, each with its record."""
        script = Script(self, "concurrency-search", "--conns", "500", "--duration", "1s",
                        SEARCH_MOST="1200")
        self.assert_ended(script, 0)
        self.assertIn("All 1200 that were tried keep Grizzly's criterion", script.said())
        steps = [run["connect"]["connections"] for run in script.lines()]
        self.assertEqual(steps, [500, 1000, 1200])


class Interrupted(Case):
    def test_nothing_is_left_behind(self):
        """At three moments, by Ctrl-C twice and by SIGTERM; with root's --tune also in force."""
        moments = {
            "tuned, or building": lambda script: until(lambda: "MB are free" in script.said()),
            "connecting": lambda script: until(lambda: script.runs("murre-load ws-idle")),
            "holding": lambda script: script.says("concurrency: 2000,"),
        }
        cases = [(moment, number) for moment in moments for number in (signal.SIGINT,
                                                                       signal.SIGTERM)]

        def start():
            arguments, network = [], Network()
            if POSSIBLE:
                network.run("sh", "-c", f"echo 500 >/proc/sys/{TW_BUCKETS}")
                arguments = ["--tune"]
            return Script(self, IDLE, "--conns", "2000", "--duration", "600s", *arguments,
                          network=network)

        for script, (moment, number) in zip(self.together([start] * len(cases)), cases):
            with self.subTest(f"{number.name} {moment}"):
                moments[moment](script)
                if POSSIBLE:
                    self.assertEqual(script.network.run("cat", f"/proc/sys/{TW_BUCKETS}"), "2000")
                if number == signal.SIGINT:
                    # As a terminal does it: to the script's whole group, and again.
                    os.killpg(script.process.pid, number)
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(script.process.pid, number)
                else:
                    script.process.send_signal(number)
                self.assert_ended(script, 128 + number)
                if POSSIBLE:
                    self.assertEqual(script.network.run("cat", f"/proc/sys/{TW_BUCKETS}"), "500")
                    inode = os.stat(script.network.path()).st_ino
                    state = Path(f"/var/lib/murre-tuning/reproduce-{inode}.json")
                    self.assertFalse(state.exists())
                outcomes = [run["outcome"] for run in script.lines()]
                self.assertIn(outcomes, [["interrupted"]] if moment == "holding"
                              else [[], ["interrupted"]])


class Refused(Case):
    def refused(self, *arguments, words, name=IDLE, **more):
        script = Script(self, name, *arguments, **more)
        self.assert_ended(script, 1)
        self.assertRegex(script.said(), words)
        self.assertEqual(script.lines(), [])
        self.assertNotIn("concurrency:", script.said(), "said before the first connection")
        return script

    def test_bad_arguments(self):
        self.refused("--conns", "0", words="'0' is not a number of connections")
        self.refused("--conns", "1e6", words="'1e6' is not a number of connections")
        self.refused("--conns", words="--conns needs a value")
        self.refused("--wings", words="unknown option '--wings'")

    def test_too_many_connections_are_refused_with_the_number_that_fits(self):
        """For lack of memory, ports or descriptors; also addresses of other machines and a missing server."""
        script = self.refused("--conns", "50000000", words="50000000 connections do not fit")
        self.assertRegex(script.said(), r"fit, [1-9][0-9]+ do\.")
        script = self.refused("--conns", "100000", "--client", "127.0.0.1:1", words="do not fit")
        ports = script.network.run("cat", "/proc/sys/net/ipv4/ip_local_port_range").split()
        self.assertIn(f"fit, {int(ports[1]) - int(ports[0]) + 1} do.", script.said())
        self.refused("--conns", "5000", "--descriptors", "normal", files=2000,
                     words=r"more open files.*\(room for 1744\).*ask for 1744")
        self.refused("--conns", "10", "--client", "127.0.0.1:1", "--source", "203.0.113.7",
                     words="ip address add 203.0.113.7")
        self.refused("--conns", "10", "--client", "127.0.0.1:1", words="start the server first")

    @unittest.skipUnless(POSSIBLE, "a network namespace needs root, unshare, nsenter and ip")
    def test_clients_cannot_take_the_ports_of_the_server(self):
        """The kernel gives clients the ports of the scripts, and no reservation keeps them free."""
        network = Network()
        network.run("sh", "-c", "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range")
        self.refused("--conns", "10", network=network,
                     words=r"port 18000 may be given to a client.*ip_local_reserved_ports=18000")
        network.run("sh", "-c", "echo 18000-18001 >/proc/sys/net/ipv4/ip_local_reserved_ports")
        script = Script(self, IDLE, "--conns", "10", "--duration", "1s", network=network)
        self.assert_ended(script, 0)

    def test_a_search_begins_where_there_is_room(self):
        self.refused("--conns", "5000", name="concurrency-search", SEARCH_MOST="1000",
                     words="room for 1000 connections")

    def test_a_record_that_cannot_be_written_fails_the_run(self):
        """Before the first connection if it is known then, otherwise at the end."""
        self.refused("--conns", "10", RECORDS="/nowhere/at/all", words="cannot write ")
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        today = subprocess.run(["date", "--utc", "+%F"], text=True, capture_output=True,
                               check=True).stdout.strip()
        (directory / f"{today}-{IDLE}.jsonl").symlink_to("/dev/full")
        script = Script(self, IDLE, "--conns", "10", "--duration", "1s", RECORDS=str(directory))
        self.assert_ended(script, 1)
        self.assertIn("cannot write the record", script.said())


class TwoMachines(Case):
    @unittest.skipUnless(POSSIBLE, "two network namespaces need root, unshare, nsenter and ip")
    def test_server_and_client_on_two(self):
        """Three addresses of the server, two of the client; each side measures its own end."""
        there, here = Network(), Network()
        there.run("ip", "link", "add", "murre0", "type", "veth",
                  "peer", "name", "murre1", "netns", str(here.holder.pid))
        for network, device, addresses in ((there, "murre0", (1, 2, 3)), (here, "murre1", (9, 10))):
            for last in addresses:
                network.run("ip", "address", "add", f"10.77.0.{last}/24", "dev", device)
            network.run("ip", "link", "set", device, "up")
        server = Script(self, IDLE, "--conns", "2000", "--server", "0.0.0.0:18000", network=there)
        server.says("Start the clients")
        client = Script(self, IDLE, "--conns", "2000", "--client", "10.77.0.1-3:18000",
                        "--source", "10.77.0.9,10.77.0.10", "--duration", "10s", network=here)
        server.says("All 2000 connections were open")
        self.assert_ended(client, 0)
        server.process.send_signal(signal.SIGINT)
        self.assert_ended(server, 0)
        [run], [weighed] = client.lines(), server.lines()
        self.assertEqual((run["outcome"], run["connect"]["connections"]), ("passed", 2000))
        self.assertIsNone(run["memory"], "the server is elsewhere")
        self.assertEqual(weighed["memory"]["connections"], 2000)


if __name__ == "__main__":
    unittest.main()
