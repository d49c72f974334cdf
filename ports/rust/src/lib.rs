//! A reader, verifier and decoder of `.trit` files, written from SPEC.md alone.
//!
//! The modules stand in the order of the SPEC's chapters, and each uses only those above it. A
//! sentence in quotation marks in a comment is the SPEC's; the id before it is the requirement that
//! the next lines check.
#![forbid(unsafe_code)]

pub mod error;
pub mod trits; // chapter 2
pub mod packing; // chapter 3
pub mod rounding; // 5.3, which 4.1 needs
pub mod codebook; // chapter 4
pub mod tensor; // chapter 5
pub mod source; // 8.1
pub mod sha256;
pub mod preamble; // 6.1
pub mod canonical; // 6.2
pub mod header; // 6.3, 6.4
pub mod layout; // chapter 7
pub mod document; // 8.1
pub mod verify; // chapter 9
pub mod decode; // 5.3, 5.4
pub mod json;
pub mod serve; // docs/protocol.md
