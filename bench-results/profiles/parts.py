#!/usr/bin/env python3
"""Where a server's time goes, by part: each sample of `perf record -g` counts for the first part that
one of its frames names. With --per-tcp as percent of the time spent in TCP, which is the same work
for every server, so that servers profiled on a busy machine can be compared; otherwise of all.

Usage: parts.py [--per-tcp] LABEL=FILE[,FILE...]...
"""
import subprocess
import sys
from collections import Counter

TCP = ["loopback softirq: deliver, ACK", "tcp_sendmsg", "tcp_recvmsg"]
PARTS = [
    (TCP[0], "handle_softirqs net_rx_action"),
    (TCP[1], "tcp_sendmsg tcp_sendmsg_locked"),
    (TCP[2], "tcp_recvmsg tcp_recvmsg_locked"),
    ("connect(2) and its port", "tcp_v4_connect __inet_stream_connect io_connect"),
    ("accept", "inet_csk_accept io_accept do_accept __sys_accept4"),
    ("make a socket", "__sock_create io_socket __sys_socket"),
    ("socket options", "do_sock_setsockopt __sys_setsockopt io_uring_cmd_sock"),
    ("close", "tcp_close sock_close inet_release __fput"),
    ("socket layer", "inet_recvmsg inet_sendmsg sock_recvmsg sock_sendmsg"),
    ("sleep", "schedule __schedule"),
    ("io_uring: arm and fire a poll", "io_poll_task_func io_poll_add io_arm_poll_handler"),
    ("io_uring: around receive and send", "io_recv io_send"),
    ("io_uring: a request's begin and end", "io_issue_sqe io_submit_sqes"),
    ("io_uring: enter and wait", "__do_sys_io_uring_enter io_cqring_wait"),
    ("epoll", "do_epoll_wait do_epoll_ctl ep_send_events"),
    ("recv(2) around the socket", "__sys_recvfrom"),
    ("send(2) around the socket", "__sys_sendto"),
]
REST, USER = "system call entry, rest of the kernel", "user space"
KERNEL = ("do_syscall", "entry_SYSCALL", "asm_", "x64_sys")


def part(frames):
    for name, symbols in PARTS:
        if not frames.isdisjoint(symbols.split()):
            return name
    kernel = any(frame.startswith(KERNEL) for frame in frames)
    return REST if kernel else USER


def count(file):
    command = ["perf", "script", "-i", file, "-F", "ip,sym"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stacks = (stack.split("\n") for stack in text.strip().split("\n\n"))
    return Counter(part({line.split(None, 1)[-1] for line in stack if line}) for stack in stacks)


def row(name, cells):
    print(f"| {name} | {' | '.join(cells)} |")


def main():
    arguments = sys.argv[1:]
    per_tcp = arguments[:1] == ["--per-tcp"]
    columns = {}
    for argument in arguments[per_tcp:]:
        label, files = argument.split("=", 1)
        columns[label] = sum((count(file) for file in files.split(",")), Counter())
    whole = [sum(c[name] for name in TCP) if per_tcp else c.total() for c in columns.values()]
    row("part", columns)
    print("|---|" + "---:|" * len(columns))
    for name in [*dict(PARTS), REST, USER]:
        shares = [100 * c[name] / all for c, all in zip(columns.values(), whole)]
        if max(shares) >= 0.2:
            row(name, (f"{share:.1f}" for share in shares))
    row("all", (f"{100 * c.total() / all:.1f}" for c, all in zip(columns.values(), whole)))
    row("samples", (str(c.total()) for c in columns.values()))


main()
