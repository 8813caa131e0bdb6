#!/usr/bin/env bash
# ApacheBench on keep-alive connections, as in the published run of 600,000: no request fails, and every
# answer is 200. Run by scripts/end-to-end.
set -o errexit -o nounset -o pipefail

report=$(ab -q -k -n 100000 -c 50 "http://127.0.0.1:$TEST_PORT/?length=1024")

expect() {
    grep --quiet --extended-regexp "$1" <<<"$report" && return
    printf 'ab does not say "%s":\n%s\n' "$1" "$report" >&2
    exit 1
}
expect '^Complete requests: +100000$'
expect '^Keep-Alive requests: +100000$'
expect '^Failed requests: +0$'
expect '^Document Length: +1024 bytes$'
if grep 'Non-2xx' <<<"$report"; then
    exit 1
fi

echo "ab: 100,000 requests, $(grep --only-matching --extended-regexp '[0-9.]+ \[#/sec\]' <<<"$report")"
