//! One promise each.

use murre_router::services::{
    RequestError, RequestId, ServiceError, ServiceEvent, ServiceLimits, Services, Stats,
};

use crate::one_shard;
use crate::oracles::ROOMY;

type Event = ServiceEvent<&'static str>;

/// The events, shortly.
fn told(services: &mut Services<&'static str>) -> Vec<(u32, String)> {
    told_to(services, |_| true)
}

/// The same while only some take it.
fn told_to(
    services: &mut Services<&'static str>,
    takes: impl Fn(u32) -> bool,
) -> Vec<(u32, String)> {
    std::iter::from_fn(|| services.event(&takes))
        .map(|event| match event {
            Event::Request { member, payload, .. } => (member, format!("asked {payload}")),
            Event::Response { member, ticket, payload, .. } => {
                (member, format!("{ticket}: {payload}"))
            }
            Event::Failed { member, ticket, error, .. } => (member, format!("{ticket}: {error:?}")),
        })
        .collect()
}

fn asked(services: &mut Services<&'static str>) -> RequestId {
    match services.event(|_| true) {
        Some(Event::Request { request, .. }) => request,
        other => panic!("{other:?}"),
    }
}

/// A request reaches the responder, its answer the requester, and then nothing is left of both.
#[test]
fn there_and_back() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.request(2, 7, "time", "now?", 100).unwrap();
    let Some(Event::Request { member: 1, request, service, payload: "now?" }) =
        services.event(|_| true)
    else {
        panic!("member 1 is asked")
    };
    assert_eq!(&*service, "time");
    services.reply(1, request, Ok("noon")).unwrap();
    let response =
        Event::Response { member: 2, ticket: 7, service: "time".into(), payload: "noon" };
    assert_eq!(services.event(|_| true), Some(response));
    assert_eq!((services.event(|_| true), services.next_expiry()), (None, None));
    services.unserve(1, "time").unwrap();
    assert_eq!(services.stats(), Stats::default());
}

/// A failure of the responder's comes with its text.
#[test]
fn the_responders_own_error() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.request(2, 7, "time", "now?", 100).unwrap();
    let request = asked(&mut services);
    services.reply(1, request, Err("no clock".into())).unwrap();
    assert_eq!(told(&mut services), [(2, "7: ResponderFailed(\"no clock\")".into())]);
}

/// A request for a service that no member offers fails at once.
#[test]
fn no_responders() {
    let mut services = one_shard(ROOMY);
    services.request(2, 7, "time", "now?", 100).unwrap();
    assert_eq!(told(&mut services), [(2, "7: NoResponders".into())]);
}

/// Only the responder of a request may reply, once, after it has seen the request and until the
/// deadline.
#[test]
fn replies_to_what_one_does_not_have() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.serve(2, "date").unwrap();
    services.request(3, 7, "time", "now?", 100).unwrap();
    let guessed = "0-1".parse().unwrap();
    assert_eq!(services.reply(1, guessed, Ok("early")), Err(ServiceError::UnknownRequest));
    let request = asked(&mut services);
    assert_eq!(request, guessed, "the guess was right");
    assert_eq!(services.reply(2, request, Ok("forged")), Err(ServiceError::UnknownRequest));
    assert_eq!(services.reply(3, request, Ok("forged")), Err(ServiceError::UnknownRequest));
    services.reply(1, request, Ok("noon")).unwrap();
    assert_eq!(services.reply(1, request, Ok("twice")), Err(ServiceError::UnknownRequest));
    services.request(3, 8, "time", "now?", 100).unwrap();
    assert_eq!(told(&mut services), [(3, "7: noon".into()), (1, "asked now?".into())]);
    services.expire(99);
    assert_eq!((told(&mut services), services.next_expiry()), (vec![], Some(100)));
    services.expire(100);
    assert_eq!(told(&mut services), [(3, "8: Timeout".into())]);
    assert_eq!(
        services.reply(1, "0-2".parse().unwrap(), Ok("late")),
        Err(ServiceError::UnknownRequest)
    );
}

/// An answer that has arrived is the outcome, even if the deadline comes before the event is taken.
#[test]
fn the_first_outcome_counts() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.request(2, 7, "time", "now?", 100).unwrap();
    let request = asked(&mut services);
    services.reply(1, request, Ok("noon")).unwrap();
    services.expire(100);
    assert_eq!(told(&mut services), [(2, "7: noon".into())]);
}

/// A responder that leaves fails the requests it has seen, at once; what it has not seen, another
/// one gets.
#[test]
fn the_responder_leaves() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.request(2, 7, "time", "seen", 100).unwrap();
    asked(&mut services);
    services.request(2, 8, "time", "unseen", 100).unwrap();
    services.serve(3, "time").unwrap();
    services.leave(1, |_| ());
    let mut told = told(&mut services);
    told.sort();
    assert_eq!(told, [(2, "7: ResponderGone".into()), (3, "asked unseen".into())]);
}

