//! Logging in: mechanisms that are built in, those that a program brings, and what is said when it does not work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use leveret::amqp::{Connection, Credentials, FieldTable, Sasl, SaslError, SaslExchange, SaslMechanism};
use leveret::broker::Broker;
use leveret::codec::method::connection;
use leveret::error::ErrorKind;

use crate::scripted::{Peer, Stage, TUNE, start};
use crate::support::{Own, Server, assert_works, within};

on_every_server! {
    /// c11: a server that is not told that its reason would be understood just closes the socket.
    async fn a_wrong_password_is_known_without_a_word(server: Server) {
        let builder = server.builder_as("guest", "hush-hush", "/").client_property("capabilities", FieldTable::new());
        let error = within("a refusal", builder.open()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        assert_eq!(error.reply_code(), None, "{error}");
        assert!(error.to_string().contains("wrong user name or password"), "{error}");
        assert!(!error.is_transient());
    }

    /// The first of those wanted that is offered, whatever the server's order.
    async fn the_preferred_mechanism_is_taken(server: Server) {
        let wanted = [Sasl::External, Sasl::RabbitCrDemo, Sasl::AmqPlain];
        let connection = within("a connection", server.builder().mechanisms(wanted).open()).await.unwrap();
        connection.close().await.unwrap();
        let error = server.builder().mechanisms([]).open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    }
}

on_rabbitmq! {
    /// c8: secure and secure-ok, with a server that has not been written here.
    async fn a_real_server_asks_for_the_password() {
        let server = Own::rabbitmq_with("auth_mechanisms.1 = RABBIT-CR-DEMO\n").await;
        let builder = || server.builder().mechanisms([Sasl::RabbitCrDemo]);
        let connection = within("a connection", builder().open()).await.unwrap();
        assert_eq!(connection.server().mechanisms, ["RABBIT-CR-DEMO"]);
        assert_works(&connection.open_channel().await.unwrap()).await;
        connection.close().await.unwrap();

        let refused = builder().credentials(Credentials::new("guest", "hush-hush")).open();
        let error = within("a refusal", refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        assert_eq!(error.reply_code().map(|code| code.0), Some(403), "{error}");
        let error = within("an error", server.builder().open()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("RABBIT-CR-DEMO, wanted is PLAIN or AMQPLAIN"), "{error}");
        // And the same conversation, led by a mechanism of the program's own.
        let own = Counting::new("RABBIT-CR-DEMO", |round, credentials| match round {
            0 => Ok(credentials.username().to_owned().into()),
            _ => Ok(format!("My password is {}", credentials.secret()).into()),
        });
        let connection = within("a connection", server.builder().sasl(own).open()).await.unwrap();
        connection.close().await.unwrap();
    }

    /// RabbitMQ 4 lets nobody in particular in, as guest. Before that it did not know how, and says what it knows.
    async fn nobody_in_particular_where_that_is_offered(server: Server) {
        let known = server.connect().await.server().mechanisms.clone();
        let opened = within("an answer", server.builder().mechanisms([Sasl::Anonymous]).open()).await;
        if known.iter().any(|name| name == "ANONYMOUS") {
            assert_works(&opened.unwrap().open_channel().await.unwrap()).await;
        } else {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth);
            assert!(known.iter().all(|name| error.to_string().contains(name.as_str())), "{known:?}: {error}");
        }
    }

    /// c16: a token of a size that one RabbitMQ reads and another does not. It is wrong, too, so it is no login with either.
    async fn a_large_token(server: Server) {
        for size in [1000, 3500, 6000, 7800] {
            let builder = server.builder_as("guest", &"hush".repeat(size / 4), "/");
            let error = within("a refusal", builder.open()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{size}: {error}");
            assert!(!error.is_transient() && !error.to_string().contains("hush"), "{size}: {error}");
            if error.reply_code().is_none() {
                assert!(size > 3500 && error.to_string().contains("RabbitMQ before 4.0 takes 4096"), "{size}: {error}");
            }
        }
    }
}

on_its_own! {
    /// c8
    async fn the_broker_asks_for_the_password() {
        let broker = Broker::builder().mechanisms("RABBIT-CR-DEMO").bind("127.0.0.1:0").await.unwrap();
        let builder = || Connection::builder(&broker.url()).unwrap().mechanisms([Sasl::RabbitCrDemo]);
        let connection = within("a connection", builder().open()).await.unwrap();
        assert_works(&connection.open_channel().await.unwrap()).await;
        let refused = builder().credentials(Credentials::new("guest", "hush-hush")).open();
        let error = within("a refusal", refused).await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code().map(|code| code.0)), (ErrorKind::Auth, Some(403)), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    /// c16: an answer to a challenge, too, has to fit into what a server reads at that point. It is not sent.
    async fn an_answer_that_is_too_large() {
        let stage = Stage::new().await;
        let builder = stage.builder().mechanisms([Sasl::RabbitCrDemo]);
        let builder = builder.credentials(Credentials::new("u", "hush".repeat(3000)));
        let (opened, ()) = tokio::join!(builder.open(), async {
            let mut peer = offering(&stage, "RABBIT-CR-DEMO").await;
            expect!(peer, Connection(connection)::StartOk);
            peer.send(0, connection::Secure { challenge: "Please tell me your password".into() }).await;
            expect!(peer, Connection(connection)::Close);
        });
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("connection.secure-ok takes 12023 octets"), "{error}");
    }

    /// c16: as below, with the secret in the answer to a challenge.
    async fn a_large_answer_may_be_what_was_wrong() {
        let stage = Stage::new().await;
        let builder = stage.builder().mechanisms([Sasl::RabbitCrDemo]);
        let (opened, ()) = tokio::join!(builder.credentials(Credentials::new("u", "x".repeat(5000))).open(), async {
            let mut peer = offering(&stage, "RABBIT-CR-DEMO").await;
            expect!(peer, Connection(connection)::StartOk);
            peer.send(0, connection::Secure { challenge: "Please tell me your password".into() }).await;
            expect!(peer, Connection(connection)::SecureOk);
        });
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("RabbitMQ before 4.0 takes 4096"), "{error}");
    }

    async fn nobody_in_particular_logs_in() {
        let broker = Broker::builder().mechanisms("ANONYMOUS EXTERNAL").bind("127.0.0.1:0").await.unwrap();
        for mechanism in [Sasl::Anonymous, Sasl::External] {
            let builder = Connection::builder(&broker.url()).unwrap().mechanisms([mechanism]);
            within("a connection", builder.open()).await.unwrap().close().await.unwrap();
        }
    }

    /// c8: as many rounds as the server likes, by a mechanism that comes before those that are built in.
    async fn a_mechanism_of_ones_own() {
        let stage = Stage::new().await;
        let own = Counting::new("MINE", |round, credentials| Ok(format!("{}-{round}", credentials.username()).into()));
        let rounds = Arc::clone(&own.rounds);
        let (opened, mut peer) = tokio::join!(stage.builder().sasl(own).open(), async {
            let mut peer = offering(&stage, "PLAIN MINE").await;
            let (_, start_ok) = expect!(peer, Connection(connection)::StartOk);
            assert_eq!((start_ok.mechanism, &start_ok.response[..]), ("MINE".into(), &b"guest-0"[..]));
            for round in 1..=3 {
                peer.send(0, connection::Secure { challenge: format!("challenge {round}").into() }).await;
                let (_, secure_ok) = expect!(peer, Connection(connection)::SecureOk);
                assert_eq!(secure_ok.response, format!("guest-{round}"));
            }
            peer.send(0, TUNE).await;
            expect!(peer, Connection(connection)::TuneOk);
            expect!(peer, Connection(connection)::Open);
            peer.send(0, connection::OpenOk::default()).await;
            peer
        });
        assert_eq!(rounds.load(Ordering::Relaxed), 4);
        let connection = opened.unwrap();
        let (closed, ()) = tokio::join!(connection.close(), peer.agree_to_close());
        closed.unwrap();
    }

    /// Its failure is the login's, and the server is not left waiting.
    async fn a_mechanism_that_cannot_go_on() {
        let stage = Stage::new().await;
        let own = Counting::new("MINE", |round, _| match round {
            0 => Ok(bytes::Bytes::new()),
            _ => Err("the server could not prove who it is".into()),
        });
        let (opened, ()) = tokio::join!(stage.builder().sasl(own).open(), async {
            let mut peer = offering(&stage, "MINE").await;
            expect!(peer, Connection(connection)::StartOk);
            peer.send(0, connection::Secure { challenge: "?".into() }).await;
            expect!(peer, Connection(connection)::Close);
        });
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        assert!(error.to_string().contains("MINE") && error.to_string().contains("prove"), "{error}");
    }

    /// c11: in the middle of a challenge, too.
    async fn a_server_that_goes_behind_the_answer_to_its_challenge() {
        let stage = Stage::new().await;
        let builder = stage.builder().mechanisms([Sasl::RabbitCrDemo]);
        let (opened, ()) = tokio::join!(builder.open(), async {
            let mut peer = offering(&stage, "RABBIT-CR-DEMO").await;
            expect!(peer, Connection(connection)::StartOk);
            peer.send(0, connection::Secure { challenge: "Please tell me your password".into() }).await;
            expect!(peer, Connection(connection)::SecureOk);
        });
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Auth);
    }

    /// c16: a login of more than 4096 octets is too large for some servers, which only close the socket.
    async fn a_large_login_may_be_what_was_wrong() {
        let stage = Stage::new().await;
        let builder = stage.builder().credentials(Credentials::new("", "x".repeat(5000)));
        let (opened, ()) = tokio::join!(builder.open(), async {
            let mut peer = offering(&stage, "PLAIN").await;
            expect!(peer, Connection(connection)::StartOk);
        });
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("RabbitMQ before 4.0 takes 4096"), "{error}");
    }
}

