//! Tests of the limits on tokens: time per turn, bad tokens per address, and memory.

use super::*;

const START: Duration = Duration::ZERO;

/// Distinct good tokens.
fn good(algorithm: Algorithm, count: usize) -> Vec<String> {
    (0..count).map(|n| signed(algorithm, &json!({"sub": format!("user-{n}")}))).collect()
}

fn is_good(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Good(_))
}

/// A turn checks tokens for about a quarter of a millisecond and puts the others off to the
/// following turns, which check them.
#[test]
fn a_turn_has_a_budget() {
    for (algorithm, least, most) in [
        (Algorithm::ES256, 1, 2),
        (Algorithm::RS256, 1, 2),
        (Algorithm::EdDSA, 6, 8),
        (Algorithm::HS256, 50, 125),
    ] {
        let mut waiting = good(algorithm, 2 * most + 1);
        let total = waiting.len();
        let mut verifier = Verifier::new(keys_for(algorithm), Required::default(), 100);
        let mut put_off = 0;
        for turn in 0.. {
            verifier.begin_turn(START);
            let before = waiting.len();
            waiting.retain(|token| {
                let verdict = verifier.check(token, Some(1), START, NOW);
                put_off += u64::from(verdict == Verdict::NotNow);
                assert!(is_good(&verdict) || verdict == Verdict::NotNow);
                !is_good(&verdict)
            });
            let checked = before - waiting.len();
            assert!(checked <= most, "{algorithm:?} {turn} {checked}");
            if waiting.is_empty() {
                break;
            }
            assert!(checked >= least, "{algorithm:?} {turn} {checked}");
        }
        let counts = verifier.counts();
        assert_eq!((counts.checks, counts.put_off), (total as u64, put_off));
        assert_eq!((counts.cached, counts.refused_without_check), (0, 0));
    }
}

/// Every turn makes one check even if the check costs more than the whole budget. A turn without
/// budget still accepts cached tokens.
#[test]
fn every_turn_makes_progress() {
    let keys = Keys(vec![public_key(RSA_4096_PUBLIC.as_bytes()).expect("it is a key")]);
    let mut verifier = Verifier::new(keys, Required::default(), 100);
    let bad = signed(Algorithm::RS256, &json!({"sub": "alice"}));
    for turn in 0..5 {
        verifier.begin_turn(START);
        let verdicts = [(); 3].map(|()| verifier.check(&bad, None, START, NOW));
        assert_eq!(verdicts[1..], [Verdict::NotNow, Verdict::NotNow], "{verdicts:?}");
        assert_eq!(verifier.counts().checks, turn + 1);
    }
    let tokens = good(Algorithm::ES256, 10);
    let mut verifier = Verifier::new(keys_for(Algorithm::ES256), Required::default(), 100);
    assert!(is_good(&verifier.check(&tokens[0], None, START, NOW)));
    let last =
        tokens.iter().find(|token| verifier.check(token, None, START, NOW) == Verdict::NotNow);
    assert!(last.is_some());
    assert!(is_good(&verifier.check(&tokens[0], None, START, NOW)));
}

/// The length of a token is subtracted from the budget even if the token is malformed.
#[test]
fn length_has_a_price() {
    let mut verifier = Verifier::new(keys_for(Algorithm::HS256), Required::default(), 100);
    for token in ["x".repeat(1 << 16), format!("{}.{}.{}", "x", "y".repeat(1 << 16), "z")] {
        verifier.begin_turn(START);
        let checks =
            (0..1000).find(|_| verifier.check(&token, None, START, NOW) == Verdict::NotNow);
        assert!((1..=4).contains(&checks.expect("the budget ends")));
    }
    assert_eq!(verifier.counts().checks, 0);
}

