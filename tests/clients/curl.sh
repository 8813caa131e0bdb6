#!/usr/bin/env bash
# curl against a running server: the answers of R1 compared with a text made here, and the rest of
# what an ordinary HTTP client meets. Run by scripts/end-to-end.
set -o errexit -o nounset -o pipefail

base=http://127.0.0.1:$TEST_PORT

# The first N letters of the alphabet over and over.
alphabets=$(printf 'abcdefghijklmnopqrstuvwxyz%.0s' {1..1000})
text() { echo "${alphabets:0:$1}"; }

# same NAME EXPECTED ACTUAL
same() {
    [[ $2 == "$3" ]] && return
    printf 'curl, %s: expected\n%s\ngot\n%s\n' "$@" >&2
    exit 1
}

fetch() { curl --silent --show-error --max-time 10 "$@"; }
status() { fetch --output /dev/null --write-out '%{http_code}' "$@"; }

same "no length" "$(text 1024)" "$(fetch "$base/")"
for length in 1 25 26 27 100 1023 1024 4096 10240; do
    same "length $length" "$(text "$length")" "$(fetch "$base/?length=$length")"
done
same "length below the range" "$(text 1)" "$(fetch "$base/?length=0")"
same "length beyond the range" "$(text 10240)" "$(fetch "$base/?length=99999")"
same "length among others" "$(text 7)" "$(fetch "$base/?a=b&length=7&c")"
same "content type" "text/plain" "$(fetch --output /dev/null --write-out '%{content_type}' "$base/")"

same "healthz" 200 "$(status "$base/healthz")"
same "healthz of the admin port" 200 "$(status "http://127.0.0.1:$TEST_ADMIN_PORT/healthz")"
same "metrics" 200 "$(status "http://127.0.0.1:$TEST_ADMIN_PORT/metrics")"
same "scenario" 200 "$(status "$base/scenario")"
same "unknown path" 404 "$(status "$base/nowhere")"
same "POST to an unknown path" 404 "$(status --data body "$base/nowhere")"
same "HEAD" "content-length: 512" "$(fetch --head "$base/?length=512" |
    tr --delete '\r' | grep --ignore-case content-length | tr '[:upper:]' '[:lower:]')"
same "chunked" 501 "$(status --header 'Transfer-Encoding: chunked' --data body "$base/nowhere")"
same "the path of channels, without an upgrade" 426 "$(status "$base/ws")"

# One connection for both: the second says that it made none.
same "keep-alive" "1 0 " "$(fetch --output /dev/null --output /dev/null \
    --write-out '%{num_connects} ' "$base/?length=5" "$base/?length=6")"

# curl asks leave for a body this long; it would wait for a minute if it got no answer.
body=$(text 20000)
same "Expect: 100-continue" 404 "$(status --expect100-timeout 60 \
    --header 'Expect: 100-continue' --data "$body" "$base/nowhere")"

same "a body too long" 413 "$(head --bytes=1000000 /dev/zero |
    status --header 'Expect:' --data-binary @- "$base/nowhere")"
same "HTTP/1.0" "$(text 9)" "$(fetch --http1.0 "$base/?length=9")"

echo "curl: every answer is right"
