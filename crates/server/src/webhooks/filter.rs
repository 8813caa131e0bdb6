//! The events that an endpoint is sent: by kind, and by the namespace of their channel.

use std::str::FromStr;

/// A kind of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `connected`, `authenticated`, `disconnected`.
    Connections,
    /// `joined`, `left`.
    Members,
    /// `occupied`, `vacated`.
    Channels,
}

impl Kind {
    const ALL: [(&str, Kind); 3] = [
        ("connections", Kind::Connections),
        ("members", Kind::Members),
        ("channels", Kind::Channels),
    ];
}

/// The filter of an endpoint. By default it takes all events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    kinds: Vec<Kind>,
    /// The namespaces of the channels; none is all. Connections have no namespace.
    namespaces: Option<Vec<Box<str>>>,
}

impl Default for Filter {
    fn default() -> Self {
        Filter { kinds: Kind::ALL.map(|(_, kind)| kind).into(), namespaces: None }
    }
}

impl Filter {
    /// Whether the endpoint is sent an event of this kind, whose channel is in this namespace.
    pub(crate) fn takes(&self, kind: Kind, namespace: Option<&str>) -> bool {
        let named = |name: &str| {
            self.namespaces.as_ref().is_none_or(|names| names.iter().any(|known| **known == *name))
        };
        self.kinds.contains(&kind) && namespace.is_none_or(named)
    }

    /// The namespaces that it names.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().flatten().map(|name| &**name)
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Filter::default();
        let mut given = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (key, list) = part.split_once('=').ok_or(FORM)?;
            if given.contains(&key) || list.is_empty() {
                return Err(format!("`{part}` is given twice or empty; {FORM}"));
            }
            given.push(key);
            let names = list.split('+');
            match key {
                "events" => {
                    let kind = |name: &str| {
                        let found = Kind::ALL.iter().find(|(known, _)| *known == name);
                        found.map(|(_, kind)| *kind).ok_or(format!("there are no `{name}`; {FORM}"))
                    };
                    filter.kinds = names.map(kind).collect::<Result<_, _>>()?;
                }
                "namespaces" => {
                    if names.clone().any(str::is_empty) {
                        return Err(format!("a namespace has no name; {FORM}"));
                    }
                    filter.namespaces = Some(names.map(Box::from).collect());
                }
                _ => return Err(format!("there is no `{key}`; {FORM}")),
            }
        }
        Ok(filter)
    }
}

const FORM: &str = "write it as URL,events=connections+members+channels,namespaces=chat+news";

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter takes the kinds and namespaces that it names, and all where it names none.
    #[test]
    fn filters() {
        let all = Filter::default();
        let channels: Filter = "events=channels".parse().expect("a filter");
        let chat: Filter =
            "namespaces=chat+default,events=members+connections".parse().expect("one");
        for (kind, namespace, taken) in [
            (Kind::Connections, None, [true, false, true]),
            (Kind::Members, Some("chat"), [true, false, true]),
            (Kind::Members, Some("chats"), [true, false, false]),
            (Kind::Members, Some("default"), [true, false, true]),
            (Kind::Channels, Some("chat"), [true, true, false]),
        ] {
            assert_eq!([&all, &channels, &chat].map(|filter| filter.takes(kind, namespace)), taken);
        }
        assert_eq!(chat.namespaces().collect::<Vec<_>>(), ["chat", "default"]);
    }

    /// A filter that cannot be read is an error, and never one that takes everything.
    #[test]
    fn bad_filters() {
        for wrong in [
            "",
            "events",
            "events=",
            "events=all",
            "event=members",
            "namespaces=a++b",
            "namespaces=",
            "events=members,events=members",
            "events=members;namespaces=a",
        ] {
            let error = wrong.parse::<Filter>().expect_err(wrong);
            assert!(error.contains("URL,events="), "{error}");
        }
    }
}