/// An address may send bad tokens at the rate, and twice as many at once. The limit does not apply
/// to other addresses, to cached tokens, or to peers without a counted address.
#[test]
fn an_address_has_a_bucket() {
    let (abuser, bystander) = (Some(1), Some(2));
    let algorithm = Algorithm::HS256;
    let mut verifier = Verifier::new(keys_for(algorithm), Required::default(), 10);
    let bad = forged(algorithm, &json!({"sub": "mallory"}));
    let [known, unknown] = [0, 1].map(|n| good(algorithm, 2)[n].clone());
    assert!(is_good(&verifier.check(&known, abuser, START, NOW)));
    for second in 0..10 {
        let now = Duration::from_secs(second);
        verifier.begin_turn(now);
        let refused = Verdict::Bad(BadToken::Signature);
        let checked = (0..1000).find(|_| verifier.check(&bad, abuser, now, NOW) != refused);
        assert_eq!(checked, Some(if second == 0 { 20 } else { 10 }), "{second}");
        assert_eq!(verifier.check(&bad, abuser, now, NOW), Verdict::TooMany);
        assert_eq!(verifier.check(&unknown, abuser, now, NOW), Verdict::TooMany);
        assert!(is_good(&verifier.check(&known, abuser, now, NOW)));
        assert_eq!(verifier.check(&bad, None, now, NOW), refused);
    }
    assert!(is_good(&verifier.check(&unknown, bystander, Duration::from_secs(9), NOW)));
    let counts = verifier.counts();
    assert_eq!(counts.checks, 1 + 20 + 9 * 10 + 10 + 1);
    assert_eq!((counts.refused_without_check, counts.put_off), (10 * 3, 0));
    assert_eq!(counts.cached, 10);
}

/// Good tokens do not count against an address: ten thousand users of one address reconnect at
/// once.
#[test]
fn good_tokens_are_not_counted() {
    let mut verifier = Verifier::new(keys_for(Algorithm::HS256), Required::default(), 1);
    for token in good(Algorithm::HS256, 10_000) {
        verifier.begin_turn(START);
        assert!(is_good(&verifier.check(&token, Some(1), START, NOW)));
    }
}

/// Every kind of bad token counts, also a token that is refused before its signature is checked.
#[test]
fn all_bad_tokens_are_counted() {
    let algorithm = Algorithm::HS256;
    for bad in [
        "x".to_owned(),
        "x".repeat(1 << 17),
        forged(algorithm, &json!({"sub": "alice"})),
        signed(Algorithm::ES256, &json!({"sub": "alice"})),
        signed(algorithm, &json!({"sub": 42})),
        signed(algorithm, &json!({"sub": "alice", "exp": 1})),
    ] {
        let mut verifier = Verifier::new(keys_for(algorithm), Required::default(), 10);
        for _ in 0..20 {
            verifier.begin_turn(START);
            let verdict = verifier.check(&bad, Some(1), START, NOW);
            assert!(matches!(verdict, Verdict::Bad(_)), "{verdict:?}");
        }
        assert_eq!(verifier.check(&bad, Some(1), START, NOW), Verdict::TooMany, "{bad:.40}");
    }
}

/// A cached token needs no signature check until it expires. It is refused while the clock is
/// before its `nbf`.
#[test]
fn a_known_token_costs_no_check() {
    let algorithm = Algorithm::ES256;
    let mut verifier = Verifier::new(keys_for(algorithm), Required::default(), 100);
    let token = signed(algorithm, &json!({"sub": "alice", "nbf": NOW, "exp": NOW + 60}));
    let alice = Verdict::Good(alice(Some(NOW + 60)));
    for unix in [NOW, NOW + 1, NOW + 69, NOW - 10] {
        assert_eq!(verifier.check(&token, None, START, unix), alice);
    }
    assert_eq!((verifier.counts().checks, verifier.counts().cached), (1, 3));
    for (unix, bad) in [(NOW + 70, BadToken::Expired), (NOW - 11, BadToken::TooEarly)] {
        assert_eq!(verifier.check(&token, None, START, NOW), alice);
        let kept = verifier.kept();
        assert_eq!(verifier.check(&token, None, START, unix), Verdict::Bad(bad));
        assert_eq!(verifier.kept(), kept - 1);
        verifier.begin_turn(START);
    }
}

