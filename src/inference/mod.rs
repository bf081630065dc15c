//! `inference`.
