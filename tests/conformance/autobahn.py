"""The clients of the Autobahn suite against `murre serve`, on every backend at a time. Each case must
come to what autobahn.txt says, for better or worse. Writes one line of JSON for each backend.
Usage: autobahn.py WSTEST MURRE FOLDER. The suite's own reports go to FOLDER/BACKEND/index.html."""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BACKENDS = {
    "uring, normal descriptors": ["--io=uring", "--descriptors=normal"],
    "uring, direct descriptors": ["--io=uring", "--descriptors=direct"],
    "uring-plain": ["--io=uring-plain"],
    "epoll": ["--io=epoll"],
}
# Section 9 has messages of 16 MiB, and some of 4 MiB in frames of 64 bytes.
SERVE = ["serve", "--bench", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log-format=json",
         "--max-conns=100", "--max-message-bytes=16777216", "--max-fragments=100000"]
PATIENCE_SECONDS = 600


def expected():
    """Case to result. `1.1.1-8 OK 1000` is eight cases."""
    results = {}
    for line in Path(__file__).with_suffix(".txt").read_text().splitlines():
        if line and not line.startswith("#"):
            cases, *result = line.split()
            group, _, numbers = cases.rpartition(".")
            first, _, last = numbers.partition("-")
            for number in range(int(first), int(last or first) + 1):
                results[f"{group}.{number}"] = " ".join(result)
    return results


def result(report):
    """The suite's result of a case: its behaviour, its closing behaviour, and the close code."""
    answered, ended = report["behavior"], report["behaviorClose"]
    verdict = answered if ended in ("OK", answered) else f"{answered}, closing {ended}"
    return f"{verdict} {report['remoteCloseCode'] or '-'}"


@contextlib.contextmanager
def server(murre, flags):
    """The address of a server with these flags. It must exit with 0 after SIGTERM."""
    process = subprocess.Popen([murre, *SERVE, *flags], stderr=subprocess.PIPE, text=True)
    try:
        said = process.stderr.readline()
        if '"listen"' not in said:
            raise RuntimeError(f"murre {' '.join(flags)}: {said}")
        yield json.loads(said)["listen"]
        process.terminate()
        process.communicate(timeout=30)
        if process.returncode != 0:
            raise RuntimeError(f"murre {' '.join(flags)}: ended with {process.returncode}")
    finally:
        process.kill()


def run(wstest, murre, folder, backend):
    """Case to result on a backend, and the seconds it took."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    began = time.monotonic()
    with server(murre, BACKENDS[backend]) as address, open(folder / "log", "w") as log:
        spec = folder / "spec.json"
        spec.write_text(json.dumps({
            "servers": [{"agent": "murre", "url": f"ws://{address}/echo"}],
            "outdir": str(folder), "cases": ["*"], "exclude-cases": []}))
        # In an empty folder: the suite would import Python files that lie beside its configuration.
        subprocess.run([wstest, "--mode=fuzzingclient", f"--spec={spec}"], cwd=folder,
                       stdout=log, stderr=log, timeout=PATIENCE_SECONDS, check=True)
    # The suite stops at the first refused connection, and still exits with 0.
    index = folder / "index.json"
    reports = json.loads(index.read_text())["murre"] if index.exists() else {}
    return {case: result(report) for case, report in reports.items()}, time.monotonic() - began


def differences(got, want, folder):
    """A line for each case whose result is not the expected one."""
    for case in sorted(got.keys() | want.keys(), key=lambda case: [*map(int, case.split("."))]):
        if got.get(case) != want.get(case):
            report = folder / f"murre_case_{case.replace('.', '_')}.html"
            yield (f"{case}: {got.get(case, 'no result')}, expected "
                   f"{want.get(case, 'no such case')}; see {report}")


def main():
    wstest, murre, folder = (Path(argument).resolve() for argument in sys.argv[1:])
    want, differ = expected(), 0
    folders = [folder / backend.replace(", ", "-").replace(" ", "-") for backend in BACKENDS]
    with ThreadPoolExecutor() as pool:
        runs = pool.map(lambda backend, own: run(wstest, murre, own, backend), BACKENDS, folders)
        for backend, own, (got, seconds) in zip(BACKENDS, folders, runs):
            lines = list(differences(got, want, own))
            differ += len(lines)
            for line in lines:
                print(f"{backend}: {line}", file=sys.stderr)
            counts = Counter(result.split()[0] for result in got.values())
            print(json.dumps({"conformance": "Autobahn", "backend": backend, "cases": counts,
                              "unexpected": len(lines), "seconds": round(seconds)}), flush=True)
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
