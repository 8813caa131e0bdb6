# shellcheck shell=bash
# What the scripts that reproduce published runs share: options, the host's limits, both ends.
#
# On one machine:      scripts/reproduce-... [--conns N] [--duration T] [--tune]
# On several:          ... --server ADDR:PORT      on the server's, until interrupted
#                      ... --client ADDR:PORT[,..] [--source ADDR[,..]]
#                                                  on each client's, with its part of --conns
# --tune sets what the kernel's settings lack, as root, and puts it back at the end, whatever the end.
# --descriptors normal or direct leaves no choice to the two programs.
# CONTRIBUTING.md has examples, two machines among them.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here=both tune="" tuned="" listen=0.0.0.0:$TEST_PORT targets=127.0.0.1-31:$TEST_PORT
sources="" descriptors=auto fewer="" failed=0
# Connections from which on a run can show what is promised; none where nothing is.
promised=""
# The tests name a directory of theirs.
record=${RECORDS:-bench-results/records}/$(date --utc +%F)-$(basename "$0").jsonl

# A state of its own: what an operator has applied stays applied. The same for the next run in this
# network namespace, which puts back what a killed one could not.
MURRE_TUNING_STATE=/var/lib/murre-tuning/reproduce-$(stat --dereference --format=%i \
    /proc/self/ns/net).json
export MURRE_TUNING_STATE

options() { # The script's arguments, after its defaults in `conns` and `duration`.
    while (($#)); do
        case $1 in
        --tune) tune=yes && shift && continue ;;
        --conns | --duration | --server | --client | --source | --descriptors)
            (($# > 1)) || fail "$1 wants a value"
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

undo() { # called by lib.sh at the end, when everything that was started has ended
    [[ -z $tuned ]] || kernel-tuning/revert >"$work/reverted" || cat "$work/reverted" >&2
    # Nothing was measured.
    [[ -s $record ]] || rm --force "$record"
}

# Sees to it that this machine has room for both ends, or for the one that is here. Where
# `fewer` is set, lowers `conns` to what there is room for.
prepare() {
    local size room needed free
    # To one address from one address connects become slow when half of the 28,000 ports are taken
    # (the kernel looks at every second one first): 31 addresses take 400,000 from each.
    [[ $here != both || -n $sources ]] ||
        sources=$(seq --format=127.0.0.%.0f --separator=, $((conns / 400000 + 1)))
    quiet
    # More than the server takes are not known to `check`.
    size=(--conns $((conns < 16000000 ? conns : 16000000)) --targets "$(paths)" --server --client)
    [[ $here == both ]] || size=("${size[@]:0:4}" "--$here")
    : >>"$record" || fail "the record cannot be written: RECORDS names another directory"
    if [[ -n $tune ]]; then
        tuned=yes
        kernel-tuning/apply "${size[@]}"
    fi
    read -r room needed free < <(limits "${size[@]}")
    echo "$conns connections take $needed MB of memory here; $free MB are free."
    if ((room < conns)) && [[ -n $fewer ]]; then
        conns=$room
    elif ((room < conns)); then
        kernel-tuning/check --now "${size[@]}" || true
        fail "$conns connections do not fit, $room do. Give --tune as root, or a smaller --conns"
    fi
    run cargo build --release --locked --package murre --package murre-load
}

# Pairs of addresses that connections can be between.
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

# How many connections fit, and for those asked the memory needed and free, in MB.
limits() {
    kernel-tuning/check --json --now "$@" | python3 -c '
import json, sys
found = json.load(sys.stdin)
memory = next(row for row in found["knobs"] if row["knob"] == "memory bytes")
print(found["room"], memory["needed"][0] // 10**6, memory["value"][0] // 10**6)'
}

# Starts the server; where only the server is here, stays until interrupted.
serve() { # OPTIONS of the server, beside what all runs give it
    [[ $here != client ]] || return 0
    server_listen=$listen start_server --max-conns $((conns + 100)) --descriptors "$descriptors" "$@"
    grep --max-count=1 'serving' "$work/server.log" | cut --characters=1-400
    [[ $here != server ]] || attend
}

# The server's side alone: weighs the server once, when all connections are there.
attend() {
    trap 'exit 0' INT TERM
    run "$built/murre-load" memory --pid "$server" --save-baseline "$work/baseline"
    echo "Start the clients with --client; interrupt this when they are done."
    until (($(held) >= conns)); do
        kill -0 "$server" || fail "the server ended: $(tail --lines=1 "$work/server.log")"
        run sleep 1
    done
    # What was closed before, and what the last connects took, is freed a little later.
    run sleep 3
    run "$built/murre-load" memory --pid "$server" --conns "$conns" --baseline "$work/baseline" \
        --out "$record"
    echo "All $conns were here, weighed in $record; interrupt this when the clients are done."
    wait "$server" || true
    fail "the server ended: $(tail --lines=1 "$work/server.log")"
}

# Runs a scenario into the record; the server's part is measured where the server is.
load() { # SCENARIO OPTIONS...
    local own=() size
    [[ $here == client ]] || own=(--server-pid "$server")
    [[ -z $sources ]] || own+=(--source "$sources")
    size=$(stat --dereference --format=%s "$record")
    failed=0
    run "$built/murre-load" "$@" --target "$targets" --conns "$conns" --duration "$duration" \
        --descriptors "$descriptors" "${own[@]}" --out "$record" || failed=$?
    # A run that failed is shown beside the published one all the same; one that was none is not.
    (($(stat --dereference --format=%s "$record") > size)) || exit "$((failed ? failed : 1))"
}

# Prints the run beside the published one. Fails the script if the run failed or missed a promise,
# or cannot show one although it is as large as the promise and both ends are here.
judge() { # RUN
    local kept=yes
    "$built/murre-load" verdict --run "$1" "$record" >"$work/verdict" 2>"$work/missed" || kept=no
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
        echo "Not judged: fewer connections than the $promised that the promises are about."
    elif grep --quiet 'not shown' "$work/verdict"; then
        echo "What this run could not show is not judged."
    fi
}
