#!/usr/bin/env -S python3 -B
"""Tests of kernel-tuning/: check, apply and revert on a tree of files in place of a machine, and the files
beside them. As root also on this machine, in a network namespace of its own."""

import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TUNING = Path(__file__).resolve().parent.parent / "kernel-tuning"
sys.path.insert(0, str(TUNING))
from tuning.knobs import KNOBS  # noqa: E402

SOMAXCONN, FILE_MAX, TCP_MEM = "net.core.somaxconn", "fs.file-max", "net.ipv4.tcp_mem"
PORTS = "net.ipv4.ip_local_port_range"

# The defaults of Linux 6.13 on a machine of 16 GB. The kernel separates ports by a tab.
DEFAULTS = {
    "kernel.osrelease": "6.13.0-murre",
    "kernel.random.boot_id": "one",
    "kernel.io_uring_disabled": "0",
    FILE_MAX: "1620000",
    "fs.nr_open": "1048576",
    "fs.epoll.max_user_watches": "3660000",
    SOMAXCONN: "4096",
    "net.core.netdev_max_backlog": "1000",
    PORTS: "32768\t60999",
    "net.ipv4.tcp_ehash_entries": "131072",
    "net.ipv4.tcp_max_orphans": "65536",
    "net.ipv4.tcp_max_syn_backlog": "1024",
    "net.ipv4.tcp_max_tw_buckets": "65536",
    TCP_MEM: "191925\t255900\t383850",
    "net.ipv4.tcp_syncookies": "1",
    "net.netfilter.nf_conntrack_count": "12",
    "net.netfilter.nf_conntrack_max": "262144",
}


