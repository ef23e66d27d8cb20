//! The macro behind the classes' tables.
//!
//! ```text
//! class! {
//!     "basic" = 60;                                      the class and its id
//!
//!     /// What it is for.
//!     Get = 70 "get" (client -> 71 | 72) {               struct, id, name, who sends it, what answers
//!         /// What the field is for.
//!         queue: ShortString,                            in the order of the wire
//!         no_ack: bool,                                  bits in a row share an octet
//!     }
//!     Publish = 40 "publish" (client, content) { ... }   a content header and a body follow
//!     SecureOk = 21 "secure-ok" (client) {
//!         response: Bytes [secret],                      `Debug` shows only its length
//!     }
//! }
//! ```

macro_rules! class {
    (
        $class:literal = $class_id:literal;
        $(
            $(#[$doc:meta])*
            $method:ident = $id:literal $name:literal
            ($sender:ident $(, $content:ident)? $(-> $($reply:literal)|+)?) {
                $( $(#[$field_doc:meta])* $field:ident: $kind:ty $([$secret:ident])?, )*
            }
        )*
    ) => {
        use $crate::codec::method::{MethodFields, MethodInfo};
        use $crate::codec::wire::{Decoder, Encoder};
        use $crate::codec::{DecodeError, DecodeErrorKind, EncodeError};

        /// The class id.
        pub const CLASS_ID: u16 = $class_id;

        /// Every method of the class.
        pub const ALL: &[MethodInfo] = &[$( <$method as MethodFields>::INFO, )*];

        $(
            $(#[$doc])*
            #[derive(Clone, Default, PartialEq)]
            pub struct $method {
                $( $(#[$field_doc])* pub $field: $kind, )*
            }

            impl std::fmt::Debug for $method {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(stringify!($method))
                        $( .field(stringify!($field), class!(@shown self.$field $(, $secret)?)) )*
                        .finish()
                }
            }

            impl MethodFields for $method {
                const INFO: MethodInfo = MethodInfo {
                    name: concat!($class, ".", $name),
                    class_id: $class_id,
                    method_id: $id,
                    sender: class!(@sender $sender),
                    has_content: class!(@content $($content)?),
                    replies: &[$($($reply),+)?],
                    fields: &[$( (stringify!($field), <$kind as $crate::codec::wire::Field>::TYPE), )*],
                };
            }

            #[cfg(feature = "arbitrary")]
            impl<'a> ::arbitrary::Arbitrary<'a> for $method {
                fn arbitrary(u: &mut ::arbitrary::Unstructured<'a>) -> ::arbitrary::Result<Self> {
                    let _ = &u; // unused in a method without fields
                    Ok(Self { $( $field: <$kind as $crate::codec::wire::Field>::arbitrary(u)?, )* })
                }
            }

            impl From<$method> for $crate::codec::Method {
                fn from(method: $method) -> Self {
                    Method::$method(method).into()
                }
            }
        )*

        #[doc = concat!("Any method of the class ", $class, ".")]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Method {
            $(
                #[doc = concat!("`", $class, ".", $name, "`")]
                $method($method),
            )*
        }

        #[cfg(feature = "arbitrary")]
        impl<'a> ::arbitrary::Arbitrary<'a> for Method {
            fn arbitrary(u: &mut ::arbitrary::Unstructured<'a>) -> ::arbitrary::Result<Self> {
                type Make<'a> = fn(&mut ::arbitrary::Unstructured<'a>) -> ::arbitrary::Result<Method>;
                let all: &[Make<'a>] = &[$( |u| u.arbitrary().map(Method::$method), )*];
                u.choose(all)?(u)
            }
        }

        impl Method {
            pub(crate) fn decode(id: u16, decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let _ = &decoder; // unused in a class whose methods have no fields
                match id {
                    $(
                        $id => Ok(Self::$method($method {
                            $( $field: $crate::codec::wire::Field::decode(
                                decoder,
                                concat!($class, ".", $name, ".", stringify!($field)),
                            )?, )*
                        })),
                    )*
                    _ => Err(DecodeError::new(
                        DecodeErrorKind::UnknownMethod { class: $class_id, method: id },
                        "method id",
                        2,
                    )),
                }
            }

            pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) -> Result<(), EncodeError> {
                match self {
                    $(
                        Self::$method(method) => {
                            $( $crate::codec::wire::Field::encode(
                                &method.$field,
                                encoder,
                                concat!($class, ".", $name, ".", stringify!($field)),
                            )?; )*
                            let _ = (method, encoder);
                            Ok(())
                        }
                    )*
                }
            }

            /// What the table says of this method.
            pub fn info(&self) -> MethodInfo {
                match self {
                    $( Self::$method(_) => <$method as MethodFields>::INFO, )*
                }
            }
        }
    };
    (@sender client) => { $crate::codec::method::Sender::Client };
    (@sender server) => { $crate::codec::method::Sender::Server };
    (@sender both) => { $crate::codec::method::Sender::Both };
    (@shown $field:expr) => { &$field };
    (@shown $field:expr, secret) => { &format_args!("[{} octets]", $field.len()) };
    (@content) => { false };
    (@content content) => { true };
}
