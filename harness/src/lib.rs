//! Rehearses the deployment of a Matrix homeserver: starts the real servers in containers, follows the runbooks that
//! operators follow, and says which claims held on which server.
//!
//! One run, module by module: [`setup`] makes the machine fit, [`homeserver`] finds a Conduit and [`tools`] makes the
//! bundle that an operator brings; [`world`] makes a closed network in which [`authority`] serves names and
//! certificates and [`host`] boots bare machines from the [`image`]s; the [`operator`] follows a [`runbook`] there
//! until a [`site`] serves; [`client`]s talk to it, a [`fingerprint`] says what they would miss; [`rehearse`] puts the
//! claims in their order, [`scenario`] frames one claim, in a world of its own or as one of several that have
//! [`accounts`] of their own in a [`shared`] one; a [`fault`] breaks something in it for a while, a [`sweep`] breaks backup
//! and restore in hundreds of ways, and [`corruption`] what they leave; [`commons`] has the
//! claims that are put by every [`entrance`], which must not differ ([`differential`]); what clients did and were told
//! becomes a [`history`]; a [`scan`] looks for words wherever a machine keeps bytes; after a failure they [`examine`] the machines; what is [`known`] to be wrong must be wrong in
//! just that way; and [`report`] says what came of them, also as a [`page`].

pub mod accounts;
mod admins;
pub mod authority;
pub mod client;
pub mod commons;
pub mod corruption;
pub mod differential;
pub mod docker;
pub mod docs;
pub mod drill;
pub mod entrance;
pub mod examine;
pub mod failure;
pub mod fault;
pub mod faulty;
pub mod fingerprint;
pub mod history;
pub mod homeserver;
pub mod host;
pub mod image;
pub mod intercept;
pub mod known;
pub mod lint;
pub mod measure;
pub mod operator;
pub mod page;
pub mod paths;
pub mod probe;
pub mod raw;
pub mod record;
pub mod rehearse;
pub mod report;
pub mod runbook;
pub mod scan;
pub mod scenario;
pub mod setup;
pub mod shared;
pub mod site;
pub mod sweep;
pub mod tools;
pub mod ui;
pub mod verdict;
pub mod visitors;
pub mod wire;
pub mod world;

pub use failure::{Failure, OrBlame, Result};
pub use verdict::{Blame, Exit, Verdict};
