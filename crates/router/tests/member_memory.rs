//! The memory that members of channels take.

use allocation_counter::measure;
use murre_router::channels::Origin;
use murre_router::presence::{Presence, PresenceRules, UserName};

const RULES: PresenceRules =
    PresenceRules { lists: true, push_max: 200, interval_ms: 1000, grace_ms: 5000 };

/// A member takes at most 50 bytes beside its metadata and the name of its user, in one channel of 100,000
/// and in channels whose tables are little more than half full.
#[test]
fn a_member_takes_50_bytes() {
    for (channels, members) in [(1, 100_000), (200, 450), (200, 500), (200, 896)] {
        let names: Vec<String> = (0..channels).map(|channel| format!("room:{channel}")).collect();
        let users: Vec<UserName> = (0..members).map(|user| format!("user-{user}").into()).collect();
        let mut presence: Presence = Presence::new(0, 1, 7, |_| Some(RULES), 1000);
        let joined = measure(|| {
            for (channel, name) in names.iter().enumerate() {
                for (number, user) in users.iter().enumerate() {
                    let origin = Origin((channel * members + number) as u64);
                    presence.join(name, origin, user, None, 0).expect("there is room");
                }
            }
        });
        let each = joined.bytes_current as f64 / (channels * members) as f64;
        println!("{channels} channels of {members}: {each:.1} B each");
        assert!(
            (30.0..=50.0).contains(&each),
            "{channels} channels of {members}: {each:.1} B each"
        );
    }
}
