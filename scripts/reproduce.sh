# shellcheck shell=bash
# Shared by the scripts that reproduce published runs: options, the host's limits, both ends.
#
# On one machine:   scripts/reproduce-... [--conns N] [--duration T] [--tune]
# On several:       ... --server ADDR:PORT      on the server's machine, until interrupted
#                   ... --client ADDR:PORT[,..] [--source ADDR[,..]]
#                                               on each client's machine, with its part of --conns
# --tune, as root, raises the kernel's settings that are too low, and restores them when the script ends.
# --descriptors normal or direct sets the kind of descriptors of both programs.
# CONTRIBUTING.md has examples, also with several machines.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here=both tune="" tuned="" listen=0.0.0.0:$TEST_PORT targets=127.0.0.1-31:$TEST_PORT
sources="" descriptors=auto fewer="" failed=0
# The fewest connections with which a run can show the promises; empty if there are none.
promised=""
# RECORDS names another directory; the tests use it.
record=${RECORDS:-bench-results/records}/$(date --utc +%F)-$(basename "$0").jsonl

# A state file of its own, so that settings applied by an operator stay. The next run in this network
# namespace uses the same file, and restores what a killed run could not.
MURRE_TUNING_STATE=/var/lib/murre-tuning/reproduce-$(stat --dereference --format=%i \
    /proc/self/ns/net).json
export MURRE_TUNING_STATE

options() { # ARGUMENTS of the script, whose defaults are in `conns` and `duration`
    while (($#)); do
        case $1 in
        --tune) tune=yes && shift && continue ;;
        --conns | --duration | --server | --client | --source | --descriptors)
            (($# > 1)) || fail "$1 needs a value"
            ;;
        *) fail "unknown option '$1': see the first lines of $0 and of scripts/reproduce.sh" ;;
        esac
        case $1 in
        --conns) conns=$2 ;;
        --duration) duration=$2 ;;
        --server) here=server listen=$2 ;;
        --client) here=client targets=$2 ;;
        --source) sources=$2 ;;
        --descriptors) descriptors=$2 ;;
        esac
        shift 2
    done
    [[ $conns =~ ^[1-9][0-9]{0,8}$ ]] || fail "--conns: '$conns' is not a number of connections"
}

undo() { # called by lib.sh at the end, after all processes have ended
    [[ -z $tuned ]] || kernel-tuning/revert >"$work/reverted" || cat "$work/reverted" >&2
    # An empty file: nothing was measured.
    [[ -s $record ]] || rm --force "$record"
}

# Checks that this machine has room for the ends that are on it. If `fewer` is set, lowers `conns` to the
# number that fits.
prepare() {
    local size room needed free
    # From one address to one address, connects become slow when half of the 28,000 ports are in use (the
    # kernel tries every second port first): to 31 addresses, 400,000 connections from each are fast.
    [[ $here != both || -n $sources ]] ||
        sources=$(seq --format=127.0.0.%.0f --separator=, $((conns / 400000 + 1)))
    quiet
    # `check` knows at most as many connections as the server takes.
    size=(--conns $((conns < 16000000 ? conns : 16000000)) --targets "$(paths)" --server --client)
    [[ $here == both ]] || size=("${size[@]:0:4}" "--$here")
    : >>"$record" || fail "cannot write $record: name another directory in RECORDS"
    if [[ -n $tune ]]; then
        tuned=yes
        kernel-tuning/apply "${size[@]}"
    fi
    read -r room needed free < <(limits "${size[@]}")
    echo "$conns connections need $needed MB of memory here; $free MB are free."
    if ((room < conns)) && [[ -n $fewer ]]; then
        conns=$room
    elif ((room < conns)); then
        kernel-tuning/check --now "${size[@]}" || true
        fail "$conns connections do not fit, $room do. Use --tune as root, or a smaller --conns"
    fi
    run cargo build --release --locked --package murre --package murre-load --package murre-report
}

# Prints the number of pairs of addresses: each gives the connections a set of ports.
paths() {
    local target count=0 from
    IFS=, read -ra from <<<"$sources"
    for target in ${targets//,/ }; do
        if [[ $target =~ \.([0-9]{1,3})-([0-9]{1,3}):[0-9]+$ ]]; then
            count=$((count + 10#${BASH_REMATCH[2]} - 10#${BASH_REMATCH[1]}))
        fi
        count=$((count + 1))
    done
    echo $((count * (${#from[@]} ? ${#from[@]} : 1)))
}

# Prints how many connections fit, and the memory needed and free, in MB.
limits() {
    kernel-tuning/check --json --now "$@" | python3 -c '
import json, sys
found = json.load(sys.stdin)
memory = next(row for row in found["knobs"] if row["knob"] == "memory bytes")
print(found["room"], memory["needed"][0] // 10**6, memory["value"][0] // 10**6)'
}

# Starts the server. With --server, stays until interrupted.
serve() { # OPTIONS of the server, beside those of all runs
    [[ $here != client ]] || return 0
    server_listen=$listen start_server --max-conns $((conns + 100)) --descriptors "$descriptors" "$@"
    grep --max-count=1 'serving' "$work/server.log" | cut --characters=1-400
    [[ $here != server ]] || attend
}

# With --server: measures the server's memory once, when all connections are open.
attend() {
    trap 'exit 0' INT TERM
    run "$built/murre-load" memory --pid "$server" --save-baseline "$work/baseline"
    echo "Start the clients with --client; interrupt this when they are done."
    until (($(held) >= conns)); do
        kill -0 "$server" || fail "the server ended: $(tail --lines=1 "$work/server.log")"
        run sleep 1
    done
    # Memory of closed connections and of the last handshakes is freed a little later.
    run sleep 3
    run "$built/murre-load" memory --pid "$server" --conns "$conns" --baseline "$work/baseline" \
        --out "$record"
    echo "All $conns connections were open: memory is in $record. Interrupt this when the clients are done."
    wait "$server" || true
    fail "the server ended: $(tail --lines=1 "$work/server.log")"
}

# Runs a scenario and appends its record. The server's part is measured on the server's machine only.
load() { # SCENARIO OPTIONS...
    local own=() size
    [[ $here == client ]] || own=(--server-pid "$server")
    [[ -z $sources ]] || own+=(--source "$sources")
    size=$(stat --dereference --format=%s "$record")
    failed=0
    run "$built/murre-load" "$@" --target "$targets" --conns "$conns" --duration "$duration" \
        --descriptors "$descriptors" "${own[@]}" --out "$record" || failed=$?
    # A failed run with a record is still shown beside the published one.
    (($(stat --dereference --format=%s "$record") > size)) || exit "$((failed ? failed : 1))"
}

# Prints the run beside the published one. Fails the script if the run failed or missed a promise, or if it
# cannot show a promise although it is large enough and both ends are on this machine.
judge() { # RUN
    local kept=yes
    "$built/murre-report" verdict --run "$1" "$record" >"$work/verdict" 2>"$work/missed" || kept=no
    cat "$work/verdict"
    [[ -s $work/verdict ]] || fail "$(cat "$work/missed")"
    ((failed == 0)) || exit "$failed"
    if [[ $here == both && -n $promised ]] && ((conns >= promised)); then
        cat "$work/missed" >&2
        [[ $kept == yes ]] || exit 1
        return
    fi
    if grep MISSED "$work/verdict" >&2; then exit 1; fi
    if [[ -n $promised ]] && ((conns < promised)); then
        echo "Not judged: the promises are about $promised connections or more."
    elif grep --quiet 'not shown' "$work/verdict"; then
        echo "Promises that this run cannot show are not judged."
    fi
}
