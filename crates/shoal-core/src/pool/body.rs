//! A task as it travels: plain data in a slot of the task ring, readable by any process.

use crate::memory::place::Place;

/// Bytes of arguments that fit into a slot itself.
pub const INLINE: usize = 56;

/// What a task is, as it travels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// The task's number, as the client knows it.
    pub task: u64,
    /// Which function; a worker that has not seen it reads it from `function_at`.
    pub function: u32,
    /// The caller's own tag for how to run it.
    pub kind: u16,
    /// How many bytes of `inline` count, if the payload lies there.
    pub inline_len: u16,
    /// Where the serialized function lies.
    pub function_at: Place,
    /// Where the payload lies, if it does not fit into the slot.
    pub payload_at: Place,
    /// The payload, if it fits.
    pub inline: [u8; INLINE],
}

impl Body {
    /// A body with nothing in it.
    pub const EMPTY: Body = Body {
        task: 0,
        function: 0,
        kind: 0,
        inline_len: 0,
        function_at: Place { segment: 0, offset: 0, len: 0 },
        payload_at: Place { segment: 0, offset: 0, len: 0 },
        inline: [0; INLINE],
    };
}
