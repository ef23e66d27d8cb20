//! How a client is, at a glance.

/// How a client is at the moment.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientState {
    /// Not connected: nobody has needed it yet.
    Idle,
    /// On the way.
    Connecting,
    /// Connected.
    Open,
    /// Connected, and the server takes no messages (`connection.blocked`). Deliveries and heartbeats come as before; what is sent may be
    /// read only when the server takes messages again, acks included (see [`Client`](super::Client)).
    Blocked,
    /// The connection was lost, and receivers are being started again; see [`RecoveryPolicy`](super::RecoveryPolicy).
    Recovering,
    /// The connection was lost. The next use connects again.
    Lost,
    /// Closed on this side, for good.
    Closed,
}