/// A member with the number of one that left hears nothing that was meant for that one, be it a
/// request or an answer, and cannot reply in its place.
#[test]
fn a_number_is_used_again() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.request(2, 7, "time", "a", 100).unwrap();
    let request = asked(&mut services);
    services.request(2, 8, "time", "b", 100).unwrap();
    services.reply(1, request, Ok("answer")).unwrap();
    services.leave(1, |_| ());
    services.leave(2, |_| ());
    services.serve(1, "time").unwrap();
    services.request(2, 9, "other", "c", 100).unwrap();
    assert_eq!(services.reply(1, request, Ok("d")), Err(ServiceError::UnknownRequest));
    let mut told = told(&mut services);
    told.retain(|(_, what)| what != "asked b");
    assert_eq!(told, [(2, "9: NoResponders".into())]);
}

/// A service that is no longer offered gets no requests, and what it has may be replied to.
#[test]
fn unserve_lets_replies_through() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.request(2, 7, "time", "now?", 100).unwrap();
    let request = asked(&mut services);
    services.unserve(1, "time").unwrap();
    services.request(2, 8, "time", "now?", 100).unwrap();
    services.reply(1, request, Ok("noon")).unwrap();
    assert_eq!(told(&mut services), [(2, "8: NoResponders".into()), (2, "7: noon".into())]);
}

/// Each of a member's bounds refuses one more, and takes it again once there is room.
#[test]
fn too_many() {
    let mut services = one_shard(ServiceLimits { services_max: 1, requests_max: 1, ..ROOMY });
    services.serve(1, "time").unwrap();
    assert_eq!(services.serve(1, "time"), Err(ServiceError::AlreadyServing));
    assert_eq!(services.serve(1, "date"), Err(ServiceError::TooMany));
    assert_eq!(services.unserve(1, "date"), Err(ServiceError::NotServing));
    services.request(2, 7, "time", "now?", 100).unwrap();
    assert_eq!(services.request(2, 8, "time", "now?", 100), Err(ServiceError::TooMany));
    let request = asked(&mut services);
    services.reply(1, request, Ok("noon")).unwrap();
    told(&mut services);
    services.request(2, 9, "time", "now?", 100).unwrap();
    services.unserve(1, "time").unwrap();
    services.serve(1, "date").unwrap();
}

/// A full responder is passed over until it has half of what it may have; if all are full the
/// requester hears so at once.
#[test]
fn full_responders_rest() {
    let mut services = one_shard(ServiceLimits { serving_max: 4, ..ROOMY });
    let mut has = Vec::new();
    let mut ticket = 0;
    // The member that gets the next request, if any.
    let mut ask = |services: &mut Services<_>| {
        ticket += 1;
        services.request(9, ticket, "time", "now?", 100).unwrap();
        match services.event(|_| true) {
            Some(Event::Request { member, request, .. }) => Some((member, request)),
            Some(Event::Failed { error: RequestError::Overloaded, .. }) => None,
            other => panic!("{other:?}"),
        }
    };
    services.serve(1, "time").unwrap();
    services.serve(2, "time").unwrap();
    has.extend((0..8).map(|_| ask(&mut services).expect("there is room")));
    assert_eq!(has.iter().filter(|(member, _)| *member == 1).count(), 4);
    assert!(ask(&mut services).is_none(), "both are full");
    let mut of_first: Vec<_> = has.iter().filter(|(member, _)| *member == 1).collect();
    for more_than_half in [true, false] {
        let (member, request) = of_first.pop().expect("it had four");
        services.reply(*member, *request, Ok("noon")).unwrap();
        services.event(|_| true).expect("an answer");
        if more_than_half {
            assert!(ask(&mut services).is_none(), "it rests");
        }
    }
    assert_eq!(ask(&mut services).map(|(member, _)| member), Some(1));
    assert_eq!(ask(&mut services).map(|(member, _)| member), Some(1), "the other one rests");
    assert!(ask(&mut services).is_none(), "both are full again");
}

