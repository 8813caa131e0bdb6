//! Names in NATS: of subjects and of streams.
//!
//! ```text
//!   murre.CLUSTER.p.NAMESPACE.CHANNEL   publications of a channel without history
//!   murre.CLUSTER.h.NAMESPACE.CHANNEL   those of a channel with history, which a stream takes
//!   murre.CLUSTER.r.NAMESPACE.CHANNEL   the same, as the stream publishes them again in its order
//!   murre.CLUSTER.s.SERVICE             requests to a service
//!   murre.CLUSTER.a.NODE.NUMBER         answers to the requests of a node
//! ```
//!
//! The name of a channel or a service may have any bytes, and a token of a subject few, so it is in base64url.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use murre_router::services::RemoteRequest;

use super::settings::{Kept, Token};
use crate::hub::rules::Namespaces;

/// The names of one cluster.
pub(super) struct Names {
    cluster: Token,
    namespaces: Namespaces,
    /// The namespaces with history.
    kept: Vec<Kept>,
}

/// The place of a namespace among those with history.
pub(super) type KeptIndex = usize;

/// What a subject is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Publications that no stream takes.
    Plain,
    /// Publications for a stream.
    ToStream,
    /// Publications from a stream.
    FromStream,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Kind::Plain => 'p',
            Kind::ToStream => 'h',
            Kind::FromStream => 'r',
        }
    }
}

impl Names {
    pub(super) fn new(cluster: Token, namespaces: Namespaces, kept: Vec<Kept>) -> Self {
        Names { cluster, namespaces, kept }
    }

    /// The namespaces with history.
    pub(super) fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// The namespace of a channel, if it has history.
    pub(super) fn kept_of(&self, channel: &str) -> Option<KeptIndex> {
        let namespace = self.namespaces.namespace(channel);
        self.kept.iter().position(|kept| &*kept.namespace == namespace)
    }

    /// The subject of a channel.
    pub(super) fn subject(&self, kind: Kind, channel: &str) -> String {
        let mut subject = self.prefix(kind, self.namespaces.namespace(channel));
        URL_SAFE_NO_PAD.encode_string(channel, &mut subject);
        subject
    }

    /// The channel of a subject that [`subject`](Self::subject) has made.
    pub(super) fn channel(subject: &str) -> Option<String> {
        let (_, token) = subject.rsplit_once('.')?;
        String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
    }

    /// The subjects of all channels of a namespace with history.
    pub(super) fn all(&self, kind: Kind, kept: KeptIndex) -> String {
        self.prefix(kind, &self.kept[kept].namespace) + "*"
    }

    /// Where the stream of a namespace publishes again what it has taken.
    pub(super) fn republished(&self, kept: KeptIndex) -> String {
        self.prefix(Kind::FromStream, &self.kept[kept].namespace) + "{{wildcard(1)}}"
    }

    /// A name for a new stream. Its number is part of the positions of all channels in it, so a stream that is
    /// made anew has other positions.
    pub(super) fn stream(&self, kept: KeptIndex, number: u64) -> String {
        let namespace = token(&self.kept[kept].namespace);
        format!("murre_{}_{namespace}_{number:016x}", self.cluster)
    }

    /// The subject of a stream that takes no more publications.
    pub(super) fn aside(&self, stream: &str) -> String {
        format!("murre.{}.aside.{stream}", self.cluster)
    }

    /// The subject of requests to a service.
    pub(super) fn service(&self, service: &str) -> String {
        let mut subject = format!("murre.{}.s.", self.cluster);
        URL_SAFE_NO_PAD.encode_string(service, &mut subject);
        subject
    }

    /// The subject of all answers for a node.
    pub(super) fn answers(&self, node: u64) -> String {
        format!("murre.{}.a.{node:016x}.*", self.cluster)
    }

    /// The subject of the answer to a request.
    pub(super) fn answer(&self, RemoteRequest { node, number }: RemoteRequest) -> String {
        format!("murre.{}.a.{node:016x}.{number}", self.cluster)
    }

