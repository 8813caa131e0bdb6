#!/usr/bin/env bash
# curl against a running server: compares the answers of R1 with a text made here, and checks the other
# requests of an ordinary HTTP client. Run by scripts/end-to-end.
set -o errexit -o nounset -o pipefail

base=http://127.0.0.1:$TEST_PORT

# N: prints that many letters of the repeated alphabet.
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
# stream OPTIONS: the first line of an event stream. `head` ends the pipe, and curl with it.
stream() { fetch --no-buffer "$@" "$base/sse?topic=a" 2>/dev/null | head --lines=1 || true; }
same "an event stream" "event: subscribed" "$(stream)"
same "an event stream in HTTP/1.0" "event: subscribed" "$(stream --http1.0)"
same "HEAD of an event stream" 200 "$(status --head "$base/sse?topic=a")"
same "HEAD of a poll that would be refused" 400 "$(status --head "$base/poll?topic=a")"
same "chunked" 411 "$(status --header 'Transfer-Encoding: chunked' --data body "$base/nowhere")"
same "the path of channels, without an upgrade" 426 "$(status "$base/ws")"

# One connection for both: the second says that it made none.
same "keep-alive" "1 0 " "$(fetch --output /dev/null --output /dev/null \
    --write-out '%{num_connects} ' "$base/?length=5" "$base/?length=6")"

# For a body of this length curl sends `Expect: 100-continue`, and would wait for a minute without an answer.
body=$(text 20000)
same "Expect: 100-continue" 404 "$(status --expect100-timeout 60 \
    --header 'Expect: 100-continue' --data "$body" "$base/nowhere")"

same "a body too long" 413 "$(head --bytes=2000000 /dev/zero |
    status --header 'Expect:' --data-binary @- "$base/nowhere")"
same "HTTP/1.0" "$(text 9)" "$(fetch --http1.0 "$base/?length=9")"

# The files of scripts/end-to-end: ranges, and conditional requests for a file that curl has already. No path
# leads out of the folder.
file=$TEST_FILES/numbers.txt
same "a file" "$(cat "$file")" "$(fetch "$base/numbers.txt")"
same "its type" "text/plain; charset=utf-8" \
    "$(fetch --output /dev/null --write-out '%{content_type}' "$base/numbers.txt")"
same "a range" "$(tail --bytes=+101 "$file" | head --bytes=900)" \
    "$(fetch --range 100-999 "$base/numbers.txt")"
same "the end" "$(tail --bytes=77 "$file")" "$(fetch --range -77 "$base/numbers.txt")"
same "a range is partial" 206 "$(status --range 5- "$base/numbers.txt")"
same "several ranges" 200 "$(status --range 0-1,5-6 "$base/numbers.txt")"
same "a range beyond" 416 "$(status --range 99999999- "$base/numbers.txt")"
tag=$TEST_FILES/../tag
same "with a tag" 200 "$(status --etag-save "$tag" "$base/numbers.txt")"
same "unchanged" 304 "$(status --etag-compare "$tag" "$base/numbers.txt")"
same "changed" 200 "$(status --header 'If-None-Match: "other"' "$base/numbers.txt")"
head --bytes=1000 "$file" >"$tag-begun"
fetch --continue-at - --output "$tag-begun" "$base/numbers.txt"
same "a download that goes on" "$(cat "$file")" "$(cat "$tag-begun")"
same "a folder without its slash" "$base/pages/" \
    "$(fetch --output /dev/null --write-out '%{redirect_url}' "$base/pages")"
same "a folder" "<p>below</p>" "$(fetch --location "$base/pages")"
for path in /../tag /%2e%2e/tag /pages/../../tag /pages%2findex.html /numbers.txt%00; do
    same "no way out by $path" 404 "$(status --path-as-is "$base$path")"
done

echo "curl: every answer is right"
