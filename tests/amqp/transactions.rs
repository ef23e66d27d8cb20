//! Transactions: what is published and acked counts at the commit.

use leveret::error::ErrorKind;

use crate::support::{Server, assert_channel_closed, assert_works, exclusive_queue, number, ready, until};

on_every_server! {
    /// c103
    async fn commit_and_rollback(server: Server) {
        let connection = server.connect().await;
        let (channel, watcher) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        let queue = exclusive_queue(&channel).await;
        channel.tx_select().await.unwrap();
        channel.tx_commit().await.expect("nothing is easily committed");
        for n in 0..3u32 {
            let confirm = channel.basic_publish("", &queue, n.to_string()).await.unwrap();
            assert_eq!(confirm.await.unwrap(), leveret::amqp::Confirmation::NotRequested);
        }
        assert_works(&channel).await;
        assert_eq!(ready(&watcher, &queue).await, 0, "nothing counts before the commit");
        channel.tx_commit().await.unwrap();
        assert_eq!(ready(&watcher, &queue).await, 3);

        drop(channel.basic_publish("", &queue, "forgotten").await.unwrap());
        channel.tx_rollback().await.unwrap();
        channel.tx_commit().await.unwrap();
        assert_eq!(ready(&watcher, &queue).await, 3);
    }

    /// c103: acks wait for the commit as well.
    async fn acks_in_a_transaction(server: Server) {
        let (channel, other, queue) = server.filled(0..3).await;
        channel.tx_select().await.unwrap();
        let first = channel.basic_get(&queue).await.unwrap().unwrap().delivery;
        assert_eq!(number(&first), 0);
        first.ack().unwrap();
        channel.tx_commit().await.unwrap();
        let second = channel.basic_get(&queue).await.unwrap().unwrap().delivery;
        second.ack().unwrap();
        channel.close().await.unwrap();
        // The server puts it back in its own time.
        until("the ack that was never committed to be forgotten", async || ready(&other, &queue).await == 2).await;
    }

    /// c103
    async fn a_commit_needs_a_select(server: Server) {
        let connection = server.connect().await;
        assert_channel_closed(&connection.open_channel().await.unwrap().tx_commit().await.unwrap_err(), 406);
        assert_channel_closed(&connection.open_channel().await.unwrap().tx_rollback().await.unwrap_err(), 406);
    }

    /// c98: refused here, so that the channel stays usable.
    async fn transactions_and_confirms_exclude_each_other(server: Server) {
        let connection = server.connect().await;
        let transactional = connection.open_channel().await.unwrap();
        transactional.tx_select().await.unwrap();
        assert_eq!(transactional.confirm_select().await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_works(&transactional).await;
        let confirming = connection.open_channel().await.unwrap();
        confirming.confirm_select().await.unwrap();
        assert_eq!(confirming.tx_select().await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_works(&confirming).await;
    }
}
