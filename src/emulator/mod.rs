//! `emulator`.
