//! Units that run Conduit, judged by themselves: the few settings that have cost somebody a server.

use crate::diagnostic::{Code, Diagnostic, Effect, Fix, Severity};
use crate::systemd::{Unit, is_true};
use crate::value::Place;

impl Unit {
    /// What is wrong with the unit itself.
    pub fn judge(&self, out: &mut Vec<Diagnostic>) {
        self.judge_type(out);
        self.judge_restart(out);
        self.judge_user(out);
        self.judge_stop(out);
    }

    fn judge_type(&self, out: &mut Vec<Diagnostic>) {
        let Some(kind) = self
            .last("Type")
            .filter(|kind| ["notify", "notify-reload"].contains(&kind.text()))
        else {
            return;
        };
        let listed = self.list("RestrictAddressFamilies");
        let denies = listed.iter().any(|assignment| {
            let text = assignment.text();
            let names: Vec<_> = text
                .trim_start_matches('~')
                .split_ascii_whitespace()
                .collect();
            text.starts_with('~') && names.contains(&"AF_UNIX") || text == "none"
        });
        let allows = listed.iter().any(|assignment| {
            let text = assignment.text();
            !text.starts_with('~') && text.split_ascii_whitespace().any(|name| name == "AF_UNIX")
        });
        let restricted = listed
            .iter()
            .any(|assignment| !assignment.text().starts_with('~'));
        if let Some(families) = listed.last().filter(|_| denies || restricted && !allows) {
            out.push(
                Diagnostic::new(
                    Code::UnitNotify,
                    Severity::Error,
                    Effect::None,
                    "`Type=notify` without `AF_UNIX`",
                    families.place.label("Conduit cannot report that it is ready: systemd ends it after the start timeout"),
                )
                .related(kind.place.label("systemd waits for the report"))
                .note("a report goes through a Unix socket; `Type=exec` needs none (Conduit src/main.rs:262)"),
            );
            return;
        }
        out.push(
            Diagnostic::new(
                Code::UnitNotify,
                Severity::Warning,
                Effect::None,
                "`Type=notify` with Conduit",
                kind.place.label("ready is reported before the server listens, even if the port is taken"),
            )
            .note("`Type=exec` with an `ExecStartPost=` that waits for an answer is certain (Conduit src/main.rs:262-270)"),
        );
    }

    fn judge_restart(&self, out: &mut Vec<Diagnostic>) {
        let codes = |key: &str| {
            self.list(key)
                .into_iter()
                .flat_map(|assignment| assignment.text().split_ascii_whitespace())
                .any(|code| code == "1" || code == "FAILURE")
        };
        let forced = self.all("RestartForceExitStatus").find(|assignment| {
            assignment
                .text()
                .split_ascii_whitespace()
                .any(|code| code == "1")
        });
        let restart = self
            .last("Restart")
            .filter(|restart| ["always", "on-failure"].contains(&restart.text()));
        if codes("RestartPreventExitStatus") {
            return;
        }
        let Some(assignment) = restart.or(forced) else {
            return;
        };
        let mut fix = None;
        if restart.is_some() {
            let at = assignment.place.span.end;
            fix = Some(Fix::replace(
                "add `RestartPreventExitStatus=1`",
                true,
                &Place::new(&assignment.place.source, at..at),
                "\nRestartPreventExitStatus=1",
            ));
        }
        out.push(
            Diagnostic::new(
                Code::UnitRestart,
                Severity::Error,
                Effect::None,
                format!("`{}` restarts Conduit after exit 1", assignment.place.text()),
                assignment.place.label("after a damaged signing key, the second start makes this another homeserver"),
            )
            .note("Conduit deletes a key that it cannot read, and exits 1; the next start makes a new one (src/service/globals/mod.rs:159)")
            .note("`Restart=on-abnormal`, or `RestartPreventExitStatus=1`, leaves the decision to a person")
            .fix(fix),
        );
    }

    fn judge_user(&self, out: &mut Vec<Diagnostic>) {
        let dynamic = self
            .last("DynamicUser")
            .filter(|assignment| is_true(assignment.text()));
        if let Some(assignment) = dynamic {
            out.push(
                Diagnostic::new(
                    Code::UnitUser,
                    Severity::Warning,
                    Effect::None,
                    "`DynamicUser=` with a server that has data",
                    assignment.place.label("its state directory is a link into /var/lib/private, owned by a number of this host"),
                )
                .note("a plain copy of the link saves no data, and another host gives another number: a static `User=` (sysusers.d) can be backed up and moved"),
            );
            return;
        }
        let user = self.last("User");
        let name = user.map_or("", |user| user.text());
        if name.is_empty() || name == "root" || name == "0" {
            let place = user.map_or_else(|| self.start_place(), |user| user.place.clone());
            out.push(
                Diagnostic::new(
                    Code::UnitUser,
                    Severity::Warning,
                    Effect::None,
                    "Conduit runs as root",
                    place.label("whoever gets into the server has the machine"),
                )
                .note("give it a system user of its own: `User=conduit`"),
            );
        }
    }

    fn judge_stop(&self, out: &mut Vec<Diagnostic>) {
        let assignment = self.assignments.iter().rfind(|assignment| {
            assignment.section == "Service"
                && ["TimeoutStopSec", "TimeoutSec"].contains(&assignment.key.as_str())
        });
        let Some(assignment) = assignment else {
            // The default of systemd is 90 s, which is long enough.
            return;
        };
        let Some(seconds) = seconds(assignment.text()) else {
            return;
        };
        if seconds > 0 && seconds <= 30 {
            out.push(
                Diagnostic::new(
                    Code::UnitStopTimeout,
                    Severity::Warning,
                    Effect::None,
                    format!("systemd kills Conduit {seconds} s after it asked it to stop"),
                    assignment
                        .place
                        .label("Conduit gives open requests up to 30 s"),
                )
                .note("more than 30 s lets it end by itself (Conduit src/main.rs:544)"),
            );
        }
    }
}

/// A time span as systemd writes it, in seconds; `None` if it is endless or no time span.
fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => humantime::parse_duration(text)
            .ok()
            .map(|duration| duration.as_secs()),
    }
}
