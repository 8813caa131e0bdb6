"""The machine: its settings, which are files under /proc/sys, and its limits."""

import ctypes
import os
import re
import resource
from functools import cached_property
from pathlib import Path


class Host:
    """Reads and writes only below `root`, which is / except in tests."""

    def __init__(self, root=None, now=False):
        self.root = Path(root or os.environ.get("MURRE_TUNING_ROOT", "/"))
        # Counts only memory that is free now.
        self.now = now

    def text(self, path):
        """A file's text without its newline, or None where it cannot be read."""
        try:
            return (self.root / path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None

    def sysctl(self, name):
        return self.text(self.sysctl_path(name))

    def numbers(self, name):
        """A setting's numbers, or None if the setting is missing or is not made of numbers."""
        words = (self.sysctl(name) or "").split()
        return tuple(map(int, words)) if words and all(map(is_number, words)) else None

    def write(self, name, text):
        """Writes a setting. Raises OSError if the kernel or the container refuses."""
        # Unbuffered, so that this call fails if the kernel refuses; never creates a file.
        fd = os.open(self.root / self.sysctl_path(name), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def settable(self, name):
        """Whether root could write the setting here. False on a read-only /proc/sys, and for settings
        that belong to the host of a container."""
        path = self.root / self.sysctl_path(name)
        try:
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY
            writable = path.stat().st_mode & 0o200
        except OSError:
            return False
        return bool(writable and not read_only and (os.geteuid() or os.access(path, os.W_OK)))

    @staticmethod
    def sysctl_path(name):
        return "proc/sys/" + name.replace(".", "/")

    @cached_property
    def memory_bytes(self):
        """The memory of the machine, or of the control group if that is less."""
        return self.memory("MemTotal")

    @cached_property
    def memory_for_connections(self):
        return self.memory("MemAvailable" if self.now else "MemTotal")

    def memory(self, field):
        found = re.search(rf"{field}:\s*(\d+) kB", self.text("proc/meminfo") or "")
        memory = int(found[1]) * 1024 if found else 0
        cgroup = self.text("sys/fs/cgroup/memory.max") or ""
        return min(memory, int(cgroup)) if is_number(cgroup) else memory

    @cached_property
    def kernel(self):
        found = re.match(r"(\d+)\.(\d+)", self.sysctl("kernel.osrelease") or "")
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @cached_property
    def files_max(self):
        return unbounded(resource.getrlimit(resource.RLIMIT_NOFILE)[1])

    @cached_property
    def memlock_bytes(self):
        """Locked memory that the kernel allows this user. Root has no limit."""
        if os.geteuid() == 0:
            return UNBOUNDED
        return unbounded(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])

    @cached_property
    def uring_allowed(self):
        """Whether a ring can be made. Tried by making one, because no file shows a seccomp profile."""
        if self.root != Path("/"):
            return self.sysctl("kernel.io_uring_disabled") in (None, "0")
        ring = ctypes.CDLL(None).syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
        if ring < 0:
            return False
        os.close(ring)
        return True

    def holds_everywhere(self, name):
        """Whether a setting holds for the whole host although this is only a network namespace of it. In such
        a namespace the host's network settings are not visible."""
        elsewhere = self.sysctl("net.ipv4.tcp_mem") is None
        return elsewhere and not name.startswith("net.")

    def place(self):
        """The scope of a setting: this boot, and this network namespace."""
        try:
            network = os.readlink(self.root / "proc/self/ns/net")
        except OSError:
            network = None
        return {"boot": self.sysctl("kernel.random.boot_id"), "network": network}


def is_number(word):
    return word.lstrip("-").isdigit()


def unbounded(limit):
    return UNBOUNDED if limit == resource.RLIM_INFINITY else limit


PAGE_BYTES = resource.getpagesize()
UNBOUNDED = 2**63 - 1
# The same number on every architecture but Alpha.
IO_URING_SETUP = 425
