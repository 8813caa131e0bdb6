"""The values that `apply` found, saved until `revert` has restored them."""

import json
import os
from pathlib import Path


class State:
    """The file holds the first value of each setting, and the scope in which it was in force."""

    def __init__(self, host):
        self.path = Path(os.environ.get("MURRE_TUNING_STATE", DEFAULT))
        self.place = host.place()
        self.saved = {}
        # Whether a reboot has undone `apply`.
        self.outdated = False
        if self.path.exists():
            found = self.parsed()
            self.outdated = found["place"]["boot"] != self.place["boot"]
            if not self.outdated:
                if found["place"] != self.place:
                    raise StateError(f"{self.path} is from another network namespace: run this there,"
                                     " or name another file in MURRE_TUNING_STATE")
                self.saved = found["saved"]

    def parsed(self):
        try:
            found = json.loads(self.path.read_text())
            if all(map(isinstance, found["saved"].values(), [str] * len(found["saved"]))):
                found["place"]["boot"]
                return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        raise StateError(f"{self.path} is not a file of kernel-tuning/apply, or cannot be read: look at it,"
                         " then remove it")

    def store(self):
        """Replaces the file in one step, or removes it if no value is saved."""
        try:
            if not self.saved:
                self.path.unlink(missing_ok=True)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_name(self.path.name + ".new")
            with new.open("w") as file:
                json.dump({"place": self.place, "saved": self.saved}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise StateError(f"cannot save the old values in {self.path} ({error.strerror}):"
                             " run as root, or name another file in MURRE_TUNING_STATE") from error


class StateError(Exception):
    """Nothing was changed. The text says what to do."""


# Not /var/lib/murre: the service owns that, and must not decide what root writes to /proc/sys.
DEFAULT = "/var/lib/murre-tuning/state.json"
