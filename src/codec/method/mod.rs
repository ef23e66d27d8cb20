//! The methods of AMQP 0-9-1 with RabbitMQ's extensions: one file per class, each a table that reads like the specification.
//!
//! Every class has a module with a struct per method and an enum `Method` over them; [`Method`] here is the enum over the
//! classes. Reserved fields are kept, so that what was decoded encodes to the same octets.

#[macro_use]
mod table;

pub mod access;
pub mod basic;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod exchange;
pub mod queue;
pub mod tx;

use bytes::Bytes;

use super::wire::{Decoder, Encoder, Field, FieldType};
use super::{DecodeError, DecodeErrorKind, EncodeError};

/// What the table of a class says of a method: for tools, tests and fuzzers that walk all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// The class's name and the method's, with a dot between: `basic.publish`.
    pub name: &'static str,
    /// The class id.
    pub class_id: u16,
    /// The method id.
    pub method_id: u16,
    /// Who may send it.
    pub sender: Sender,
    /// Whether a content header and a body follow.
    pub has_content: bool,
    /// The ids of the methods of the same class that answer it; empty when nothing does.
    pub replies: &'static [u16],
    /// The fields in the order of the wire, with the names of the Rust fields.
    pub fields: &'static [(&'static str, FieldType)],
}

/// Which side of a connection may send a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Only the client.
    Client,
    /// Only the server.
    Server,
    /// Both.
    Both,
}

/// A method that knows its place in the protocol.
pub trait MethodFields: Into<Method> {
    /// What the table says of it.
    const INFO: MethodInfo;
}

macro_rules! classes {
    ($( $class:ident($module:ident), )*) => {
        /// Any method.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Method {
            $(
                #[doc = concat!("A method of the class ", stringify!($module), ".")]
                $class($module::Method),
            )*
        }

        impl Method {
            /// Decodes the payload of a method frame. Octets behind the last field are ignored, as RabbitMQ's peers do.
            ///
            /// # Errors
            ///
            /// The payload is too short, or names a method that does not exist.
            pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
                let mut decoder = Decoder::new(payload);
                let class = u16::decode(&mut decoder, "class id")?;
                let method = u16::decode(&mut decoder, "method id")?;
                match class {
                    $( $module::CLASS_ID => $module::Method::decode(method, &mut decoder).map(Self::$class), )*
                    _ => Err(DecodeError::new(DecodeErrorKind::UnknownMethod { class, method }, "class id", 0)),
                }
            }

            /// Appends the payload of a method frame. When a field cannot be written, `out` may hold a part of it.
            ///
            /// # Errors
            ///
            /// A string or a table is longer than its length field can say.
            pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                let info = self.info();
                let mut encoder = Encoder::new(out);
                info.class_id.encode(&mut encoder, "class id")?;
                info.method_id.encode(&mut encoder, "method id")?;
                match self {
                    $( Self::$class(method) => method.encode(&mut encoder), )*
                }
            }

            /// What the tables say of this method.
            pub fn info(&self) -> MethodInfo {
                match self {
                    $( Self::$class(method) => method.info(), )*
                }
            }
        }

        #[cfg(feature = "arbitrary")]
        impl<'a> ::arbitrary::Arbitrary<'a> for Method {
            fn arbitrary(u: &mut ::arbitrary::Unstructured<'a>) -> ::arbitrary::Result<Self> {
                type Make<'a> = fn(&mut ::arbitrary::Unstructured<'a>) -> ::arbitrary::Result<Method>;
                let all: &[Make<'a>] = &[$( |u| u.arbitrary().map(Method::$class), )*];
                u.choose(all)?(u)
            }
        }

        $(
            impl From<$module::Method> for Method {
                fn from(method: $module::Method) -> Self {
                    Self::$class(method)
                }
            }
        )*

        /// Every method, by class.
        pub const ALL: &[&[MethodInfo]] = &[$( $module::ALL, )*];
    };
}

classes! {
    Connection(connection),
    Channel(channel),
    Access(access),
    Exchange(exchange),
    Queue(queue),
    Basic(basic),
    Confirm(confirm),
    Tx(tx),
}

#[cfg(test)]
mod tests;
