//! Runs the checks, each in a thread of its own: one that crashes or never ends is unknown, and the others are not.

use crate::check::{Check, Finding, Report};
use crate::context::Context;
use crate::{federation, machine, names, outside};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// A check: what it finds, or nothing where it has nothing to look at.
pub type Look<C> = fn(&C) -> Option<Finding>;

/// About the names; the first part of the checklist.
const NAMES: &[(&str, Look<Context>)] = &[
    ("resolver", names::resolver),
    ("resolver-nxdomain", names::resolver_nxdomain),
    ("resolver-tcp", names::resolver_tcp),
    ("address", names::address),
    ("address-apex", names::address_apex),
    ("aaaa", names::aaaa),
    ("caa", names::caa),
    ("srv", names::srv),
];

/// About what the host needs of the world.
const OUTSIDE: &[(&str, Look<Context>)] = &[
    ("acme", outside::acme),
    ("outbound-443", outside::outbound),
    ("clock", outside::clock),
];

/// About this machine.
const MACHINE: &[(&str, Look<Context>)] = &[
    ("port-22", machine::port_22),
    ("port-80", machine::port_80),
    ("port-443", machine::port_443),
    ("port-3000", machine::port_3000),
    ("port-6167", machine::port_6167),
    ("port-8448", machine::port_8448),
    ("disk", machine::disk),
    ("inodes", machine::inodes),
    ("memory", machine::memory),
    ("systemd", machine::systemd),
    ("caddy", machine::caddy),
    ("sqlite", machine::sqlite),
];

/// What another homeserver would find.
const FEDERATION: &[(&str, Look<Context>)] = &[
    ("well-known", federation::well_known),
    ("certificate-well-known", federation::certificate_well_known),
    ("discovery", federation::discovery),
    ("addresses", federation::addresses),
    ("certificate", federation::certificate),
    ("keys", federation::keys),
    ("keys-validity", federation::keys_validity),
    ("version", federation::version),
];

/// Carries out what the settings ask for.
pub fn run(context: Arc<Context>, limit: Duration) -> Report {
    let settings = &context.settings;
    let mut list = NAMES.to_vec();
    list.extend(OUTSIDE);
    if settings.host {
        list.extend(MACHINE);
    }
    if !settings.before_install {
        list.extend(FEDERATION);
    }
    let checks = look(&list, &context, limit);
    let discovery = context
        .discovery
        .get()
        .map(|discovery| discovery.steps.clone())
        .unwrap_or_default();
    let resolvers = context.resolver.servers();
    Report::new(
        settings.server_name.text.clone(),
        resolvers.iter().map(ToString::to_string).collect(),
        checks,
        discovery,
    )
}

/// Carries out these checks and hands back what they found, in their order.
pub fn look<C: Send + Sync + 'static>(
    list: &[(&'static str, Look<C>)],
    context: &Arc<C>,
    limit: Duration,
) -> Vec<Check> {
    let deadline = Instant::now() + limit;
    let (sender, receiver) = mpsc::channel();
    for (index, &(_, check)) in list.iter().enumerate() {
        let (sender, context) = (sender.clone(), Arc::clone(context));
        // Never joined: one that hangs ends with the process.
        std::thread::spawn(move || {
            let found = catch_unwind(AssertUnwindSafe(|| check(&context)));
            // Nobody listens any more when the time is over.
            let _ = sender.send((index, found));
        });
    }
    drop(sender);
    let mut found: Vec<Option<Option<Finding>>> = vec![None; list.len()];
    while let Ok((index, outcome)) =
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        found[index] = Some(outcome.unwrap_or_else(|panic| {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a word");
            Some(Finding::unknown(
                format!("the check crashed: {what}"),
                "this is a defect of fleet-preflight",
            ))
        }));
    }
    list.iter()
        .zip(found)
        .filter_map(|(&(name, _), found)| {
            let found = found.unwrap_or_else(|| {
                Some(Finding::unknown(
                    format!("not finished within {} s", limit.as_secs()),
                    "give it more time with `--time-limit`",
                ))
            });
            Some(found?.named(name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_check_that_crashes_or_hangs_is_unknown_and_the_others_are_not() {
        let list: &[(&str, Look<()>)] = &[
            ("fine", |()| Some(Finding::ok("as it should be"))),
            ("crashes", |()| panic!("at once")),
            ("hangs", |()| {
                loop {
                    std::thread::park();
                }
            }),
            ("not applicable", |()| None),
        ];
        let checks = look(list, &Arc::new(()), Duration::from_secs(5));
        let seen: Vec<_> = checks
            .iter()
            .map(|check| (check.name.as_str(), check.verdict))
            .collect();
        assert_eq!(
            seen,
            [
                ("fine", Verdict::Ok),
                ("crashes", Verdict::Unknown),
                ("hangs", Verdict::Unknown)
            ]
        );
        assert!(checks[1].seen.contains("at once"), "{}", checks[1].seen);
        assert!(
            checks[2].seen.contains("not finished"),
            "{}",
            checks[2].seen
        );
    }
}