/// Bad tokens are not cached, and the cache key includes the signature: a cached token with a
/// changed or missing signature is refused.
#[test]
fn bad_tokens_are_not_kept() {
    let algorithm = Algorithm::HS256;
    let mut verifier = Verifier::new(keys_for(algorithm), Required::default(), 100);
    let token = signed(algorithm, &json!({"sub": "alice"}));
    assert!(is_good(&verifier.check(&token, None, START, NOW)));
    for bad in [
        forged(algorithm, &json!({"sub": "alice"})),
        token[..token.len() - 1].to_owned(),
        signed(algorithm, &json!({"sub": "alice", "exp": 1})),
        signed(algorithm, &json!({"sub": 42})),
        format!("{token} "),
    ] {
        for _ in 0..2 {
            let verdict = verifier.check(&bad, None, START, NOW);
            assert!(matches!(verdict, Verdict::Bad(_)), "{verdict:?}");
        }
    }
    assert_eq!((verifier.kept(), verifier.counts().cached), (1, 0));
}

/// The cache stays within its bound for many good tokens with the longest names, and a token that
/// is used all the time stays in it.
#[test]
fn the_cache_has_a_bound() {
    for (name_bytes, most) in [(10, 2 * 2048), (255, 2 * (256 << 10) / 255)] {
        let mut verifier = Verifier::new(keys_for(Algorithm::HS256), Required::default(), 100);
        let used = signed(Algorithm::HS256, &json!({"sub": "used"}));
        let mut largest = 0;
        for n in 0..10_000 {
            let token = signed(Algorithm::HS256, &json!({"sub": format!("{n:0name_bytes$}")}));
            for token in [&token, &used] {
                verifier.begin_turn(START);
                assert!(is_good(&verifier.check(token, None, START, NOW)));
            }
            largest = largest.max(verifier.kept());
        }
        assert!((most / 4..=most).contains(&largest), "{largest}");
        assert_eq!(verifier.counts().cached, 9_999);
    }
}

/// A token that is too long for the cache is verified each time and not cached.
#[test]
fn long_tokens_are_not_kept() {
    let mut verifier = Verifier::new(keys_for(Algorithm::HS256), Required::default(), 100);
    let token = signed(Algorithm::HS256, &json!({"sub": "alice", "more": "x".repeat(4096)}));
    for _ in 0..3 {
        assert!(is_good(&verifier.check(&token, None, START, NOW)));
    }
    assert_eq!((verifier.kept(), verifier.counts().checks), (0, 3));
}

/// After ten minutes without tokens, the verifier stores no tokens and no addresses.
#[test]
fn all_tables_are_trimmed() {
    let mut verifier = Verifier::new(keys_for(Algorithm::HS256), Required::default(), 100);
    let bad = forged(Algorithm::HS256, &json!({"sub": "mallory"}));
    for (address, token) in good(Algorithm::HS256, 100).iter().enumerate() {
        verifier.begin_turn(START);
        assert!(is_good(&verifier.check(token, None, START, NOW)));
        let verdict = verifier.check(&bad, Some(address as u32), START, NOW);
        assert_eq!(verdict, Verdict::Bad(BadToken::Signature));
    }
    assert_eq!(verifier.kept(), 200);
    for second in 0..=610 {
        verifier.begin_turn(Duration::from_secs(second));
    }
    assert_eq!(verifier.kept(), 0);
}

/// Extreme times of both clocks do not overflow.
#[test]
fn extreme_times() {
    let mut verifier = Verifier::new(keys_for(Algorithm::HS256), Required::default(), u32::MAX);
    let token = signed(Algorithm::HS256, &json!({"sub": "alice", "exp": 1e19, "nbf": -1}));
    let bad = forged(Algorithm::HS256, &json!({"sub": "mallory"}));
    for now in [Duration::ZERO, Duration::from_secs(1 << 53), Duration::MAX, Duration::ZERO] {
        verifier.begin_turn(now);
        for unix in [0, 1, 1 << 31, 1 << 32, 1 << 53, 1 << 63, u64::MAX - 5, u64::MAX] {
            assert_eq!(verifier.check(&token, Some(1), now, unix), Verdict::Good(alice(None)));
            let _ = verifier.check(&bad, Some(1), now, unix);
        }
    }
}
