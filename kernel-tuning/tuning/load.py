"""What a host has to hold, as the command line says it."""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """So many connections, and which of their ends are on this host."""

    conns: int
    server: bool = True
    client: bool = False
    # Addresses and ports that the clients connect to: each lets one client address use all its
    # local ports again.
    targets: int = 30

    @property
    def sockets(self):
        return self.conns * (self.server + self.client)

    def __str__(self):
        ends = [end for end in ("server", "client") if getattr(self, end)]
        return f"{self.conns:,} connections, {' and '.join(ends)} here"


def parser(description):
    """The options that all sizing starts from."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--conns", type=count, default=1_000_000, metavar="N",
                         help="connections to size for [1000000]")
    options.add_argument("--server", action="store_true", help="the server is here [default]")
    options.add_argument("--client", action="store_true",
                         help="the clients are here; with --server, both ends are")
    options.add_argument("--targets", type=count, default=30, metavar="N",
                         help="addresses that the clients connect to [30]")
    return options


def load_of(arguments):
    server = arguments.server or not arguments.client
    return Load(arguments.conns, server, arguments.client, arguments.targets)


def count(text):
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= CONNS_MAX:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 to {CONNS_MAX}")
    return int(text)


# As in `murre serve --max-conns`.
CONNS_MAX = 16_000_000