class Machine(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.state = self.root / "state" / "state.json"
        self.place("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n")
        for name, value in DEFAULTS.items():
            self.set(name, value)

    def place(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def path(self, name):
        return self.root / "proc/sys" / name.replace(".", "/")

    def set(self, name, value):
        self.place(self.path(name), value + "\n")

    def values(self):
        return {name: self.path(name).read_text().strip() for name in DEFAULTS}

    def network(self, name):
        """Puts the machine's processes into another network namespace."""
        link = self.root / "proc/self/ns/net"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(name)

    def run_tool(self, *arguments, status=0, files=20000):
        """Runs a command, expects this exit status, and returns its output."""
        environment = {**os.environ, "MURRE_TUNING_STATE": str(self.state),
                       "MURRE_TUNING_ROOT": str(self.root)}

        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        done = subprocess.run([TUNING / arguments[0], *arguments[1:]], env=environment, text=True,
                              capture_output=True, preexec_fn=limit, check=False)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def verdicts(self, *arguments, status):
        found = json.loads(self.run_tool("check", "--json", *arguments, status=status))
        return found, {row["knob"]: row for row in found["knobs"]}


class Check(Machine):
    def test_a_small_number_fits_what_is_there(self):
        found, knobs = self.verdicts("--conns", "10000", status=0)
        self.assertTrue(found["ok"])
        self.assertEqual(found["room"], 10000)
        self.assertEqual(knobs["open files (hard limit)"]["status"], "ok")
        self.assertIn("All required settings are high enough", self.run_tool("check", "--conns", "10000"))

    def test_what_is_too_low_comes_with_value_and_need(self):
        self.set("kernel.osrelease", "6.12.0")
        found, knobs = self.verdicts("--conns", "1000000", status=1)
        tcp_mem = knobs[TCP_MEM]
        self.assertEqual(tcp_mem["status"], "too low")
        self.assertEqual(tcp_mem["value"], [191925, 255900, 383850])
        self.assertEqual(tcp_mem["needed"], [750000, 1000000, 1500000])
        self.assertFalse(tcp_mem["fine"])
        self.assertEqual(knobs[SOMAXCONN]["needed"], [65535])
        self.assertTrue(knobs[SOMAXCONN]["fine"], "not required: it only slows connects")
        self.assertEqual(knobs["net.netfilter.nf_conntrack_max"]["needed"], [1250000])
        self.assertEqual(knobs[FILE_MAX]["status"], "ok")
        self.assertNotIn(PORTS, knobs)
        # The smallest required setting: 20,000 open files less 256, on a kernel without direct descriptors.
        self.assertEqual(found["room"], 19744)
        self.assertIn("there is room for 19,744", self.run_tool("check", status=1))

    def test_sizes_follow_the_number_and_the_ends(self):
        for conns, status in ((100_000, 0), (600_000, 1)):
            one = self.verdicts("--conns", str(conns), status=status)[1]
            both = self.verdicts("--conns", str(conns), "--server", "--client", status=status)[1]
            self.assertEqual(one[FILE_MAX]["needed"], [conns + 65536])
            self.assertEqual(both[FILE_MAX]["needed"], [2 * conns + 65536])
            self.assertEqual(one["fs.nr_open"]["needed"], both["fs.nr_open"]["needed"])
            self.assertIn(PORTS, both)

    def test_direct_descriptors_make_up_for_few_open_files(self):
        for release, status, need in (("6.12.0", "too low", 1000256), ("6.13.0", "ok", 977)):
            self.set("kernel.osrelease", release)
            files = self.verdicts("--conns", "1000000", status=1)[1]["open files (hard limit)"]
            self.assertEqual((files["status"], files["needed"]), (status, [need]))

    def test_clients_need_ports_for_each_address(self):
        enough = self.verdicts("--client", "--conns", "200000", "--targets", "8", status=0)[1]
        self.assertEqual(enough[PORTS]["status"], "ok")
        few = self.verdicts("--client", "--conns", "200000", "--targets", "7", status=1)[1]
        self.assertEqual((few[PORTS]["status"], few[PORTS]["value"]), ("too low", [32768, 60999]))
        self.set(PORTS, "20000 65535")
        beyond = self.verdicts("--client", "--conns", "200000", "--targets", "1", status=1)[1]
        self.assertEqual(beyond[PORTS]["status"], "cannot be set here")
        self.assertIn("--targets", beyond[PORTS]["meaning"])

    def test_memory_bounds_tcp_mem_and_is_bounded_by_the_control_group(self):
        self.place("sys/fs/cgroup/memory.max", str(4 << 30))
        knobs = self.verdicts("--conns", "1000000", status=1)[1]
        self.assertEqual(knobs["memory bytes"]["value"], [4 << 30])
        self.assertEqual(knobs["memory bytes"]["status"], "too low")
        self.assertEqual(knobs[TCP_MEM]["needed"][2] * os.sysconf("SC_PAGESIZE"), 2 << 30)

    def test_a_run_that_starts_now_has_the_memory_that_is_free_now(self):
        self.place("proc/meminfo", "MemTotal: 16384000 kB\nMemAvailable: 1024000 kB\n")
        self.verdicts("--conns", "200000", status=0)
        found, knobs = self.verdicts("--conns", "200000", "--now", status=1)
        self.assertEqual(knobs["memory bytes"]["value"], [1024000 * 1024])
        self.assertEqual(found["room"], (1024000 * 1024 - 512 * 1024 * 1024) // 4250)

    def test_what_is_not_there_is_said(self):
        self.path(TCP_MEM).unlink()
        self.path("net.netfilter.nf_conntrack_max").unlink()
        knobs = self.verdicts("--conns", "10000", status=0)[1]
        self.assertEqual(knobs[TCP_MEM]["status"], "cannot be set here")
        self.assertIn("host", knobs[TCP_MEM]["meaning"])
        self.assertEqual(knobs["net.netfilter.nf_conntrack_max"]["status"], "ok")

    def test_an_idle_conntrack_does_not_matter(self):
        self.set("net.netfilter.nf_conntrack_count", "0")
        found = self.verdicts("--conns", "230000", status=0)[1]
        row = found["net.netfilter.nf_conntrack_max"]
        self.assertEqual((row["status"], row["fine"]), ("too low", True))

    def test_without_io_uring_there_are_normal_descriptors_only(self):
        self.set("kernel.io_uring_disabled", "2")
        row = self.verdicts("--conns", "1000", status=0)[1]["io_uring allowed"]
        self.assertEqual((row["status"], row["fine"]), ("too low", True))
        more = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1, 16_000_000)
        knobs = self.verdicts("--conns", str(more), status=1)[1]
        self.assertEqual(knobs["open files (hard limit)"]["needed"], [more + 256])

    def test_an_old_kernel_fails(self):
        for release, status in (("5.4.0", 1), ("5.10.0", 0), ("6.1.0", 0)):
            self.set("kernel.osrelease", release)
            self.verdicts("--conns", "1000", status=status)

    def test_bad_numbers_are_refused(self):
        for bad in ("0", "-1", "many", "16000001", "1e6"):
            self.assertIn("conns", self.run_tool("check", "--conns", bad, status=2))

    def test_changes_nothing(self):
        before = sorted(self.root.rglob("*"))
        self.run_tool("check", status=1)
        self.assertEqual(sorted(self.root.rglob("*")), before)
        self.assertEqual(self.values(), DEFAULTS)


class ApplyAndRevert(Machine):
    def test_revert_puts_back_exactly_what_was_there(self):
        self.run_tool("apply", "--server", "--client")
        self.assertEqual(self.values()[SOMAXCONN], "65535")
        self.assertEqual(self.values()[PORTS], "20000 65535")
        self.assertEqual(self.values()["fs.nr_open"], "1048576", "lowers nothing")
        self.verdicts("--server", "--client", status=0)
        self.run_tool("revert")
        self.assertEqual(self.values(), DEFAULTS)
        self.assertFalse(self.state.exists())
        self.assertIn("Nothing was applied", self.run_tool("revert"))

    def test_what_holds_on_the_whole_host_is_said_in_a_namespace(self):
        """In a network namespace the host's network settings are not visible."""
        self.assertNotIn("whole host", self.run_tool("apply", "--conns", "2000000"))
        self.run_tool("revert")
        self.path(TCP_MEM).unlink()
        said = self.run_tool("apply", "--conns", "2000000")
        self.assertRegex(said, r"fs\.nr_open: 2000256 \(was 1048576, on the whole host\)")
        self.assertRegex(said, rf"{SOMAXCONN}: 65535 \(was 4096\)")
        self.run_tool("revert")

    def test_a_second_apply_keeps_the_first_values(self):
        self.run_tool("apply", "--conns", "100000")
        saved = json.loads(self.state.read_text())["saved"]
        self.assertIn("unchanged", self.run_tool("apply", "--conns", "100000"))
        self.assertEqual(json.loads(self.state.read_text())["saved"], saved)
        self.run_tool("apply", "--conns", "2000000")
        self.assertEqual(self.values()["fs.nr_open"], "2000256")
        self.run_tool("revert")
        self.assertEqual(self.values(), DEFAULTS)

    def test_enough_is_left_alone(self):
        self.set(TCP_MEM, "1 2000000 3")
        self.run_tool("apply", "--only", TCP_MEM)
        self.assertEqual(self.values()[TCP_MEM], "750000 2000000 1500000")
        self.run_tool("apply", "--conns", "1000", "--only", SOMAXCONN)
        self.assertEqual(self.values()[SOMAXCONN], "4096")

    def test_what_cannot_be_set_is_said_and_the_rest_is_set(self):
        # A file that even root cannot write, with a number that is too low.
        self.path(FILE_MAX).unlink()
        self.path(FILE_MAX).symlink_to("/proc/sys/kernel/ngroups_max")
        row = self.verdicts(status=1)[1][FILE_MAX]
        if os.geteuid() == 0:
            self.assertEqual(row["status"], "cannot be set here")
        self.assertRegex(self.run_tool("apply", status=1), f"NOT SET +{FILE_MAX}")
        self.assertEqual(self.values()[SOMAXCONN], "65535")
        self.assertNotIn(FILE_MAX, json.loads(self.state.read_text())["saved"])
        self.run_tool("revert")

    def test_what_cannot_be_put_back_is_kept(self):
        self.run_tool("apply")
        self.path(SOMAXCONN).unlink()
        self.assertRegex(self.run_tool("revert", status=1), f"NOT RESTORED +{SOMAXCONN}: 4096")
        self.assertEqual(json.loads(self.state.read_text())["saved"], {SOMAXCONN: "4096"})
        self.set(SOMAXCONN, "65535")
        self.run_tool("revert")
        self.assertEqual(self.values(), DEFAULTS)

    def test_nothing_is_changed_where_nothing_can_be_saved(self):
        self.place("state", "a file where the directory has to be")
        self.assertIn("MURRE_TUNING_STATE", self.run_tool("apply", status=1))
        self.assertEqual(self.values(), DEFAULTS)

    def test_a_boot_ends_what_was_applied(self):
        self.run_tool("apply", "--only", SOMAXCONN)
        self.set("kernel.random.boot_id", "two")
        self.set(SOMAXCONN, "8192")
        self.assertIn("booted since", self.run_tool("revert"))
        self.assertEqual(self.values()[SOMAXCONN], "8192")
        self.assertFalse(self.state.exists())

    def test_another_network_namespace_is_left_alone(self):
        self.network("net:[1]")
        self.run_tool("apply", "--only", SOMAXCONN)
        self.network("net:[2]")
        for tool in ("apply", "revert"):
            self.assertIn("another network namespace", self.run_tool(tool, status=1))
        self.assertEqual(self.values()[SOMAXCONN], "65535")

    def test_a_state_that_is_not_ours_is_refused(self):
        for text in ("", "{}", '{"place": {"boot": "one"}, "saved": {"a": 1}}'):
            self.place(self.state, text)
            self.assertIn("is not a file of kernel-tuning", self.run_tool("revert", status=1))
        place = {"boot": "one", "network": None}
        self.place(self.state, json.dumps({"place": place, "saved": {"kernel.osrelease": "x"}}))
        self.assertIn("not a setting of kernel-tuning", self.run_tool("revert", status=1))
        self.assertEqual(self.values(), DEFAULTS)


class ThisMachine(Machine):
    @unittest.skipIf(os.geteuid(), "only root makes network namespaces")
    def test_a_round_trip_in_a_namespace_of_its_own(self):
        """One setting that each network namespace has for itself, so the host keeps its own."""
        own = Path("/proc/sys/net/core/somaxconn").read_text()
        tools = "echo 4096 >$0; {0}/apply --only {1}; cat $0; {0}/revert; cat $0"
        script = tools.format(TUNING, SOMAXCONN)
        environment = {**os.environ, "MURRE_TUNING_STATE": str(self.state)}
        environment.pop("MURRE_TUNING_ROOT", None)
        command = ["unshare", "--net", "sh", "-ec", script, "/proc/sys/net/core/somaxconn"]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
        if done.returncode and "unshare" in done.stderr:
            self.skipTest(done.stderr)
        self.assertEqual(re.findall(r"^\d+$", done.stdout, re.M), ["65535", "4096"], done.stderr)
        self.assertFalse(self.state.exists())
        self.assertEqual(Path("/proc/sys/net/core/somaxconn").read_text(), own)

    def test_check_reads_this_machine(self):
        """Without rights, on this machine: whatever the result, no knob is left out."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        done = subprocess.run([TUNING / "check", "--json", "--client"], env=environment, text=True,
                              capture_output=True, check=False)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        self.assertEqual([row["knob"] for row in json.loads(done.stdout)["knobs"]],
                         [knob.name for knob in KNOBS])

    def test_a_seccomp_filter_shows(self):
        """With the profile of seccomp/ a ring can be made; without its first group it cannot."""
        library = "libseccomp.so.2"
        try:
            ctypes.CDLL(library)
        except OSError:
            self.skipTest(f"no {library}")
        for groups, allowed in ((slice(None), 1), (slice(1, None), 0)):
            done = subprocess.run([sys.executable, "-B", "-c", UNDER_FILTER, library,
                                   str(TUNING), str(groups.start or 0)],
                                  text=True, capture_output=True, check=False)
            rows = {row["knob"]: row for row in json.loads(done.stdout)["knobs"]}
            self.assertEqual(rows["io_uring allowed"]["value"], [allowed], done.stderr)


# Loads the profile as a container's runtime does, then becomes check.
UNDER_FILTER = """
import ctypes, json, os, sys
library, tuning, first = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3])
library.seccomp_init.restype = ctypes.c_void_p
profile = json.load(open(f"{tuning}/seccomp/murre.json"))
context = ctypes.c_void_p(library.seccomp_init(0x50000 | profile["defaultErrnoRet"]))
for group in profile["syscalls"][first:]:
    for name in group["names"]:
        call = library.seccomp_syscall_resolve_name(name.encode())
        assert call != -1, name
        library.seccomp_rule_add(context, 0x7FFF0000, call, 0)
assert library.seccomp_load(context) == 0
os.execv(f"{tuning}/check", ["check", "--json", "--conns", "1000"])
"""


class Files(Machine):
    def test_the_sysctl_file_is_what_apply_prints(self):
        """After a change of a formula, UPDATE=1 tests/kernel-tuning.py writes the file."""
        made, file = self.run_tool("apply", "--print"), TUNING / "sysctl.d/90-murre.conf"
        if os.environ.get("UPDATE"):
            file.write_text(made)
        self.assertEqual(made, file.read_text())

    def test_the_readme_has_a_row_for_every_knob(self):
        rows = re.findall(r"^\| `?([^`|]+?)`? \|", (TUNING / "README.md").read_text(), re.M)
        self.assertEqual([knob.name for knob in KNOBS if knob.name not in rows], [])


if __name__ == "__main__":
    unittest.main()
