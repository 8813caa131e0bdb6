//! What the claims of a token should come to, worked out on serde_json's tree. Also the oracle of a
//! fuzz target.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::BadToken;
use super::claims::{Claims, Required, Token};
use super::grants::{Right, SharedGrants};

/// Any bytes as claims.
pub(crate) fn check(bytes: &[u8]) {
    let required = Required::default();
    let mut shared = SharedGrants::default();
    let parsed = Claims::parse(bytes, &required, &mut shared);
    // The tree has no numbers beyond a double, and the last of several members of a name.
    let Ok(tree) = serde_json::from_slice::<Value>(bytes) else { return };
    let written = serde_json::to_vec(&tree).expect("a tree can be written");
    let again = Claims::parse(&written, &required, &mut shared);
    if parsed.is_ok() {
        assert_eq!(parsed, again);
    }
    match again.map(Claims::into_token) {
        Ok(Token::Connection(user)) => {
            assert_eq!(tree["sub"], *user.name);
            let expected = model(&tree).expect("the claims are right");
            assert_eq!(user.grants.is_some(), expected.is_some());
            let (Some(grants), Some(expected)) = (user.grants, expected) else { return };
            let names = expected.keys().flat_map(|pattern| {
                let prefix = pattern.strip_suffix('*').unwrap_or(pattern);
                [pattern.clone(), prefix.to_owned(), format!("{prefix}:x"), format!("x{prefix}")]
            });
            for name in names {
                for right in Right::ALL {
                    let granted = expected.iter().any(|(pattern, rights)| {
                        let fits = match pattern.strip_suffix('*') {
                            Some(prefix) => name.starts_with(prefix),
                            None => name == *pattern,
                        };
                        fits && rights.contains(right.name())
                    });
                    assert_eq!(grants.allow(right, &name), granted, "{right:?} {name:?}");
                }
            }
        }
        Ok(Token::Subscription(token)) => {
            assert_eq!(tree["channel"], *token.channel);
            assert_eq!(tree.get("sub").and_then(Value::as_str), token.user.as_deref());
        }
        Err(
            BadToken::Channels
            | BadToken::Subs
            | BadToken::Pattern
            | BadToken::UnknownRight
            | BadToken::TooManyPatterns,
        ) => assert_eq!(model(&tree), None.ok_or(())),
        Err(_) => {}
    }
}

type Model = BTreeMap<String, BTreeSet<String>>;

/// The rights by pattern; `None` without the claims.
fn model(tree: &Value) -> Result<Option<Model>, ()> {
    if tree.get("channels").is_none() && tree.get("subs").is_none() {
        return Ok(None);
    }
    let read = || ["subscribe", "presence", "history"].map(str::to_owned).into();
    let mut model = Model::new();
    match tree.get("channels") {
        None => {}
        Some(Value::Array(patterns)) => {
            for pattern in patterns {
                let pattern = pattern.as_str().ok_or(())?.to_owned();
                if model.insert(pattern, read()).is_some() {
                    return Err(());
                }
            }
        }
        Some(Value::Object(patterns)) => {
            for (pattern, rights) in patterns {
                let rights = rights.as_array().ok_or(())?.iter().map(|right| {
                    let right = right.as_str().ok_or(())?;
                    Right::ALL.iter().any(|known| known.name() == right).then_some(right).ok_or(())
                });
                let rights: Result<Vec<&str>, ()> = rights.collect();
                model.insert(pattern.clone(), rights?.into_iter().map(str::to_owned).collect());
            }
        }
        Some(_) => return Err(()),
    }
    if let Some(subs) = tree.get("subs") {
        for (channel, options) in subs.as_object().ok_or(())? {
            if !options.is_object() || channel.ends_with('*') {
                return Err(());
            }
            model.entry(channel.clone()).or_default().extend::<BTreeSet<String>>(read());
        }
    }
    let is_good = |pattern: &String| {
        (1..=255).contains(&pattern.len()) && !pattern.contains(char::is_control)
    };
    let bytes: usize = model.keys().map(|pattern| pattern.len() + 2).sum();
    let good = model.keys().all(is_good) && model.len() <= 100 && bytes <= 4096;
    good.then_some(Some(model)).ok_or(())
}