/// Two shards, and the name of a service that the second one owns.
fn two_shards(limits: ServiceLimits) -> ([Services<&'static str>; 2], &'static str) {
    let shards = || [0, 1].map(|shard| Services::new(shard, 2, 0, limits));
    let is_owned_there = |name: &&str| {
        let [mut probe, _] = shards();
        probe.serve(0, name).unwrap();
        probe.stats().owned == 0
    };
    let name = ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().find(is_owned_there);
    (shards(), name.expect("the second shard owns one of them"))
}

/// A request that its owner cannot pass on, as too many messages wait for the responder's shard, fails.
#[test]
fn the_way_to_the_responder_is_blocked() {
    let ([mut first, mut owner], name) = two_shards(ServiceLimits { messages_max: 1, ..ROOMY });
    first.serve(1, name).unwrap();
    first.messages(1).drain(..).for_each(|message| owner.receive(0, message));
    owner.request(5, 7, name, "on its way", 100).unwrap();
    owner.request(5, 8, name, "too much", 100).unwrap();
    assert_eq!(told(&mut owner), [(5, "8: Overloaded".into())]);
    owner.messages(0).drain(..).for_each(|message| first.receive(1, message));
    assert_eq!(told(&mut first), [(1, "asked on its way".into())]);
}

/// A request that gets to its responder's shard when that one offers the service no more goes to
/// another one, or comes back at once.
#[test]
fn the_responder_is_gone_before_it_is_asked() {
    let ([mut first, mut owner], name) = two_shards(ROOMY);
    let first_to_owner = |first: &mut Services<_>, owner: &mut Services<_>| {
        first.messages(1).drain(..).for_each(|message| owner.receive(0, message));
    };
    let owner_to_first = |owner: &mut Services<_>, first: &mut Services<_>| {
        owner.messages(0).drain(..).for_each(|message| first.receive(1, message));
    };
    first.serve(1, name).unwrap();
    first_to_owner(&mut first, &mut owner);
    owner.request(5, 7, name, "a", 100).unwrap();
    first.leave(1, |_| ());
    first.serve(1, name).unwrap();
    owner_to_first(&mut owner, &mut first);
    assert_eq!(told(&mut first), [], "the next one of this number is not meant");
    first_to_owner(&mut first, &mut owner);
    owner_to_first(&mut owner, &mut first);
    assert_eq!(told(&mut first), [(1, "asked a".into())], "but it may be asked");

    owner.request(5, 8, name, "b", 100).unwrap();
    first.unserve(1, name).unwrap();
    owner_to_first(&mut owner, &mut first);
    first_to_owner(&mut first, &mut owner);
    assert_eq!((told(&mut first), told(&mut owner)), (vec![], vec![(5, "8: NoResponders".into())]));
}

/// While too many messages wait for the owner nothing is begun with it, and what is there can end.
#[test]
fn messages_are_bounded() {
    let ([mut services, _], name) = two_shards(ServiceLimits { messages_max: 2, ..ROOMY });
    services.serve(1, name).unwrap();
    services.request(1, 7, name, "now?", 100).unwrap();
    assert_eq!(services.request(1, 8, name, "now?", 100), Err(ServiceError::Overloaded));
    assert_eq!(services.serve(2, name), Err(ServiceError::Overloaded));
    services.unserve(1, name).unwrap();
    assert_eq!(services.messages(1).len(), 3);
    services.messages(1).clear();
    services.serve(2, name).unwrap();
}

/// A burst of timeouts ends in bounded pieces, and the next one is due at once.
#[test]
fn timeouts_in_pieces() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    (0..1000).for_each(|ticket| services.request(2, ticket, "time", "now?", 100).unwrap());
    let mut ended = Vec::new();
    while services.next_expiry().is_some_and(|at| at <= 100) {
        services.expire(100);
        let told = told(&mut services);
        ended.push(told.iter().filter(|(member, _)| *member == 2).count());
    }
    assert_eq!((ended.iter().sum(), ended.len()), (1000, 4), "{ended:?}");
    assert_eq!((services.stats().waiting, services.stats().serving), (0, 0));
}

/// A request that the connection of a responder does not take goes to another one. So do later ones,
/// until the first responder's connection takes more.
#[test]
fn congested_responders_are_passed_over() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    services.serve(2, "time").unwrap();
    let ask = |services: &mut Services<_>, count| {
        (0..count).for_each(|_| services.request(9, 7, "time", "now?", 100).unwrap());
    };
    ask(&mut services, 4);
    let told_second = |count| vec![(2, "asked now?".to_string()); count];
    assert_eq!(told_to(&mut services, |member| member != 1), told_second(4));
    ask(&mut services, 2);
    assert_eq!(told(&mut services), told_second(2));
    services.resume(1);
    ask(&mut services, 2);
    let mut told = told(&mut services);
    told.sort();
    assert_eq!(told, [(1, "asked now?".into()), (2, "asked now?".into())]);
    assert_eq!(services.stats().parked_bytes, 0);
}

