//! The linter, as its users meet it.

mod lint {
    pub mod files;
    pub mod golden;
    pub mod output;
    pub mod properties;
    pub mod rules;
    pub mod starts;
}
