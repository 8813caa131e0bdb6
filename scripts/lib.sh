# shellcheck shell=bash
# What the scripts share. Sourced first: it goes to the repository's root, ends the script at the
# first error, and ends whatever the script has started when it ends, however that is.

set -o errexit -o nounset -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The server reads MURRE_* variables; the scripts say everything by flags.
unset "${!MURRE_@}"

# Below the ports that the kernel gives to clients (32768 and up), of which a run takes thousands.
export TEST_PORT=${TEST_PORT:-18000} TEST_ADMIN_PORT=${TEST_ADMIN_PORT:-18001}

built=${CARGO_TARGET_DIR:-target}/release
tools=${CARGO_TARGET_DIR:-target}/tools
PATH=$PWD/$tools/bin:$PATH
work=$(mktemp --directory)
# For the record, when the script began: the tree may be worked on meanwhile.
[[ ! ${RECORD:-} ]] || commit=$(git describe --always --abbrev=40 --dirty)

step() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# Starts a command that does not outlive the script. Its process id is in `$!`, which is its group's
# too: Ctrl-C is for the script, which ends what it has started once, and its children with it.
start() { setsid "$@" & }

# Runs a command to its end, or to the script's: a trap waits for a plain command, not for this.
run() {
    start "$@"
    wait "$!"
}

# Waits so many seconds for a process to end. By KILL: in `finish` the rest is ignored.
ended_within() { timeout --signal=KILL "$1" tail --pid="$2" --follow=descriptor /dev/null; }

# Appends a line of JSON to RECORD, where that is set: KEY=VALUE..., at which commit, where and when.
record() {
    [[ ${RECORD:-} ]] || return 0
    python3 - "$@" "commit=$commit" >>"$RECORD" <<'END'
import datetime, json, os, sys
cpu = next(line for line in open("/proc/cpuinfo") if line.startswith("model name"))
said = dict(argument.split("=", 1) for argument in sys.argv[1:])
print(json.dumps({
    **{key: int(value) if value.isdigit() else value for key, value in said.items()},
    "cpu": cpu.split(":")[1].strip(), "cores": os.cpu_count(), "kernel": os.uname().release,
    "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
}))
END
}

# Another run's sockets would be counted with ours, and another program's work slows ours.
quiet() {
    local sockets
    sockets=$(awk '/^TCP:/ { print $3 }' /proc/net/sockstat)
    ((sockets < 1000)) || fail "$sockets TCP sockets are open here: end what holds them first"
}

# What the scenarios about channels need: everybody may publish, and as fast as they can.
open_channels=(--namespace "default,publish=anyone,serve=anyone"
    --namespace "kept,publish=anyone,history-size=100000" --max-commands-per-second 1000000)

# Load comes from few addresses, of which each is many clients.
any_address=(--max-conns-per-address 0 --max-handshakes-per-second 0)

# What is started as the server.
binary=("$built/murre")

# Starts the server with these options and waits until it serves. Its process id is in `server`.
start_server() {
    start "${binary[@]}" serve --bench "${open_channels[@]}" "${any_address[@]}" \
        --listen "${server_listen:-127.0.0.1:$TEST_PORT}" --admin "127.0.0.1:$TEST_ADMIN_PORT" "$@" \
        >"$work/server.log" 2>&1
    server=$!
    # Its own word: an answer on the port could be that of another server.
    until grep --quiet serving "$work/server.log"; do
        kill -0 "$server" 2>/dev/null || fail "no server: $(tail --lines=1 "$work/server.log")"
        sleep 0.1
    done
}

# How many connections the server has now.
held() {
    curl --silent "http://127.0.0.1:$TEST_ADMIN_PORT/stats" | python3 -c '
import json, sys
print(json.loads(sys.stdin.read() or "{}").get("connections", 0))'
}

# The server has been told to end: it must do so soon, and with 0.
wait_for_server() {
    ended_within 30 "$server" || fail "the server still runs 30 s after SIGTERM"
    wait "$server" || fail "the server ended with $?: $(tail --lines=1 "$work/server.log")"
}

stop_server() {
    kill -TERM "$server"
    wait_for_server
}

# What a script has changed on the machine is put back here.
undo() { :; }

finish() {
    local pid
    # A second signal changes nothing, nor does it end what is used here.
    trap '' HUP INT TERM
    # The last first: clients that lose their server would take that for its fault.
    for pid in $(jobs -pr | tac); do
        # By group, or alone in the moment before it has one.
        kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" || true
        # A million connections take half a minute to leave.
        ended_within 90 "$pid" || kill -KILL -- "-$pid" || true
    done
    undo
    rm --recursive --force "$work"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
