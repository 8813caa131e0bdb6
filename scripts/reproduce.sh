# shellcheck shell=bash
# What the scripts that reproduce published runs share: options, the host's limits, both ends.
#
# On one machine:      scripts/reproduce-... [--conns N] [--duration T] [--tune]
# On several:          ... --server ADDR:PORT      on the server's, until interrupted
#                      ... --client ADDR:PORT[,..] on each client's, with its part of --conns
# --tune sets what the kernel's settings lack (as root) and puts it back at the end, however that is.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here=both tune="" tuned="" listen=0.0.0.0:$TEST_PORT targets=127.0.0.1-31:$TEST_PORT

options() { # The script's arguments, after its defaults in `conns` and `duration`.
    while (($#)); do
        case $1 in
        --tune) tune=yes && shift && continue ;;
        --conns | --duration | --server | --client) (($# > 1)) || fail "$1 wants a value" ;;
        *) fail "unknown option '$1': see the first lines of $0 and of scripts/reproduce.sh" ;;
        esac
        case $1 in
        --conns) conns=$2 ;;
        --duration) duration=$2 ;;
        --server) here=server listen=$2 ;;
        --client) here=client targets=$2 ;;
        esac
        shift 2
    done
    [[ $conns =~ ^[1-9][0-9]*$ ]] || fail "--conns: '$conns' is not a number of connections"
}

undo() { # called by lib.sh at the end, when everything that was started has ended
    [[ -z $tuned ]] || kernel-tuning/revert >/dev/null
}

# Sees to it that this machine has room for both ends, or for the one that is here.
prepare() {
    local sides=(--server --client) room sockets
    [[ $here == both ]] || sides=("--$here")
    sockets=$(awk '/^TCP:/ { print $3 }' /proc/net/sockstat)
    ((sockets < 1000)) || fail "$sockets TCP sockets are open here: end what holds them first"
    if [[ -n $tune ]]; then
        tuned=yes
        kernel-tuning/apply --conns "$conns" "${sides[@]}"
    fi
    if ! kernel-tuning/check --conns "$conns" "${sides[@]}" >"$work/check"; then
        cat "$work/check"
        room=$(tail --lines=1 "$work/check")
        fail "$conns connections do not fit. $room Give --tune as root, or a smaller --conns"
    fi
    cargo build --release --locked --package murre --package murre-load
}

# Starts the server; where only the server is here, stays until interrupted.
serve() {
    [[ $here != client ]] || return 0
    server_listen=$listen start_server --max-conns $((conns + 100))
    grep --max-count=1 'serving' "$work/server.log" | cut --characters=1-400
    if [[ $here == server ]]; then
        echo "Start the clients with --client; interrupt this when they are done."
        wait "$server"
        exit
    fi
}

# Runs a scenario into the records; the server's part is measured where it is here.
load() { # NAME SCENARIO OPTIONS...
    record=bench-results/records/$(date --utc +%F)-$1.jsonl
    shift
    local own=()
    [[ $here == client ]] || own=(--server-pid "$server")
    # To one address from one address connects become slow when half of the 28,000 ports are taken
    # (the kernel looks at every second one first): 31 addresses take 400,000 from each.
    [[ $here != both ]] || own+=(--source "$(seq --format=127.0.0.%.0f --separator=, \
        $((conns / 400000 + 1)))")
    run "$built/murre-load" "$@" --target "$targets" --conns "$conns" --duration "$duration" \
        "${own[@]}" --out "$record"
}

# How many connections the server has now.
held() {
    curl --silent "http://127.0.0.1:$TEST_ADMIN_PORT/stats" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["connections"])'
}
