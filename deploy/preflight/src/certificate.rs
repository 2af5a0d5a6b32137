//! What to think of a certificate.

use crate::check::{Finding, Verdict};
use rustls::CertificateError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// With less than this left a warning; Caddy would have renewed long before. The same as in `health.sh`.
const WARN: Duration = Duration::from_secs(14 * 86_400);
/// With less than this left a failure.
const CRITICAL: Duration = Duration::from_secs(3 * 86_400);

/// The certificates that a server presented, and what verification said.
#[derive(Clone, Debug, Default)]
pub struct Presented {
    /// The name that was asked for.
    pub name: String,
    /// DER, the server's own first.
    pub chain: Vec<Vec<u8>>,
    /// Why it would not be accepted; none: it would.
    pub refusal: Option<rustls::Error>,
}

/// What stands in a certificate, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its alternative names.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Who signed it.
    pub issuer: String,
}

impl Presented {
    /// Whether a homeserver would accept it.
    pub fn is_valid(&self) -> bool {
        self.refusal.is_none() && !self.chain.is_empty()
    }

    /// Reads the server's own certificate.
    pub fn facts(&self) -> Option<Facts> {
        let (_, certificate) = X509Certificate::from_der(self.chain.first()?).ok()?;
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| {
                extension
                    .value
                    .general_names
                    .iter()
                    .map(|name| match name {
                        GeneralName::DNSName(name) => (*name).to_owned(),
                        GeneralName::IPAddress([a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
                        other => other.to_string(),
                    })
                    .collect()
            })
            .unwrap_or_default();
        Some(Facts {
            names,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            issuer: certificate.issuer().to_string(),
        })
    }

    /// Judges it as another homeserver would, and then how long that will last.
    pub fn judge(&self, now: SystemTime) -> Finding {
        let name = &self.name;
        let Some(facts) = self.facts() else {
            return Finding::failed(
                format!("what is presented for `{name}` is no certificate"),
                "a certificate",
                "see which program serves that port",
            );
        };
        let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
            .unwrap_or(i64::MAX);
        let expected = format!("a valid certificate for `{name}`");
        if let Some(refusal) = &self.refusal {
            let (seen, hint) = self.explain(refusal, &facts, now);
            return Finding::failed(format!("`{name}`: {seen}"), expected, hint);
        }
        let left = Duration::from_secs(u64::try_from(facts.not_after - now).unwrap_or(0));
        // An authority may issue for hours, as a lab's does: then parts of its life decide.
        let life =
            Duration::from_secs(u64::try_from(facts.not_after - facts.not_before).unwrap_or(0));
        let seen = format!(
            "`{name}`: valid for another {}, issued by {}",
            spell(left),
            facts.issuer
        );
        let hint = "Caddy renews when a third is left and did not: `journalctl -u caddy` says why";
        let verdict = if left < CRITICAL.min(life / 8) {
            Verdict::Failed
        } else if left < WARN.min(life / 4) {
            Verdict::Warning
        } else {
            return Finding::ok(seen);
        };
        Finding {
            verdict,
            seen,
            expected: "a certificate that was renewed in time".to_owned(),
            hint: hint.to_owned(),
        }
    }

    fn explain(&self, refusal: &rustls::Error, facts: &Facts, now: i64) -> (String, String) {
        match refusal {
            rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => (
                format!(
                    "expired {} ago",
                    spell(Duration::from_secs(
                        u64::try_from(now - facts.not_after).unwrap_or(0)
                    ))
                ),
                "Caddy could not renew it: `journalctl -u caddy` says why".to_owned(),
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => (
                "not valid yet".to_owned(),
                "look at the clock of this machine".to_owned(),
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => (
                format!("the certificate is for {}", quoted(&facts.names)),
                "the site block in Caddy must carry the name; with an SRV record that is the server name itself"
                    .to_owned(),
            ),
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => (
                format!(
                    "nobody that is trusted here signed it: {} presented, the first issued by {}",
                    if self.chain.len() == 1 {
                        "one certificate".to_owned()
                    } else {
                        format!("{} certificates", self.chain.len())
                    },
                    facts.issuer
                ),
                "self-signed, of an authority that others do not trust, or the intermediate certificate is not served"
                    .to_owned(),
            ),
            other => (other.to_string(), "see the error".to_owned()),
        }
    }
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "no name at all".to_owned();
    }
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// A length of time in the unit that a person would use.
pub fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
