//! The `Peer`: a federation server that scenarios play themselves, to send what a well-behaved server never would.
//!
//! A [`Door`] is where callers come: addresses in the lab, TLS with certificates from the lab's authority, HTTP. It
//! answers what it was told to expect ([`Ask`], [`Reply`]), keeps every visit, and what nobody declared fails the scenario
//! ([`Door::nothing_unexpected`]). A [`Peer`] is a server name behind a door: it has signing keys that it publishes,
//! withholds or replaces, makes signed requests and spoils them, and knows [`Room`]s, whose events it seals or forges.
//!
//! Types and signatures are ruma's; nothing here is proved by code that shares a mistake with the server under test.

mod door;
mod faulty;
mod hosting;
mod peer;
mod room;

pub use door::{Answer, Ask, Call, Door, Gate, Reply, Visit};
pub use faulty::Mutant;
pub use peer::{KeyDocument, Peer, Replied, Signed, Signing, Transaction, zone};
pub use room::{Room, Sealed, forge};
