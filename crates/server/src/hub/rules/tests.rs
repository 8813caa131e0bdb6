//! Tests of the rules: parsing, and the decision about a session and a channel.

use super::*;
use crate::hub::auth::{Grants, Right, User};

fn namespaces(texts: &[&str]) -> Namespaces {
    let namespaces: Vec<Namespace> = texts.iter().map(|text| text.parse().expect(text)).collect();
    Namespaces::new(&namespaces).expect("names differ")
}

/// Without configuration every session may subscribe and request, and authenticated ones may publish
/// and serve.
#[test]
fn defaults() {
    let rules = *namespaces(&[]).rules("chat:lobby");
    assert_eq!(rules, Rules::default());
    assert_eq!((rules.subscribe, rules.request), (Access::Anyone, Access::Anyone));
    assert_eq!((rules.publish, rules.serve), (Access::Authenticated, Access::Authenticated));
    assert_eq!((rules.history_size, rules.slow), (0, Slow::Disconnect));
}

/// Every rule is set by its name, and keeps its default otherwise.
#[test]
fn every_rule() {
    let all = "chat,publish=anyone,subscribe=authenticated,serve=nobody,request=authenticated,\
               presence-access=token,history=subscriber,user-limited=true,history-size=100,history-ttl=1.5,\
               slow=latest_only,presence=members,presence-push-max=7,presence-interval=0.5,\
               presence-meta-max=0,presence-grace=0,presence-key=client,phoenix-push=request";
    let expected = Rules {
        publish: Access::Anyone,
        subscribe: Access::Authenticated,
        serve: Access::Nobody,
        request: Access::Authenticated,
        presence_access: Some(Access::Token),
        history: Some(Access::Subscriber),
        user_limited: true,
        history_size: 100,
        history_ttl: Duration::from_millis(1500),
        slow: Slow::LatestOnly,
        presence: PresenceMode::Members,
        presence_push_max: 7,
        presence_interval: Duration::from_millis(500),
        presence_meta_max: 0,
        presence_grace: Duration::ZERO,
        presence_key: PresenceKey::Client,
        phoenix_push: PhoenixPush::Request,
    };
    assert_eq!(*namespaces(&[all]).rules("chat:"), expected);
    let some = namespaces(&["a,history-size=7,slow=drop_oldest"]);
    let expected = Rules { history_size: 7, slow: Slow::DropOldest, ..Rules::default() };
    assert_eq!(*some.rules("a:b"), expected);
    assert_eq!(expected.history_ttl, Duration::from_secs(300));
}

/// The part before the first colon decides, and only as a whole; `default` is for all others.
#[test]
fn the_prefix_decides() {
    let sizes = [
        "b,history-size=2",
        "default,history-size=9",
        "a,history-size=1",
        "ab,history-size=3",
        "\u{e9},history-size=4",
    ];
    let namespaces = namespaces(&sizes);
    for (name, size) in [
        ("a:x", 1),
        ("b:x", 2),
        ("ab:x", 3),
        ("a:b:x", 1),
        ("a:", 1),
        ("\u{e9}:x", 4),
        ("a", 9),
        ("", 9),
        (":", 9),
        (":a:", 9),
        ("aa:x", 9),
        ("A:x", 9),
        ("a :x", 9),
        ("default", 9),
        ("default:x", 9),
        ("z:x", 9),
    ] {
        assert_eq!(namespaces.rules(name).history_size, size, "{name:?}");
        let prefix = name.split_once(':').map_or("default", |(prefix, _)| prefix);
        let expected = if size == 9 { "default" } else { prefix };
        assert_eq!(namespaces.namespace(name), expected, "{name:?}");
    }
}