    /// The request of a subject that [`answer`](Self::answer) has made.
    pub(super) fn request(&self, subject: &str) -> Option<RemoteRequest> {
        let mut tokens = subject.rsplitn(3, '.');
        let number = tokens.next()?.parse().ok()?;
        let node = u64::from_str_radix(tokens.next()?, 16).ok()?;
        let request = RemoteRequest { node, number };
        (self.answer(request) == subject).then_some(request)
    }

    fn prefix(&self, kind: Kind, namespace: &str) -> String {
        format!("murre.{}.{}.{}.", self.cluster, kind.letter(), token(namespace))
    }
}

/// The name of a namespace as a token.
fn token(namespace: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match namespace.bytes().all(is_plain) {
        true => namespace.to_owned(),
        false => format!("={}", URL_SAFE_NO_PAD.encode(namespace)),
    }
}

/// The epoch of a channel in a stream of this name, the same on all nodes (FNV-1a).
pub(super) fn epoch(stream: &str, channel: &str) -> u32 {
    let bytes = stream.bytes().chain([0]).chain(channel.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let namespaces = ["chat,history-size=1", "a.b >,history-size=2", "default"]
            .map(|text| text.parse().expect("rules"));
        let namespaces = Namespaces::new(&namespaces).expect("once each");
        let kept = namespaces.with_history().map(|(namespace, size, ttl)| Kept {
            namespace: namespace.into(),
            size,
            ttl,
        });
        let kept = kept.collect();
        Names::new("c1".parse().expect("a token"), namespaces, kept)
    }

    /// Every name of a channel makes a subject of five tokens without wildcards, and is found in it again.
    #[test]
    fn subjects_have_five_tokens() {
        let names = names();
        let long = format!("chat:{}", "ß".repeat(125));
        for channel in ["chat:a", "a.b >:x.*.>", "x y\r\n", "", "*", &long] {
            let subject = names.subject(Kind::FromStream, channel);
            assert_eq!(subject.split('.').count(), 5, "{subject}");
            assert!(subject.starts_with("murre.c1.r."), "{subject}");
            assert!(subject.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte)));
            assert_eq!(Names::channel(&subject).as_deref(), Some(channel));
        }
        assert_eq!(names.subject(Kind::Plain, "chat:a"), "murre.c1.p.chat.Y2hhdDph");
        for wrong in ["", "a", "a.%", "a.gA"] {
            assert_eq!(Names::channel(wrong), None);
        }
    }

    /// A channel is in the stream of its namespace.
    #[test]
    fn channels_with_history() {
        let names = names();
        let kept = |channel| names.kept_of(channel).map(|at| names.all(Kind::ToStream, at));
        assert_eq!(kept("chat:a").as_deref(), Some("murre.c1.h.chat.*"));
        assert_eq!(kept("a.b >:x").as_deref(), Some("murre.c1.h.=YS5iID4.*"));
        assert_eq!(kept("other:x"), None);
    }

    /// The subject of an answer names its request, and no other subject does.
    #[test]
    fn answers_name_their_requests() {
        let names = names();
        assert_eq!(names.service("a.b"), "murre.c1.s.YS5i");
        for request in [(0, 0), (1 << 63, 7), (u64::MAX, u64::MAX)] {
            let request = RemoteRequest { node: request.0, number: request.1 };
            let subject = names.answer(request);
            assert_eq!(names.request(&subject), Some(request));
            assert!(
                names.answers(request.node).starts_with(subject.rsplit_once('.').expect("dots").0)
            );
            for wrong in
                [format!("{subject}0x"), format!("x{subject}"), subject.replace(".a.", ".b.")]
            {
                assert_eq!(names.request(&wrong), None, "{wrong}");
            }
        }
        for wrong in ["", ".", "murre.c1.a.7.7", "murre.c1.a.0000000000000007.+7", "_INBOX.1"] {
            assert_eq!(names.request(wrong), None, "{wrong}");
        }
    }

    /// Positions of one stream differ from channel to channel, and from those of another stream.
    #[test]
    fn epochs_differ() {
        let epochs = [("s1", "a"), ("s1", "b"), ("s2", "a"), ("s", "1a")].map(|(s, c)| epoch(s, c));
        let distinct: std::collections::HashSet<_> = epochs.into_iter().collect();
        assert_eq!(distinct.len(), epochs.len());
    }
}
