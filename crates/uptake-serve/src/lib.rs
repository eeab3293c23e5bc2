//! The collector and the API: events in from browsers, rows out to them.
//!
//! Nothing is served yet. The package has its place because what it may depend on is part of the
//! design: it reads tables and appends to logs through `uptake-connectors`, and holds no engine.
