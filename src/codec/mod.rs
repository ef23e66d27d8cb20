//! The alphabet: bytes to frames, methods, properties and tables, and back. No state, no I/O, no clock.
//!
//! Everything in this room is a pure function of its input:
//!
//! * [`Frame`] and [`RawFrame`]: the envelope (type, channel, size, payload, end octet);
//! * [`method`]: the 66 methods of AMQP 0-9-1 with RabbitMQ's extensions, one file per class;
//! * [`ContentHeader`] and [`Properties`]: what stands before a message's body;
//! * [`FieldTable`] and [`FieldValue`]: headers and arguments, in RabbitMQ's dialect of the field types;
//! * [`ReplyCode`]: why somebody closed something;
//! * [`UncheckedFrame`]: the door for testers, through which illegal frames are built, written and read;
//! * with the feature `arbitrary`, `Arbitrary` for all of them, to fuzz a broker or a client of one's own with.
//!
//! Decoding takes [`bytes::Bytes`] and hands out slices of it without copying. Encoding appends to a `Vec<u8>` that the
//! caller owns and reuses. **No input makes this room panic**, and nothing is allocated on the word of a length field:
//! a length is compared with the bytes that are really there first. A [`DecodeError`] says what was being read, at which
//! offset, and why it failed; an [`EncodeError`] says which field cannot be written.

#[cfg(feature = "arbitrary")]
pub(crate) mod arbitrary;
mod content;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod method;
mod properties;
mod protocol_header;
mod reply_code;
mod short_string;
mod table;
mod unchecked;
mod view;
mod wire;

pub use content::ContentHeader;
pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub(crate) use frame::{FRAME_HEAD, body_head, check_frame_end, frame_head, write_frame};
pub use frame::{FRAME_OVERHEAD, Frame, FrameType, RawFrame};
pub use method::Method;
pub use properties::{Properties, PropertyInfo, RawProperties};
pub use protocol_header::ProtocolHeader;
pub use reply_code::ReplyCode;
pub use short_string::ShortString;
pub use table::{FieldArray, FieldTable, FieldValue, MAX_DEPTH};
pub use unchecked::UncheckedFrame;
pub(crate) use view::{AckView, DeliverView, short_string};
pub use wire::FieldType;
pub(crate) use wire::{Encoder, write_short_string};
