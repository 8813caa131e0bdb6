"""The load that a host must hold, from the command line."""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """A number of connections, and which of their ends are on this host."""

    conns: int
    server: bool = True
    client: bool = False
    # Addresses and ports that the clients connect to. For each, a client address can use all its local
    # ports.
    targets: int = 30

    @property
    def sockets(self):
        return self.conns * (self.server + self.client)

    def __str__(self):
        ends = [end for end in ("server", "client") if getattr(self, end)]
        return f"{self.conns:,} connections, {' and '.join(ends)} on this host"


def parser(description):
    """A parser with the options that describe the load."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--conns", type=count, default=1_000_000, metavar="N",
                         help="connections to size for [1000000]")
    options.add_argument("--server", action="store_true", help="the server is on this host [default]")
    options.add_argument("--client", action="store_true",
                         help="the clients are on this host; with --server, both ends are")
    options.add_argument("--targets", type=count, default=30, metavar="N",
                         help="addresses that the clients connect to [30]")
    return options


def load_of(arguments):
    server = arguments.server or not arguments.client
    return Load(arguments.conns, server, arguments.client, arguments.targets)


def count(text):
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= CONNS_MAX:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to {CONNS_MAX}")
    return int(text)


# As in `murre serve --max-conns`.
CONNS_MAX = 16_000_000