/// If all responders of a service are congested, requests wait, and arrive in their order when a
/// connection takes more.
#[test]
fn requests_wait_for_congested_responders() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    for (at, payload) in ["a", "b", "c", "d"].into_iter().enumerate() {
        services.request(9, at as u32, "time", payload, 100).unwrap();
        if at == 1 {
            assert_eq!(told_to(&mut services, |_| false), []);
        }
    }
    assert_eq!(services.stats().parked_bytes, 4);
    assert_eq!(told(&mut services), []);
    assert!(!services.nobody_congested());
    services.resume(1);
    assert!(services.nobody_congested());
    let taken = std::cell::Cell::new(0);
    let takes_two = |_| taken.replace(taken.get() + 1) < 2;
    let asked = |payloads: &[&str]| -> Vec<(u32, String)> {
        payloads.iter().map(|payload| (1, format!("asked {payload}"))).collect()
    };
    assert_eq!(told_to(&mut services, takes_two), asked(&["a", "b"]));
    assert_eq!(services.stats().parked_bytes, 2);
    services.resume(1);
    services.resume(1);
    assert_eq!(told(&mut services), asked(&["c", "d"]));
    assert_eq!(services.stats().parked_bytes, 0);
}

/// A congested responder takes no new requests before it has seen most of those that are parked, if
/// another one takes them.
#[test]
fn parked_requests_come_first() {
    let mut services = one_shard(ROOMY);
    services.serve(1, "time").unwrap();
    (0..20).for_each(|ticket| services.request(9, ticket, "time", "old", 100).unwrap());
    assert_eq!(told_to(&mut services, |_| false), []);
    services.serve(2, "time").unwrap();
    services.resume(1);
    (0..20).for_each(|ticket| services.request(9, ticket, "time", "new", 100).unwrap());
    let told = told(&mut services);
    let of = |member| told.iter().filter(move |(of, _)| *of == member).count();
    assert_eq!((of(1), of(2)), (20, 20));
    services.request(9, 7, "time", "later", 100).unwrap();
    services.request(9, 8, "time", "later", 100).unwrap();
    assert_eq!(self::told(&mut services).iter().filter(|(member, _)| *member == 1).count(), 1);
}

/// Payload that is parked for one member is bounded: a request or a response beyond that fails, and the
/// requester hears so.
#[test]
fn parked_bytes_are_bounded() {
    let mut services = one_shard(ServiceLimits { parked_bytes_max: 10, ..ROOMY });
    services.serve(1, "time").unwrap();
    (0..3).for_each(|ticket| services.request(2, ticket, "time", "12345", 100).unwrap());
    let told_2 = told_to(&mut services, |member| member == 2);
    assert_eq!(told_2, [(2, "2: Overloaded".into())]);
    assert_eq!(services.stats().parked_bytes, 10);
    services.resume(1);
    for _ in 0..2 {
        let request = asked(&mut services);
        services.reply(1, request, Ok("123456")).unwrap();
    }
    assert_eq!(told_to(&mut services, |_| false), []);
    assert_eq!(services.stats().parked_bytes, 6);
    services.resume(2);
    let mut outcomes = told(&mut services);
    outcomes.sort();
    assert_eq!(outcomes, [(2, "0: 123456".into()), (2, "1: Overloaded".into())]);
    assert_eq!(services.stats().parked_bytes, 0);
}

/// Payload that is parked for all members of a shard together is bounded, too: what is parked for one
/// member can leave no room for another.
#[test]
fn parked_bytes_of_a_shard_are_bounded() {
    let mut services = one_shard(ServiceLimits { parked_bytes_total_max: 10, ..ROOMY });
    services.serve(1, "time").unwrap();
    services.serve(2, "date").unwrap();
    services.request(3, 0, "time", "123456", 100).unwrap();
    services.request(3, 1, "date", "12345", 100).unwrap();
    services.request(3, 2, "date", "1234", 100).unwrap();
    assert_eq!(told_to(&mut services, |member| member == 3), [(3, "1: Overloaded".into())]);
    assert_eq!(services.stats().parked_bytes, 10);
    (1..3).for_each(|member| services.resume(member));
    let expected = [(1, "asked 123456".into()), (2, "asked 1234".into())];
    assert_eq!(told(&mut services), expected);
    assert_eq!(services.stats().parked_bytes, 0);
}

/// A parked request ends with the member that leaves, with time, or to another responder.
#[test]
fn parked_requests_end() {
    for how in 0..3 {
        let mut services = one_shard(ROOMY);
        services.serve(1, "time").unwrap();
        services.request(2, 7, "time", "now?", 100).unwrap();
        assert_eq!(told_to(&mut services, |_| false), []);
        assert_eq!(services.stats().parked_bytes, 4);
        let expected = match how {
            0 => {
                services.serve(3, "time").unwrap();
                services.leave(1, |_| ());
                (3, "asked now?".to_string())
            }
            1 => {
                services.leave(1, |_| ());
                (2, "7: NoResponders".to_string())
            }
            _ => {
                services.expire(100);
                (2, "7: Timeout".to_string())
            }
        };
        assert_eq!(services.stats().parked_bytes, 0, "{how}");
        services.resume(1);
        assert_eq!(told(&mut services), [expected]);
        (1..4).for_each(|member| services.leave(member, |_| ()));
        assert_eq!(services.stats(), Stats::default());
    }
}
