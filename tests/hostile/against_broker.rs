//! What a client can do to the broker.
pub(crate) fn cases() -> Vec<u8> {
    vec![0; 100]
}
