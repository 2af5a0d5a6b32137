//! What a fleet relies on, put to the site as it is deployed: by Conduit's own port, through Caddy over HTTP/1.1 and
//! over HTTP/2, and on Synapse abroad. A module for each part of the table of behaviours; what breaks its world is
//! in `alone`. What Conduit is known to do wrong stands in `harness/src/known.rs`.

mod a;
mod alone;
mod b;
mod c;
mod d;
mod g;
