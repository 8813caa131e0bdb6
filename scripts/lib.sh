# shellcheck shell=bash
# Shared by the scripts, which source it first. It changes to the repository's root, ends the script at the
# first error, and ends the processes that the script has started when the script ends in any way.

set -o errexit -o nounset -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The scripts set everything by flags, so MURRE_* variables of the caller must not interfere.
unset "${!MURRE_@}"

# Below the ephemeral ports (32768 and up), of which a run uses thousands.
export TEST_PORT=${TEST_PORT:-18000} TEST_ADMIN_PORT=${TEST_ADMIN_PORT:-18001}

built=${CARGO_TARGET_DIR:-target}/release
tools=${CARGO_TARGET_DIR:-target}/tools
PATH=$PWD/$tools/bin:$PATH
work=$(mktemp --directory)
# Removed when the script ends.
folders=("$work")
# The commit of the record is taken at the start, because the tree may change meanwhile.
[[ ! ${RECORD:-} ]] || commit=$(git describe --always --abbrev=40 --dirty)

# Prints the title of a step, behind the minutes and seconds since the script began.
step() { printf '\n== %d:%02d %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# Starts a command that does not outlive the script. `$!` is its process id and the id of its own group:
# Ctrl-C reaches only the script, which then ends each group that it has started.
start() { setsid "$@" & }

# Runs a command. Unlike for a plain command, a signal to the script is handled at once.
run() {
    start "$@"
    wait "$!"
}

# SECONDS PID: waits until the process has ended, else fails. By KILL: `finish` ignores other signals.
ended_within() { timeout --signal=KILL "$1" tail --pid="$2" --follow=descriptor /dev/null; }

# KEY=VALUE...: appends a line of JSON to RECORD, if that is set, with the commit, machine and time.
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

# Fails if other programs hold many sockets: they would be counted with those of the run.
quiet() {
    local sockets
    sockets=$(awk '/^TCP:/ { print $3 }' /proc/net/sockstat)
    ((sockets < 1000)) || fail "$sockets TCP sockets are open here: end what holds them first"
}

# Rules for the scenarios about channels: everybody may publish, without a limit on the rate.
open_channels=(--namespace "default,publish=anyone,serve=anyone"
    --namespace "kept,publish=anyone,history-size=100000" --max-commands-per-second 1000000)

# The load comes from few addresses, each with many connections.
any_address=(--max-conns-per-address 0 --max-handshakes-per-second 0)

# Makes the keys of a run with users: the options of the server are in `users`, those of murre-load, which
# signs the tokens and counts the members, in `members`.
keys() {
    local secret=${SECRET_FILE:-$work/secret} key=${KEY_FILE:-$work/key} file
    for file in "$secret" "$key"; do
        [[ -s $file ]] || head --bytes=32 /dev/urandom | base64 --wrap=0 >"$file"
    done
    users=(--jwt-hmac-secret-file "$secret" --api-key-file "$key")
    members=(--token-secret-file "$secret" --admin "${ADMIN:-127.0.0.1:$TEST_ADMIN_PORT}" --api-key-file "$key")
}

# The command of the server.
binary=("$built/murre")

# A server that starts while clients have its port cannot have it: no port of ours may be one that the
# kernel gives to clients.
ports_apart() { # PORT...
    local first last port reserved
    read -r first last </proc/sys/net/ipv4/ip_local_port_range
    reserved=$(</proc/sys/net/ipv4/ip_local_reserved_ports)
    for port in "$@"; do
        ((port >= first && port <= last)) || continue
        python3 -c 'import sys
parts = [part.split("-") for part in sys.argv[2].split(",") if part]
sys.exit(not any(int(part[0]) <= int(sys.argv[1]) <= int(part[-1]) for part in parts))' "$port" \
            "$reserved" || fail "port $port may be given to a client (net.ipv4.ip_local_port_range is" \
            "$first $last): run sysctl -w net.ipv4.ip_local_reserved_ports=${reserved:+$reserved,}$port" \
            "or set TEST_PORT and TEST_ADMIN_PORT to ports below $first"
    done
}

# Starts the server with these options and waits until it serves. Its process id is in `server`.
start_server() {
    ports_apart "$TEST_PORT" "$TEST_ADMIN_PORT"
    start "${binary[@]}" serve --bench "${open_channels[@]}" "${any_address[@]}" \
        --listen "${server_listen:-127.0.0.1:$TEST_PORT}" --admin "127.0.0.1:$TEST_ADMIN_PORT" "$@" \
        >"$work/server.log" 2>&1
    server=$!
    # From its log: another server could answer on the port.
    until grep --quiet serving "$work/server.log"; do
        kill -0 "$server" 2>/dev/null || fail "no server: $(tail --lines=1 "$work/server.log")"
        sleep 0.1
    done
}

# Prints the number of connections that the server has now.
held() {
    curl --silent "http://127.0.0.1:$TEST_ADMIN_PORT/stats" | python3 -c '
import json, sys
print(json.loads(sys.stdin.read() or "{}").get("connections", 0))'
}

# After SIGTERM: the server must end soon, and with 0.
wait_for_server() {
    ended_within 30 "$server" || fail "the server still runs 30 s after SIGTERM"
    wait "$server" || fail "the server ended with $?: $(tail --lines=1 "$work/server.log")"
}

stop_server() {
    kill -TERM "$server"
    wait_for_server
}

# Restores what a script has changed on the machine. Scripts redefine it.
undo() { :; }

finish() {
    local pid
    # Further signals end neither this function nor the commands in it.
    trap '' HUP INT TERM
    # In reverse order: clients that lose their server would report an error.
    for pid in $(jobs -pr | tac); do
        # By group, or alone if it has no group yet.
        kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" || true
        # A million connections take half a minute to close.
        ended_within 90 "$pid" || kill -KILL -- "-$pid" || true
    done
    undo
    rm --recursive --force "${folders[@]}"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
