//! Class tx (90): transactions over publishes and acknowledgements of one channel.

class! {
    "tx" = 90;

    /// Makes the channel transactional.
    Select = 10 "select" (client -> 11) {}

    /// It is.
    SelectOk = 11 "select-ok" (server) {}

    /// Makes what happened since the last commit count.
    Commit = 20 "commit" (client -> 21) {}

    /// It counts.
    CommitOk = 21 "commit-ok" (server) {}

    /// Forgets what happened since the last commit.
    Rollback = 30 "rollback" (client -> 31) {}

    /// It is forgotten.
    RollbackOk = 31 "rollback-ok" (server) {}
}