/// An error names the wrong part and the allowed values.
#[test]
fn wrong_ones_are_named() {
    for (text, named) in [
        ("", "no name"),
        (",publish=anyone", "no name"),
        ("a:b", "`a:b`"),
        ("publish=anyone", "`publish=anyone`"),
        ("a,publish", "`publish` is not RULE=VALUE"),
        ("a,", "`` is not RULE=VALUE"),
        ("a,publsh=anyone", "no rule `publsh`; the rules are publish,"),
        (
            "a,publish=all",
            "is one of anyone, authenticated, subscriber, token, backend, nobody, not `all`",
        ),
        (
            "a,subscribe=subscriber",
            "`subscribe` is one of anyone, authenticated, token, backend, nobody",
        ),
        (
            "a,request=token",
            "`request` is one of anyone, authenticated, backend, nobody, not `token`",
        ),
        (
            "a,serve=backend",
            "`serve` is one of anyone, authenticated, nobody: the backend does not",
        ),
        ("a,history=backend", "the backend does not decide about it"),
        ("a,user-limited=yes", "`user-limited` is true or false, not `yes`"),
        ("a,slow=never", "one of disconnect, drop_oldest, latest_only, not `never`"),
        ("a,history-size=-1", "`history-size` is a number from 0 to 1000000, not `-1`"),
        ("a,history-size=1000001", "not `1000001`"),
        ("a,history-size=1,history-ttl=0", "`history-ttl` is 0.1 to"),
        ("a,history-size=1,history-ttl=nan", "not `nan`"),
        ("a,presence=token", "one of off, count, members, not `token`"),
        ("a,presence-push-max=1001", "`presence-push-max` is a number from 0 to 1000"),
        ("a,presence-push-max=-1", "not `-1`"),
        ("a,presence-interval=0", "`presence-interval` is 0.1 to 3600 seconds"),
        ("a,presence-grace=1e400", "`presence-grace` is 0 to 3600 seconds"),
        ("a,presence-key=x", "one of user, client, not `x`"),
        ("a,presence-meta-max=16385", "`presence-meta-max` is a number from 0 to 16384"),
        ("a,history-ttl=5", "needs a `history-size`"),
        ("a,slow=disconnect,slow=disconnect", "`slow` is given twice"),
    ] {
        let error = text.parse::<Namespace>().expect_err(text);
        assert!(error.contains(named), "{text}: {error}");
    }
}

/// A namespace can be given once, also `default`.
#[test]
fn no_name_twice() {
    for name in ["b", "default"] {
        let texts = ["a", name, "c", name].map(|text| text.parse().expect(text));
        assert_eq!(Namespaces::new(&texts).expect_err("it is there twice"), name);
    }
}

/// The sessions that each of the three words includes.
#[test]
fn who_is_included() {
    for (who, with_token, without) in [
        (Access::Anyone, true, true),
        (Access::Authenticated, true, false),
        (Access::Nobody, false, false),
    ] {
        assert_eq!((who.includes(true), who.includes(false)), (with_token, without));
    }
}

/// With strict namespaces, a name is known if it has no prefix or one that is configured; without,
/// every name is.
#[test]
fn strict_namespaces() {
    for (texts, known, unknown) in [
        (&["a"][..], &["a:x", "a:", "x", "", "default:x"][..], &["b:x", ":x", "A:x", "a :x"][..]),
        (&["default", "b"], &["b:x", "default:", "b"], &["a:x", ":"]),
        (&[], &["x", "default:x"], &["a:x"]),
    ] {
        let (lax, strict) = (namespaces(texts), namespaces(texts).strict());
        for name in known {
            assert!(strict.known(name).is_some() && lax.known(name).is_some(), "{name:?}");
        }
        for name in unknown {
            assert!(strict.known(name).is_none() && lax.known(name).is_some(), "{name:?}");
        }
    }
}

