//! The variants that a test runs over: flags of the server, and transports of its clients.

/// Runs a block once for each combination of some values. The output of a failed test has the
/// values of its run: `over!(server in SERVERS, transport in TRANSPORTS => { ... })`.
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

/// Flags of the server for one shard and several, on both backends.
pub(crate) const SERVERS: [[&str; 2]; 3] =
    [["--shards=1", "--io=auto"], ["--shards=3", "--io=auto"], ["--shards=2", "--io=epoll"]];

/// Flags for several shards, so that most channels belong to another shard than their subscribers.
pub(crate) const SHARDS: [&str; 2] = ["--shards=3", "--io=auto"];

/// The rules for slow readers of a namespace, which are also the names of the namespaces in tests.
pub(crate) const SLOW: [&str; 3] = ["disconnect", "drop_oldest", "latest_only"];

/// The transport by which a client receives channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    /// Server-Sent Events of one channel.
    Stream,
    /// Server-Sent Events of two channels, one of which is silent.
    StreamOfTwo,
    Poll,
}

/// All transports.
pub(crate) const TRANSPORTS: [Transport; 4] =
    [Transport::WebSocket, Transport::Stream, Transport::StreamOfTwo, Transport::Poll];

/// The transports that do not need history.
pub(crate) const LIVE: [Transport; 3] =
    [Transport::WebSocket, Transport::Stream, Transport::StreamOfTwo];
