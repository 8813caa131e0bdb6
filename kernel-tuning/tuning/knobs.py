"""The table of knobs: the value that each needs for a load, the limit that it lifts, and the symptom of
reaching that limit.

`check` compares the machine with this table, `apply` sets its sysctls, and `revert` writes only those.
"""

import math
import os
from dataclasses import dataclass
from typing import Callable, Optional

from tuning.host import PAGE_BYTES


TOO_LOW, CANNOT = "too low", "cannot be set here"


def at_least(value, need, _load):
    return len(value) == len(need) and all(map(int.__ge__, value, need))


def larger(value, need):
    """The larger of value and need, number by number, so nothing is lowered."""
    return tuple(map(max, value, need)) if len(value) == len(need) else need


@dataclass(frozen=True)
class Knob:
    """One setting. Without a `remedy` it is the sysctl of that name, and `apply` sets it."""

    name: str
    # The numbers it needs, from a Load and a Host.
    need: Callable
    lifts: str
    hit: str
    # Whether it is required: without it connections are refused, stalled or lost, not only slower.
    matters: bool = True
    client_only: bool = False
    enough: Callable = at_least
    settle: Callable = larger
    # Reads the value in force from a Host. None: it is a sysctl.
    read: Optional[Callable] = None
    remedy: Optional[str] = None
    # Why it may be missing. `absent_is_fine`: if it is missing, it limits nothing.
    absent: str = "this kernel has no such setting"
    absent_is_fine: bool = False
    # What to do if even the highest value is too low.
    beyond: str = ""
    # Why it limits nothing on this Host now, or an empty text.
    moot: Callable = lambda _host: ""
    # Separates its numbers in texts.
    between: str = " "

    def value(self, host):
        return self.read(host) if self.read else host.numbers(self.name)


@dataclass(frozen=True)
class Verdict:
    knob: Knob
    # "ok", `TOO_LOW`, or `CANNOT` if it is too low and cannot be raised here, or is not visible.
    status: str
    value: Optional[tuple]
    need: tuple
    meaning: str
    # Why the connections are reached all the same, or an empty text.
    harmless: str

    @property
    def fine(self):
        return self.status == "ok" or bool(self.harmless)


def judge(knob, load, host):
    """Compares one knob with what the load needs."""
    value, need = knob.value(host), knob.need(load, host)
    if value is None:
        status = "ok" if knob.absent_is_fine else CANNOT
        return Verdict(knob, status, value, need, knob.absent, "not known to be too low")
    harmless = knob.moot(host) or ("" if knob.matters else "too low makes connections slower, not fewer")
    if knob.enough(value, need, load):
        status, meaning = "ok", ""
    elif knob.remedy:
        status, meaning = TOO_LOW, knob.remedy
    elif knob.settle(value, need) == value:
        status, meaning = CANNOT, knob.beyond
    elif host.settable(knob.name):
        status, meaning = TOO_LOW, "kernel-tuning/apply raises it"
    else:
        status, meaning = CANNOT, "read-only here: only the host of this container can set it"
    return Verdict(knob, status, value, need, meaning, harmless)


def judged(load, host):
    """The verdicts on all knobs that this load uses."""
    return [judge(knob, load, host) for knob in KNOBS if load.client or not knob.client_only]


def power_of_two(number, low, high):
    """The next power of two, within bounds."""
    return max(low, min(high, 1 << max(0, math.ceil(number) - 1).bit_length()))


def backlog(load, _host):
    """Room for a sixteenth of all clients to reconnect during one pause of the server."""
    return (min(65535, power_of_two(load.conns / 16, 4096, 65536)),)