/// A peer that has said which mechanisms it has.
async fn offering(stage: &Stage, mechanisms: &'static str) -> Peer {
    let mut peer = stage.accept().await;
    peer.header().await;
    peer.send(0, connection::Start { mechanisms: mechanisms.into(), ..start() }).await;
    peer
}

type Answer = fn(usize, &Credentials) -> Result<bytes::Bytes, SaslError>;

/// A mechanism that knows how often it was asked.
#[derive(Debug)]
struct Counting {
    name: &'static str,
    answer: Answer,
    rounds: Arc<AtomicUsize>,
}

impl Counting {
    fn new(name: &'static str, answer: Answer) -> Self {
        Self { name, answer, rounds: Arc::default() }
    }
}

impl SaslMechanism for Counting {
    fn name(&self) -> &str {
        self.name
    }

    fn start(&self, credentials: &Credentials) -> Box<dyn SaslExchange> {
        let Self { answer, rounds, .. } = self;
        Box::new(Round { credentials: credentials.clone(), answer: *answer, rounds: Arc::clone(rounds) })
    }
}

struct Round {
    credentials: Credentials,
    answer: Answer,
    rounds: Arc<AtomicUsize>,
}

impl SaslExchange for Round {
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<bytes::Bytes, SaslError> {
        let round = self.rounds.load(Ordering::Relaxed);
        assert_eq!(challenge.is_none(), round == 0);
        self.rounds.store(round + 1, Ordering::Relaxed);
        (self.answer)(round, &self.credentials)
    }
}
