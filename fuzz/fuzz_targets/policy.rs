//! A policy: whatever is loaded acts, is exported, and is saved and loaded as the same.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use soft_actor_critic_fuzz::{Change, POLICIES, check_policy};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Changed { policy: u8, changes: Vec<Change<'a>> },
    Bytes(&'a [u8]),
}

fuzz_target!(|input: Input| match input {
    Input::Changed { policy, changes } =>
        check_policy(&POLICIES[usize::from(policy) % POLICIES.len()].changed(&changes).0),
    Input::Bytes(bytes) => check_policy(bytes),
});