def tcp_memory(load, host):
    """In pages. The middle number, where the kernel begins to shrink windows, has one page for each socket,
    because one unread byte or FIN is charged a page. The others follow in the kernel's own proportion. At
    most half of the memory."""
    most = min(load.sockets * 3 // 2, host.memory_bytes // PAGE_BYTES // 2)
    return (most // 2, most * 2 // 3, most)


def files(load, host):
    """One file for each connection; with direct descriptors the limit holds for each of 1024 rings."""
    normal = load.conns + FILES_BESIDE
    direct = max(FILES_BESIDE, math.ceil(load.conns / RINGS_MAX))
    has_direct = host.uring_allowed and host.kernel >= (6, 13)
    return (direct if normal > host.files_max and has_direct else normal,)


def locked(load, host):
    """Memory of the rings: one for each core, or more if direct descriptors are spread over them."""
    if (5, 12) <= host.kernel < (6, 14):
        return (0,)
    rings = max(os.cpu_count() or 1, math.ceil(load.conns / host.files_max))
    return (rings * RING_BYTES,)


def memory(load, _host):
    server, client = load.server * SERVER_BYTES, load.client * CLIENT_BYTES
    return (load.conns * (server + client) + BESIDE_BYTES,)


def tracked(load, _host):
    """An entry for each connection, and a quarter more for closed ones, which stay for minutes."""
    return (load.conns * 5 // 4,)


def untracked(host):
    tracks_none = host.numbers("net.netfilter.nf_conntrack_count") == (0,)
    return "no connection is tracked now" if tracks_none else ""


def ports_suffice(value, _need, load):
    return len(value) == 2 and (value[1] - value[0] + 1) * load.targets >= load.conns


def exactly(_value, need):
    return need


# Files that the server opens beside its connections (`crates/core/src/host/mod.rs`).
FILES_BESIDE = 256
# The most shards of `murre serve`.
RINGS_MAX = 1024
# 62 rings of 1024 and 4096 entries fit 8 MiB of locked memory.
RING_BYTES = 132 * 1024
# SPECIFICATION.md promises 4.25 KB on direct descriptors. A client's socket has two bind buckets.
SERVER_BYTES, CLIENT_BYTES = 4250, 4600
# For the system and the fixed part of server and client.
BESIDE_BYTES = 512 * 1024 * 1024
# Files of other programs.
FILES_ELSEWHERE = 65536

HOST_ONLY = "not visible in this network namespace: the host's value is in force, check it there"

KNOBS = [
    Knob("kernel release", lambda *_: (5, 10), "io_uring with waits that can time out",
         "'io_uring cannot be used here' at start",
         between=".", read=lambda host: host.kernel, enough=lambda value, need, _: value >= need,
         remedy="boot a newer kernel; 6.13 has every feature that Murre uses"),
    Knob("io_uring allowed", lambda *_: (1,),
         "the use of io_uring; without it the server uses epoll",
         "the start line says io=epoll", read=lambda host: (int(host.uring_allowed),),
         matters=False,
         remedy="set kernel.io_uring_disabled=0 (6.6 and later), or allow io_uring_setup, _enter"
                " and _register in the container's seccomp profile (seccomp/murre.json)"),
    Knob("memory bytes", memory, "sockets, and the memory of server and clients for each",
         "out-of-memory kills; accepts fail with ENOMEM or ENOBUFS",
         read=lambda host: (host.memory_for_connections,),
         remedy="use fewer connections, more memory, or a higher limit of the control group"),
    Knob("open files (hard limit)", files, "descriptors of one process, or of the table of one ring",
         "'need more open files than the hard limit allows' at start",
         read=lambda host: (host.files_max,),
         remedy="LimitNOFILE= in the unit, limits.d/90-murre.conf for a login, 'ulimit -Hn' as"
                " root; or direct descriptors, on a kernel of 6.13 and later"),
    Knob("fs.nr_open", lambda load, _: (load.conns + FILES_BESIDE,),
         "the highest hard limit of open files that can be set",
         "raising the limit fails with EPERM",
         moot=lambda _: "for a running server only the hard limit itself matters"),
    Knob("fs.file-max", lambda load, _: (load.sockets + FILES_ELSEWHERE,),
         "open files of the whole machine, also sockets on direct descriptors",
         "'VFS: file-max limit reached' in the kernel log; accepts fail with ENFILE,"
         " murre_accepts_failed_total grows"),
    Knob("locked memory bytes", locked, "rings, on kernels that count them (up to 5.11, and from 6.14)",
         "ENOMEM in the start line, which says epoll", read=lambda host: (host.memlock_bytes,),
         remedy="LimitMEMLOCK= in the unit, memlock in limits.d/90-murre.conf"),
    Knob("fs.epoll.max_user_watches", lambda load, _: (load.sockets,),
         "sockets that epoll watches, if io_uring cannot be used",
         "accepts fail with ENOSPC, murre_accepts_failed_total grows", absent_is_fine=True,
         moot=lambda host: "io_uring is used" if host.uring_allowed else ""),
    Knob("net.ipv4.tcp_mem", tcp_memory,
         "unread and unsent bytes of all sockets together, in pages",
         "nstat TcpExtTCPMemoryPressures grows, 'TCP: out of memory' in the kernel log,"
         " every answer takes 200 ms", absent=HOST_ONLY),
    Knob("net.core.somaxconn", backlog, "connections waiting to be accepted",
         "nstat TcpExtListenOverflows grows, connects take 1 s or 3 s", matters=False),
    Knob("net.ipv4.tcp_syncookies", lambda *_: (1,), "connects while the backlog is full",
         "nstat TcpExtTCPReqQFullDrop grows", matters=False),
    Knob("net.ipv4.tcp_max_syn_backlog", backlog, "half-open connections, without SYN cookies",
         "nstat TcpExtTCPReqQFullDrop grows", matters=False),
    Knob("net.core.netdev_max_backlog",
         lambda load, _: (power_of_two(load.sockets / 64, 1024, 16384),),
         "packets between programs of this machine (lo, veth) that wait for a core",
         "second column of /proc/net/softnet_stat grows, retransmissions on lo", matters=False,
         absent=HOST_ONLY),
    Knob("net.ipv4.tcp_max_orphans", lambda load, _: (load.sockets,),
         "closed sockets with unsent bytes: a drain closes all in a short time",
         "'TCP: too many orphaned sockets' in the kernel log, clients see RST", matters=False,
         absent=HOST_ONLY),
    Knob("net.ipv4.tcp_max_tw_buckets", lambda load, _: (load.conns,),
         "sockets in TIME_WAIT, at the end that closes first: a drain closes all in a short time",
         "nstat TcpExtTCPTimeWaitOverflow grows", matters=False),
    Knob("net.netfilter.nf_conntrack_max", tracked, "connections that the firewall tracks",
         "'nf_conntrack: table full, dropping packet' in the kernel log",
         absent="the firewall tracks no connections here", absent_is_fine=True, moot=untracked),
    Knob("net.ipv4.tcp_ehash_entries", lambda load, _: (power_of_two(load.sockets, 1, 1 << 24),),
         "length of the chains in the table of sockets, which is searched for each packet",
         "cycles in __inet_lookup_established (perf top)", matters=False,
         # The kernel shows a negative number in a network namespace that uses the host's table.
         read=lambda host: as_positive(host.numbers("net.ipv4.tcp_ehash_entries")),
         remedy="thash_entries= on the kernel's command line",
         absent="not visible before 6.1: see 'TCP established hash table entries' in the boot log"),
    Knob("net.ipv4.ip_local_port_range", lambda *_: (20000, 65535),
         "connections from one client address to one server address and port",
         "EADDRNOTAVAIL from connect", client_only=True, enough=ports_suffice, settle=exactly,
         beyond="connect to more addresses or ports of the server, and give their number with --targets"),
]


def as_positive(numbers):
    return numbers and tuple(map(abs, numbers))
