//! Messages in every shape of frames.
