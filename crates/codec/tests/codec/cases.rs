//! The cases of `docs/http.md`, which serves both readers and these tests.

/// Every row of the tables: section, case, input, responses, and state afterwards.
pub(crate) fn cases() -> Vec<[&'static str; 5]> {
    let text = include_str!("../../../../docs/http.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let cells = cells.map(|row| <[_; 5]>::try_from(row).unwrap_or_else(|row| panic!("{row:?}")));
    cells.filter(|[section, ..]| *section != "section").collect()
}

/// The input bytes of a row.
pub(crate) fn sent(code: &str) -> Vec<u8> {
    let code = code.strip_prefix('`').and_then(|code| code.strip_suffix('`'));
    bytes(code.expect("what is sent is in backquotes"))
}

/// The statuses of a row's responses.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    let statuses = answers.split_once(", ").map_or(answers, |(statuses, _)| statuses);
    let statuses = String::from_utf8(bytes(statuses)).expect("digits");
    statuses.split_whitespace().map(|status| status.parse().expect("a status")).collect()
}

/// The bytes that the notation stands for.
fn bytes(code: &str) -> Vec<u8> {
    let mut out = vec![];
    let mut rest = code.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '⏎' => out.extend(b"\r\n"),
            '\\' => out.push(match rest.next().expect("something is escaped") {
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                '0' => 0,
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).expect("two digits")
                }
                letter => letter.try_into().expect("ASCII"),
            }),
            '{' => {
                let inner: String = rest.by_ref().take_while(|&letter| letter != '}').collect();
                out.extend(abbreviated(&inner));
            }
            _ => out.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

/// The bytes that a notation in braces stands for.
fn abbreviated(inner: &str) -> Vec<u8> {
    bytes(match inner {
        "GET" => "GET / HTTP/1.1⏎Host: m⏎",
        "POST" => "POST / HTTP/1.1⏎Host: m⏎",
        "echo" => "GET /echo HTTP/1.1⏎Host: m⏎",
        "upgrade" => "Connection: Upgrade⏎Upgrade: websocket⏎",
        "version" => "Sec-WebSocket-Version: 13⏎",
        "key" => "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==⏎",
        "next" => "GET /healthz HTTP/1.1⏎Host: m⏎⏎",
        _ => {
            let (times, what) = inner.split_once(' ').expect("a number and what is repeated");
            return bytes(what).repeat(times.parse().expect("a number"));
        }
    })
}
