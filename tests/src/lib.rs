//! End-to-end tests of the two programs, against other implementations.
