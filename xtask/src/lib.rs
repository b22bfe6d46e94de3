//! Builds, runs, tests and measures Ferroute.
