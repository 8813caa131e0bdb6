#!/usr/bin/env bash
# Errors of `murre serve`: exit code 1 with one clear line if it cannot start, exit code 2 with the parser's
# text for bad arguments. Run by scripts/end-to-end, while its server holds the ports.
set -o errexit -o nounset -o pipefail

murre=$1
work=$(mktemp --directory)
trap 'rm --recursive --force "$work"' EXIT

# refused STATUS WORDS ARGUMENTS...: it must exit with this status and print these words.
refused() {
    local status=$1 words=$2 ended=0 said
    shift 2
    said=$(timeout 10 "$murre" "$@" 2>&1 >/dev/null) || ended=$?
    if ((ended != status)); then
        echo "murre $*: ended with $ended, not $status: $said" >&2
        exit 1
    fi
    if ! grep --quiet --ignore-case --extended-regexp --regexp="$words" <<<"$said"; then
        echo "murre $*: does not say '$words': $said" >&2
        exit 1
    fi
    if ((status == 1 && $(wc --lines <<<"$said") != 1)); then
        echo "murre $*: not one line: $said" >&2
        exit 1
    fi
}

ports=(--listen "127.0.0.1:$TEST_PORT" --admin "127.0.0.1:$TEST_ADMIN_PORT")

refused 2 "usage"
refused 2 "unrecognized subcommand" swim
refused 2 "unexpected argument '--wings'" serve --wings
refused 2 "listen" serve --listen nowhere
refused 2 "listen" serve --listen 127.0.0.1
refused 2 "max-conns" serve --max-conns 0
refused 2 "max-conns" serve --max-conns many
refused 2 "shards" serve --shards 0
refused 2 "descriptors" serve --descriptors rubber
refused 2 "'--io <" serve --io carrier-pigeon
refused 2 "allow-origin.*scheme" serve --allow-origin example.com
refused 2 "trusted-proxy.*network" serve --trusted-proxy 10.0.0.0/33
refused 2 "--trusted-proxy" serve --proxy-protocol
refused 2 "max-files-bytes" serve --max-files-bytes lots

refused 1 "$work/none.*check the path" serve --files "$work/none"
head --bytes=5000 /dev/zero >"$work/zeros"
refused 1 "raise --max-files-bytes" serve --files "$work" --max-files-bytes 4096
refused 1 "$work/none.toml" serve --config "$work/none.toml"
refused 1 "$work" serve --config "$work"
echo 'listen = ' >"$work/broken.toml"
refused 1 "broken.toml" serve --config "$work/broken.toml"
printf 'plumage = "grey"\n' >"$work/unknown.toml"
refused 1 "plumage" serve --config "$work/unknown.toml"

# The ports are held by the server that scripts/end-to-end has started.
refused 1 "127.0.0.1:$TEST_PORT.*in use" serve "${ports[@]}"
refused 1 "127.0.0.1:$TEST_ADMIN_PORT.*in use" \
    serve --listen 127.0.0.1:0 --admin "127.0.0.1:$TEST_ADMIN_PORT"
refused 1 "192.0.2.1" serve --listen 192.0.2.1:0

(
    ulimit -n 256
    refused 1 "open files" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 \
        --descriptors normal --max-conns 1000
)

echo "bad input: every refusal is one clear line, with its exit code"
