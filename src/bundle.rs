//! The file format: bytes in, values out.
