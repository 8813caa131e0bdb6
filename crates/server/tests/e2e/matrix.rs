//! What a test runs over: how the server runs, and how its clients hear channels.

/// Runs a block once for each combination of some values. The values of a run that fails are in the
/// test's output: `over!(server in SERVERS, transport in TRANSPORTS => { ... })`.
macro_rules! over {
    ($value:ident in $values:expr => $body:expr) => {
        for $value in $values {
            eprintln!("{}: {:?}", stringify!($value), $value);
            $body
        }
    };
    ($value:ident in $values:expr, $($rest:tt)+) => {
        for $value in $values {
            eprintln!("{}: {:?}", stringify!($value), $value);
            over!($($rest)+)
        }
    };
}

/// One shard or several, on both backends: flags of the server.
pub(crate) const SERVERS: [[&str; 2]; 3] =
    [["--shards=1", "--io=auto"], ["--shards=3", "--io=auto"], ["--shards=2", "--io=epoll"]];

/// Several shards, so that most channels are owned by another than their subscribers'.
pub(crate) const SHARDS: [&str; 2] = ["--shards=3", "--io=auto"];

/// What happens to slow readers of a namespace: the rules, which name the test's namespaces too.
pub(crate) const SLOW: [&str; 3] = ["disconnect", "drop_oldest", "latest_only"];

/// How a client hears channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    /// Server-Sent Events of one channel.
    Stream,
    /// Server-Sent Events of two channels, one of which is silent.
    StreamOfTwo,
    Poll,
}

pub(crate) const TRANSPORTS: [Transport; 4] =
    [Transport::WebSocket, Transport::Stream, Transport::StreamOfTwo, Transport::Poll];

/// The transports that do not need history.
pub(crate) const LIVE: [Transport; 3] =
    [Transport::WebSocket, Transport::Stream, Transport::StreamOfTwo];
