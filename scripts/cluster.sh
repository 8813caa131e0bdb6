# shellcheck shell=bash
# A cluster on this machine: a NATS server, a PostgreSQL server and nodes, for the scripts, which source it after
# lib.sh.

# The data port of node I, from 0; its admin port is the next one.
port() { echo $((TEST_PORT + 2 * $1)); }
names=(red green blue)
nodes=()
nats_port=$((TEST_PORT + 10))
# The target of murre-load.
all_nodes=127.0.0.1:$(port 0),127.0.0.1:$(port 1),127.0.0.1:$(port 2)
# shellcheck disable=SC2046
ports_apart $(seq "$TEST_PORT" "$((TEST_PORT + 5))") "$nats_port"

# The files of PostgreSQL, which runs as another user than root.
database=$(mktemp --directory --tmpdir murre-cluster-XXXXXX)
folders+=("$database")

# WHAT COMMAND...: repeats the command until it succeeds, for at most a minute.
wait_until() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "never: $what"
        sleep 0.1
    done
}

# FILE TEXT: waits until the file has the text.
wait_for() { wait_until "'$2' in $1: $(tail --lines=1 "$1")" grep --quiet --fixed-strings -- "$2" "$1"; }

# Starts NATS with the files that it had before. Its process id is in `nats`.
start_nats() {
    printf 'listen: 127.0.0.1:%s\njetstream { store_dir: "%s" }\n' "$nats_port" "$work/nats" >"$work/nats.conf"
    : >"$work/nats.log"
    start "$tools/nats/nats-server" --config "$work/nats.conf" >>"$work/nats.log" 2>&1
    nats=$!
    wait_for "$work/nats.log" "Server is ready"
}

# The commands of PostgreSQL refuse to run as root.
postgres() {
    local command=$1 unprivileged=()
    shift
    ((EUID)) || unprivileged=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    start env --chdir="$database" "${unprivileged[@]}" "$postgres_bin/$command" "$@"
}

# Starts PostgreSQL with a new database, whose URL is in `sessions`.
start_postgres() {
    postgres_bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' 2>/dev/null | sort --version-sort |
        tail --lines=1)
    postgres_bin=${postgres_bin:-$(dirname "$(command -v initdb)")}
    ((EUID)) || chown 65534:65534 "$database"
    postgres initdb --no-sync --auth=trust --username=murre --encoding=UTF8 --locale=C \
        -D "$database/data" >"$work/initdb.log"
    wait "$!" || fail "initdb: $(tail --lines=1 "$work/initdb.log")"
    postgres postgres -D "$database/data" -k "$database" -c listen_addresses= >"$work/postgres.log" 2>&1
    # shellcheck disable=SC2034  # for scripts that measure it
    postgres=$!
    wait_for "$work/postgres.log" "ready to accept connections"
    sessions=postgres://murre@${database//\//%2F}/postgres
}

# NUMBER OPTIONS...: starts a node, and waits until it is ready. Its data port is on `address`, its process id in
# `nodes`.
start_node() {
    local number=$1 data log
    shift
    data=$(port "$number") log=$work/${names[$number]}.log
    : >"$log"
    start "${binary[@]}" serve --listen "${address:-127.0.0.1}:$data" --admin "127.0.0.1:$((data + 1))" \
        --cluster-nats "127.0.0.1:$nats_port" --cluster-node "${names[$number]}" "$@" >>"$log" 2>&1
    nodes[number]=$!
    wait_for "$log" serving
    wait_until "node ${names[$number]} is ready" curl --fail "http://127.0.0.1:$((data + 1))/readyz"
}

# NUMBER: drains a node, and waits until it has ended.
drain_node() {
    local pid=${nodes[$1]}
    kill -TERM "$pid"
    ended_within 60 "$pid" || fail "node ${names[$1]} still runs 60 s after SIGTERM"
    wait "$pid" || fail "node ${names[$1]} ended with $?: $(tail --lines=1 "$work/${names[$1]}.log")"
}

# PID: kills a process that the script has started; bash says nothing about it.
kill_hard() {
    disown "$1"
    kill -KILL "$1"
}
