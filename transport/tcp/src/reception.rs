//! From bytes to frames: one connection's input.

use crate::buffer::Buffer;
use crate::frame::{self, CONTROL, Expected, FrameError, HEADER, Header};

/// Bytes that a connection takes before its other end has introduced itself.
pub const BEFORE_HELLO: usize = HEADER + CONTROL;

/// Bytes as they came, cut into frames. Its memory is allocated twice: little for a stranger, the rest for a peer.
///
/// The default has no memory at all.
#[derive(Debug, Default)]
pub struct Reception {
    input: Buffer,
    expected: Expected,
}

impl Reception {
    /// For a connection whose other end has yet to introduce itself.
    pub fn new() -> Self {
        Self { input: Buffer::new(BEFORE_HELLO), expected: Expected::default() }
    }

    /// Terms were agreed upon: frames of this version, data of at most `longest` bytes, `capacity` bytes of memory.
    pub fn agreed(&mut self, version: u16, longest: usize, capacity: usize) {
        self.expected = Expected { version: Some(version), longest };
        self.input.grow(capacity.max(HEADER + longest.max(CONTROL)));
    }

    /// Where the next bytes go; [`filled`](Self::filled) says how many came.
    pub fn vacant(&mut self) -> &mut [u8] {
        self.input.vacant()
    }

    /// This many bytes were written to [`vacant`](Self::vacant).
    pub fn filled(&mut self, count: usize) {
        self.input.advance(count);
    }

    /// The first frame, if it is whole; it stays until it is [`consumed`](Self::consume).
    ///
    /// # Errors
    /// If what came is not an expected frame.
    pub fn first(&self) -> Result<Option<(Header, &[u8])>, FrameError> {
        let bytes = self.input.filled();
        let Some(header) = frame::header(bytes, &self.expected)? else {
            return Ok(None);
        };
        Ok(frame::body(bytes, &header)?.map(|body| (header, body)))
    }

    /// The first frame was dealt with.
    pub fn consume(&mut self, header: &Header) {
        self.input.consume(HEADER + header.length);
    }

    /// The connection has ended: what is left must not be part of a frame.
    ///
    /// # Errors
    /// If it is.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.input.is_empty() { Ok(()) } else { Err(FrameError::Truncated { found: self.input.len() }) }
    }
}
