//! fleet-bootstrap.
