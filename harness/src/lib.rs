//! Rehearses the deployment of a Matrix homeserver: starts the real servers in containers, follows the runbooks that
//! operators follow, and says which claims held on which server.

pub mod authority;
pub mod docker;
pub mod docs;
pub mod failure;
pub mod homeserver;
pub mod host;
pub mod image;
pub mod operator;
pub mod paths;
pub mod record;
pub mod runbook;
pub mod site;
pub mod tools;
pub mod ui;
pub mod verdict;
pub mod world;

pub use failure::{Failure, OrBlame, Result};
pub use verdict::{Blame, Exit, Verdict};
