//! The metadata of a policy, whose tensors stay whole: the same holds as for [`policy`](../policy.rs).
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use soft_actor_critic_fuzz::{Change, POLICIES, Text, check_policy};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    policy: u8,
    changed: Vec<(u8, Text<'a>)>,
    removed: Option<u8>,
}

fuzz_target!(|input: Input| {
    let removed = input.removed.map(Change::MetadataRemove);
    let changes = input.changed.into_iter().map(|(key, text)| Change::Metadata(key, text)).chain(removed);
    let policy = &POLICIES[usize::from(input.policy) % POLICIES.len()];
    check_policy(&policy.changed(&changes.collect::<Vec<_>>()).0);
});
