//! Scripted days in the life of a router.
