//! conduit-standin.