/// The decision of every rule about every session, in a channel that is limited to users or not, as
/// a table of words says it.
#[test]
fn every_rule_about_every_session() {
    let user = |name: &str, grants: Option<&[Right]>| User {
        name: name.into(),
        expires: None,
        grants: grants.map(|rights| Grants::of_rights("room*", rights).into()),
    };
    for right in Right::ALL {
        let others: Vec<_> = Right::ALL.into_iter().filter(|&other| other != right).collect();
        let sessions = [
            ("nobody in particular", None),
            ("a user", Some(user("42", None))),
            ("a user who is granted it", Some(user("42", Some(&[right])))),
            ("a user who is granted the rest", Some(user("42", Some(&others)))),
            ("a user who is granted nothing", Some(user("42", Some(&[])))),
            ("another user", Some(user("4", None))),
            ("another user who is granted it", Some(user("4", Some(&[right])))),
        ];
        for (word, access) in ACCESS {
            let mut rules = Rules { user_limited: true, ..Rules::default() };
            match right {
                Right::Subscribe if word == "subscriber" => continue,
                Right::Subscribe => rules.subscribe = access,
                Right::Publish => rules.publish = access,
                Right::Presence => rules.presence_access = Some(access),
                Right::History => rules.history = Some(access),
            }
            for channel in ["room", "room#42", "room#7,42", "room#42,7", "room#7#42"] {
                let limited = channel.contains('#');
                for (session, user) in &sessions {
                    for subscribed in [false, true] {
                        let granted = session.ends_with("granted it");
                        let expected = match *session {
                            _ if word == "nobody" => false,
                            "nobody in particular" => {
                                !limited && (word == "anyone" || word == "subscriber" && subscribed)
                            }
                            _ if limited && session.starts_with("another") => false,
                            _ if session.contains("granted") => granted,
                            _ => match word {
                                "anyone" | "authenticated" => true,
                                "subscriber" => subscribed,
                                _ => limited && right == Right::Subscribe,
                            },
                        };
                        let allowed = rules.allow(right, channel, user.as_ref(), || subscribed);
                        let case = format!("{right:?} {word} {channel} {session} {subscribed}");
                        assert_eq!(allowed, expected, "{case}");
                        // Without the rule `user-limited`, `#` is an ordinary character.
                        let rules = Rules { user_limited: false, ..rules };
                        let plain = rules.allow(right, "room", user.as_ref(), || subscribed);
                        let allowed = rules.allow(right, channel, user.as_ref(), || subscribed);
                        assert_eq!(allowed, plain, "{case}");
                    }
                }
            }
        }
    }
}

/// Where the rules do not say who may read history and presence, whoever may subscribe may, and where a
/// token must grant that, whoever is subscribed.
#[test]
fn readers() {
    let ann = User { name: "ann".into(), expires: None, grants: None };
    for right in [Right::Presence, Right::History] {
        for (word, anonymous, user, subscribed) in [
            ("anyone", true, true, true),
            ("authenticated", false, true, true),
            ("token", false, false, true),
            ("nobody", false, false, false),
        ] {
            let namespaces = namespaces(&[&format!("a,subscribe={word}")]);
            let rules = namespaces.rules("a:x");
            assert_eq!(rules.allow(right, "a:x", None, || false), anonymous, "{word}");
            assert_eq!(rules.allow(right, "a:x", Some(&ann), || false), user, "{word}");
            assert_eq!(rules.allow(right, "a:x", Some(&ann), || true), subscribed, "{word}");
        }
    }
}

/// A token for the subscription to a channel overrules every rule but `nobody`, and the users in the
/// name of the channel.
#[test]
fn tokens_for_one_channel() {
    let ann = User { name: "ann".into(), expires: None, grants: None };
    for (word, _) in SUBSCRIBE_ACCESS {
        let namespaces = namespaces(&[&format!("a,subscribe={word},user-limited=true")]);
        let rules = namespaces.rules("a:x");
        for (channel, user, allowed) in [
            ("a:x", None, true),
            ("a:x", Some(&ann), true),
            ("a:x#ann", None, false),
            ("a:x#ann", Some(&ann), true),
            ("a:x#bob", Some(&ann), false),
            ("a:x#", Some(&ann), false),
        ] {
            let expected = allowed && word != "nobody";
            assert_eq!(rules.allow_with_token(channel, user), expected, "{word} {channel}");
        }
    }
}
