//! An object store for backups in the lab: `s3s` with its files on this machine, reached over a wire, so that hosts see an
//! S3-compatible server at an address of their own. It verifies signatures (version 4) as the real ones do.
//!
//! What goes wrong with a store is put in front of it: a [`Fault`] strikes the requests that [`Fault::of`] names, or some of
//! them, until [`ObjectStore::heals`].

mod fault;
mod files;
mod store;

pub use fault::{Fault, Trouble};
pub use store::ObjectStore;
