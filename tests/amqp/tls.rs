//! TLS between the client and the broker in the box, with a server's side by another provider in between: whom the client
//! trusts, who it is, and what it says when that does not work out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leveret::amqp::rustls::client::WebPkiServerVerifier;
use leveret::amqp::rustls::crypto::{CryptoProvider, ring};
use leveret::amqp::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use leveret::amqp::rustls::server::{Acceptor, ServerConfig, WebPkiClientVerifier};
use leveret::amqp::rustls::{
    CertificateError, ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion, WantsVerifier, version,
};
use leveret::amqp::{Config, Confirmation, Connection, ConnectionBuilder, TlsConfig, TlsVersion};
use leveret::broker::Broker;
use leveret::error::{Error, ErrorKind, Origin, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::certificates::{Authority, Folder, Pair, expired, not_yet_valid};
use crate::support::{assert_works, exclusive_queue, next, ready, unique, until, within};

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];
pub(crate) const ONLY_12: &[&SupportedProtocolVersion] = &[&version::TLS12];
pub(crate) const ONLY_13: &[&SupportedProtocolVersion] = &[&version::TLS13];

// ------------------------------------------------------------------------------------------------------------- servers

/// A broker behind TLS, and an authority that has issued its certificate.
pub(crate) struct Stage {
    authority: Authority,
    broker: Arc<Broker>,
    port: u16,
}

impl Stage {
    /// With a certificate for `localhost` and 127.0.0.1.
    async fn new() -> Self {
        let authority = Authority::new("the authority");
        let pair = authority.server(&["localhost", "127.0.0.1"]);
        Self::with(authority, &pair, BOTH, None).await
    }

    /// With a certificate that is not as it should be.
    async fn flawed(pair: impl FnOnce(&Authority) -> Pair) -> Self {
        let authority = Authority::new("the authority");
        let pair = pair(&authority);
        Self::with(authority, &pair, BOTH, None).await
    }

    /// That lets clients in only if this authority has issued their certificates.
    pub(crate) async fn for_clients_of(clients: &Authority, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let authority = Authority::new("the authority");
        let pair = authority.server(&["localhost"]);
        Self::with(authority, &pair, versions, Some(clients)).await
    }

    pub(crate) async fn with(
        authority: Authority,
        pair: &Pair,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> Self {
        let broker = Arc::new(Broker::start().await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = acceptor(pair, versions, clients);
        let behind = Arc::clone(&broker);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let (acceptor, behind) = (acceptor.clone(), Arc::clone(&behind));
                tokio::spawn(async move {
                    let mut outside = acceptor.accept(socket).await?;
                    tokio::io::copy_bidirectional(&mut outside, &mut behind.connect()).await
                });
            }
        });
        Self { authority, broker, port }
    }

    /// To `localhost`, with an `amqps://` URL.
    fn builder(&self) -> ConnectionBuilder {
        Connection::builder(&format!("amqps://guest:guest@localhost:{}/%2f", self.port)).unwrap()
    }

    /// Trusts the server's authority.
    pub(crate) fn tls(&self) -> TlsConfig {
        TlsConfig::new().root_pem(&self.authority.pem)
    }

    async fn open(&self, tls: TlsConfig) -> Result<Connection> {
        within("a connection or an error", self.builder().tls(tls).open()).await
    }

    pub(crate) async fn opens(&self, tls: TlsConfig) {
        let connection = self.open(tls).await.unwrap();
        assert_works(&connection.open_channel().await.unwrap()).await;
        connection.close().await.unwrap();
    }

    #[track_caller]
    pub(crate) fn refuses(&self, tls: TlsConfig, words: &[&str]) -> impl Future<Output = Error> {
        let caller = std::panic::Location::caller();
        async move {
            let error = self.open(tls).await.unwrap_err();
            assert_tls(&error, words, caller);
            error
        }
    }
}

fn acceptor(pair: &Pair, versions: &[&'static SupportedProtocolVersion], clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(clients)), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from(pair.certificate_der.clone())];
    let key = PrivateKeyDer::try_from(pair.key_der.clone()).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone().into()).unwrap();
    roots
}

fn client_config() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().unwrap()
}

fn assert_tls(error: &Error, words: &[&str], caller: &std::panic::Location<'_>) {
    assert_eq!(error.kind(), ErrorKind::Tls, "{caller}: {error}");
    assert_eq!(error.origin(), Origin::Caller);
    assert!(!error.is_transient(), "{caller}: trying again does not help");
    for words in words {
        assert!(error.to_string().contains(words), "{caller}: {words:?} is not in: {error}");
    }
}

/// What is wrong with settings, found without connecting.
#[track_caller]
fn assert_useless(tls: &TlsConfig, words: &[&str]) {
    assert_tls(&tls.check().unwrap_err(), words, std::panic::Location::caller());
}

// --------------------------------------------------------------------------------------------------------- that it works

on_its_own! {
    async fn an_amqps_url_and_a_root_are_enough() {
        let stage = Stage::new().await;
        let folder = Folder::new();
        stage.opens(TlsConfig::new().root_file(folder.file("ca.pem", &stage.authority.pem))).await;
        stage.opens(TlsConfig::new().root_pem(&stage.authority.pem)).await;
        stage.opens(TlsConfig::new().root_der(stage.authority.der.clone())).await;
        let both = Authority::new("somebody else").pem + &stage.authority.pem;
        stage.opens(TlsConfig::new().root_pem(both)).await;
        assert!(CryptoProvider::get_default().is_none(), "nobody has installed a provider for the process");
    }

    async fn both_versions_are_spoken() {
        for (theirs, ours) in [(ONLY_12, TlsVersion::Tls12), (ONLY_13, TlsVersion::Tls13)] {
            let authority = Authority::new("the authority");
            let pair = authority.server(&["localhost"]);
            let stage = Stage::with(authority, &pair, theirs, None).await;
            stage.opens(stage.tls()).await;
            stage.opens(stage.tls().versions([ours])).await;
            let other = if ours == TlsVersion::Tls12 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
            stage.refuses(stage.tls().versions([other]), &["none of the TLS versions"]).await;
        }
    }

    /// RabbitMQ's names, and those of configuration files.
    async fn urls_and_configs_say_it_all() {
        let clients = Authority::new("the clients' authority");
        let authority = Authority::new("the authority");
        let stage = Stage::with(Authority::new("unused"), &authority.server(&["hare.example"]), BOTH, Some(&clients)).await;
        let (pair, folder) = (clients.client("hare"), Folder::new());
        folder.file("ca.pem", &authority.pem);
        folder.file("c.pem", &pair.certificate);
        folder.file("k.pem", &pair.key);
        let dir = folder.path().display();
        let client = format!("certfile={dir}/c.pem&keyfile={dir}/k.pem");
        let url = format!("amqps://localhost:{}?{client}", stage.port);
        let all = format!("{url}&cacertfile={dir}/ca.pem&server_name_indication=hare.example");
        let config = serde_json::json!({
            "host": "127.0.0.1",
            "port": stage.port,
            "tls": {
                "ca_cert_file": format!("{dir}/ca.pem"), "cert_file": format!("{dir}/c.pem"),
                "key_file": format!("{dir}/k.pem"), "server_name": "hare.example",
            }
        });
        for config in [
            Config::from_url(&all).unwrap(),
            Config::from_url(&format!("{url}&verify=verify_none")).unwrap(),
            serde_json::from_value(config).unwrap(),
        ] {
            within("a connection", Connection::open_config(&config)).await.unwrap().close().await.unwrap();
        }
        for (url, words) in [
            (format!("{url}&cacertfile={dir}/ca.pem"), "not for the name localhost"),
            (url.replace("k.pem", "none.pem"), "none.pem cannot be read"),
            (url.replace("k.pem", "c.pem"), "there is no private key"),
        ] {
            let error = within("an error", Connection::open(&url)).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Tls && error.to_string().contains(words), "{error}");
        }
        folder.file("k.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        let error = within("an error", Connection::open(&format!("{all}&password=hush"))).await.unwrap_err();
        assert_tls(&error, &["k.pem is encrypted"], std::panic::Location::caller());
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    /// Another host may have a better certificate; each is asked for its own name.
    async fn of_several_hosts_one_with_a_good_certificate_will_do() {
        let authority = Authority::new("the authority");
        let bad = authority.server_with(&["localhost"], expired);
        let bad = Stage::with(Authority::new("unused"), &bad, BOTH, None).await;
        let good = Stage::with(Authority::new("unused"), &authority.server(&["127.0.0.1"]), BOTH, None).await;
        let tls = TlsConfig::new().root_pem(&authority.pem);
        let builder = |second: &str| {
            let url = format!("amqps://localhost:{},{second}:{}", bad.port, good.port);
            Connection::builder(&url).unwrap().tls(tls.clone())
        };
        within("a connection", builder("127.0.0.1").open()).await.unwrap().close().await.unwrap();
        let error = within("an error", builder("localhost").open()).await.unwrap_err();
        assert_tls(&error, &["expired on 2002-03-04", "not for the name localhost"], std::panic::Location::caller());
    }

    /// An `amqp://` URL does not stand in the way.
    async fn tls_can_be_asked_for_without_the_scheme() {
        let stage = Stage::new().await;
        let builder = Connection::builder(&format!("amqp://localhost:{}", stage.port)).unwrap();
        within("a connection", builder.tls(stage.tls()).open()).await.unwrap().close().await.unwrap();
        let builder = ConnectionBuilder::default().port(stage.port).tls(stage.tls());
        within("a connection", builder.open()).await.unwrap().close().await.unwrap();
    }

    /// Much more than TLS keeps to itself, in both directions at once.
    async fn large_messages_go_through() {
        let stage = Stage::new().await;
        let connection = stage.open(stage.tls()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        let bodies: Vec<Vec<u8>> = (0..8_u8).map(|n| vec![n; 1 << (7 + 2 * n)]).collect();
        let publisher = async {
            for body in &bodies {
                let confirm = channel.basic_publish("", &queue, body.clone()).mandatory(true).await.unwrap();
                assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
            }
        };
        let reader = async {
            for body in &bodies {
                let delivery = next(&mut consumer).await;
                assert!(delivery.body() == body, "{} octets", body.len());
                delivery.ack().unwrap();
            }
        };
        tokio::join!(publisher, reader);
        connection.close().await.unwrap();
    }

    /// What TLS has taken and the socket has not leaves as soon as there is room, though nothing is written behind it.
    async fn nothing_stays_behind_in_tls() {
        let authority = Authority::new("the authority");
        let acceptor = acceptor(&authority.server(&["localhost"]), BOTH, None);
        let broker = Broker::start().await.unwrap();
        let (gate, mut open) = tokio::sync::watch::channel(true);
        let (ours, theirs) = leveret::transport::Stream::pipe();
        let (mut answers, mut requests) = tokio::io::split(broker.connect());
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(acceptor.accept(theirs).await.unwrap());
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut writer).await });
            let mut octets = vec![0; 1024];
            loop {
                open.wait_for(|open| *open).await.unwrap();
                let read = reader.read(&mut octets).await.unwrap();
                requests.write_all(&octets[..read]).await.unwrap();
            }
        });
        let builder = Connection::builder("amqps://localhost").unwrap().tls(TlsConfig::new().root_pem(&authority.pem));
        let connection = within("a connection", builder.open_with(ours)).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let witness = Connection::open(&broker.url()).await.unwrap().open_channel().await.unwrap();
        let queue = unique("queue");
        witness.queue_declare(&queue).await.unwrap();
        // The pipe holds 256 KiB, and TLS up to 64 KiB.
        for (messages, size) in (260..330).step_by(10).enumerate() {
            gate.send(false).unwrap();
            drop(channel.basic_publish("", &queue, vec![7; size << 10]).await.unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
            gate.send(true).unwrap();
            let arrived = u32::try_from(messages).unwrap() + 1;
            until("the message", async || ready(&witness, &queue).await == arrived).await;
        }
        connection.close().await.unwrap();
    }

    /// TLS inside of whatever else is there.
    async fn tls_goes_over_a_stream_that_is_there_already() {
        let authority = Authority::new("the authority");
        let acceptor = acceptor(&authority.server(&["hare.example"]), BOTH, None);
        let broker = Broker::start().await.unwrap();
        let (ours, theirs) = leveret::transport::Stream::pipe();
        let mut behind = broker.connect();
        tokio::spawn(async move {
            tokio::io::copy_bidirectional(&mut acceptor.accept(theirs).await?, &mut behind).await
        });
        let builder = Connection::builder("amqps://hare.example").unwrap().tls(TlsConfig::new().root_pem(&authority.pem));
        let connection = within("a connection", builder.open_with(ours)).await.unwrap();
        assert_works(&connection.open_channel().await.unwrap()).await;
        connection.close().await.unwrap();
    }

    /// A connection that was open and breaks is what it is without TLS.
    async fn the_end_of_an_open_connection_is_nothing_special() {
        let stage = Stage::new().await;
        let connection = stage.open(stage.tls()).await.unwrap();
        stage.broker.drop_connections();
        let error = within("the end", connection.closed()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.is_transient());
        assert_eq!(error.to_string(), "the peer closed the connection without a word");
    }
}

// ------------------------------------------------------------------------------------------------------ whom to trust

on_its_own! {
    async fn an_authority_that_is_not_trusted() {
        let stage = Stage::new().await;
        let stranger = Authority::new("somebody else");
        let error = stage.refuses(TlsConfig::new().root_pem(&stranger.pem), &["not trusted", "TlsConfig::root_file"]).await;
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.is::<rustls::Error>(), "for programs that want to know exactly");
        // The platform's roots do not know it either, or there are none.
        stage.refuses(TlsConfig::new(), &["TlsConfig::root_file"]).await;
        let error = within("an error", stage.builder().open()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        stage.opens(stage.tls().platform_roots()).await;
    }

    /// Same name, another key: the signature does not fit.
    async fn an_authority_of_the_same_name() {
        let stage = Stage::new().await;
        stage.refuses(TlsConfig::new().root_pem(Authority::new("the authority").pem), &["certificate"]).await;
    }

    /// Mozilla's authorities know no private one, whatever it calls itself; and they do not stand in the way of one that is named.
    async fn the_authorities_that_are_compiled_in() {
        let mozilla = || TlsConfig::new().webpki_roots();
        let stage = Stage::new().await;
        let error = stage.refuses(mozilla(), &["authority that is not trusted here", "TlsConfig::root_file"]).await;
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<rustls::Error>());
        assert_eq!(source, Some(&rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)));
        stage.opens(mozilla().root_pem(&stage.authority.pem)).await;

        let impostor = Authority::impostor();
        let pair = impostor.server(&["localhost"]);
        let stage = Stage::with(impostor, &pair, BOTH, None).await;
        let error = stage.refuses(mozilla(), &["the server's certificate"]).await;
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<rustls::Error>());
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_ne!(source, Some(&unknown), "the name is known, the signature is not that of its key: {error}");
        stage.opens(mozilla().root_pem(&stage.authority.pem)).await;
    }

    async fn a_certificate_that_has_expired() {
        let stage = Stage::flawed(|authority| authority.server_with(&["localhost"], expired)).await;
        stage.refuses(stage.tls(), &["expired on 2002-03-04 00:00:00 UTC", "this machine's clock"]).await;
    }

    async fn a_certificate_that_is_not_valid_yet() {
        let stage = Stage::flawed(|authority| authority.server_with(&["localhost"], not_yet_valid)).await;
        stage.refuses(stage.tls(), &["not valid before 2998-05-06", "this machine's clock"]).await;
    }

    async fn a_certificate_for_another_name() {
        let stage = Stage::flawed(|authority| authority.server(&["hare.example", "*.tortoise.example", "192.0.2.1"])).await;
        let names = "is for hare.example, *.tortoise.example, 192.0.2.1, not for the name localhost";
        stage.refuses(stage.tls(), &[names, "TlsConfig::server_name"]).await;
        stage.refuses(stage.tls().server_name("127.0.0.1"), &["not for the name 127.0.0.1"]).await;
        for name in ["hare.example", "a.tortoise.example", "192.0.2.1"] {
            stage.opens(stage.tls().server_name(name)).await;
        }
        let error = stage.refuses(stage.tls().server_name("no name"), &["\"no name\"", "neither a DNS name"]).await;
        assert!(std::error::Error::source(&error).is_none());
    }

    async fn a_certificate_for_no_name() {
        let stage = Stage::flawed(|authority| authority.server(&[])).await;
        stage.refuses(stage.tls(), &["no subject alternative names"]).await;
    }

    async fn addresses_are_names_too() {
        let stage = Stage::new().await;
        let builder = stage.builder().host("127.0.0.1").tls(stage.tls());
        within("a connection", builder.open()).await.unwrap().close().await.unwrap();
        stage.refuses(stage.tls().server_name("::1"), &["is for localhost, 127.0.0.1, not for the name ::1"]).await;
    }

    async fn a_certificate_for_clients() {
        let stage = Stage::flawed(|authority| authority.client("localhost")).await;
        stage.refuses(stage.tls().server_name("localhost"), &["certificate"]).await;
        let stage = Stage::flawed(|authority| {
            authority.server_with(&["localhost"], |params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            })
        })
        .await;
        stage.refuses(stage.tls(), &["not meant for servers"]).await;
    }

    async fn a_certificate_that_was_revoked() {
        let number = rcgen::SerialNumber::from(77_u64);
        let its = number.clone();
        let stage = Stage::flawed(|authority| {
            authority.server_with(&["localhost"], |params| params.serial_number = Some(its))
        })
        .await;
        stage.opens(stage.tls()).await;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&stage.authority)), provider)
            .with_crls([stage.authority.revoke(number).into()])
            .build()
            .unwrap();
        let config = client_config().with_webpki_verifier(verifier).with_no_client_auth();
        stage.refuses(TlsConfig::from_client_config(Arc::new(config)), &["was revoked"]).await;
    }

    /// The name is told to servers that have several (SNI), an address is not; and ALPN is used by those who ask for it.
    async fn what_the_server_is_told() {
        let own = |protocols: &[&[u8]]| {
            let mut config = client_config().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            TlsConfig::from_client_config(Arc::new(config))
        };
        let any = || TlsConfig::new().danger_accept_any_certificate();
        for (host, tls, name, protocols) in [
            ("localhost", any(), Some("localhost"), &[][..]),
            ("127.0.0.1", any(), None, &[]),
            ("127.0.0.1", any().server_name("hare.example"), Some("hare.example"), &[]),
            ("localhost", any().server_name("127.0.0.1"), None, &[]),
            ("localhost", own(&[]), Some("localhost"), &[]),
            ("localhost", own(&[b"amqp", b"x"]), Some("localhost"), &[&b"amqp"[..], b"x"]),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let builder = Connection::builder(&format!("amqps://{host}:{port}")).unwrap().tls(tls);
            let (opened, ()) = tokio::join!(within("an error", builder.open()), async {
                let (socket, _) = listener.accept().await.unwrap();
                let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await.unwrap();
                let hello = hello.client_hello();
                assert_eq!(hello.server_name(), name, "{host}");
                let offered: Vec<&[u8]> = hello.alpn().into_iter().flatten().collect();
                assert_eq!(offered, protocols, "{host}");
            });
            opened.unwrap_err();
        }
    }

    async fn danger_takes_any_certificate() {
        let stage = Stage::flawed(|authority| authority.server_with(&["hare.example"], expired)).await;
        stage.opens(TlsConfig::new().danger_accept_any_certificate()).await;
        stage.opens(TlsConfig::new().danger_accept_any_certificate().versions([TlsVersion::Tls12])).await;
    }

    async fn somebody_elses_configuration_and_cryptography() {
        let stage = Stage::new().await;
        let config = Arc::new(client_config().with_root_certificates(roots(&stage.authority)).with_no_client_auth());
        let tls = TlsConfig::from_client_config(config);
        stage.opens(tls.clone()).await;
        stage.opens(tls.clone().server_name("127.0.0.1")).await;
        stage.refuses(tls.clone().server_name("hare.example"), &["not for the name hare.example"]).await;
        let error = stage.open(tls.root_pem(&stage.authority.pem)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        stage.opens(stage.tls().provider(ring::default_provider())).await;
    }
}

/// In a process of its own, since the environment names the roots.
#[test]
fn the_platforms_roots_are_those_that_the_environment_names() {
    const URL: &str = "LEVERET_TEST_TLS_URL";
    crate::support::run(async {
        if let Ok(url) = std::env::var(URL) {
            Connection::open(&url).await.unwrap().close().await.unwrap();
            return;
        }
        let stage = Stage::new().await;
        let folder = Folder::new();
        let roots = folder.file("roots.pem", &stage.authority.pem);
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "tls::the_platforms_roots_are_those_that_the_environment_names"]);
        child.env_remove("SSL_CERT_DIR").env(URL, format!("amqps://guest:guest@localhost:{}/%2f", stage.port));
        let trusting = child.env("SSL_CERT_FILE", roots).output();
        assert!(within("the other process", trusting).await.unwrap().status.success());
        let none = folder.file("none.pem", "");
        let output = within("the other process", child.env("SSL_CERT_FILE", none).output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("this machine has no root certificates"), "{said}");
    });
}

// ------------------------------------------------------------------------------------------------------------ who to be

on_its_own! {
    async fn a_client_certificate_in_every_form() {
        let clients = Authority::new("the clients' authority");
        for versions in [ONLY_12, ONLY_13] {
            let stage = Stage::for_clients_of(&clients, versions).await;
            let (pair, folder) = (clients.client("hare"), Folder::new());
            let (certificate, key) = (folder.file("c.pem", &pair.certificate), folder.file("k.pem", &pair.key));
            stage.opens(stage.tls().client_certificate_files(certificate, key)).await;
            let both = folder.file("both.pem", format!("{}{}", pair.key, pair.certificate));
            stage.opens(stage.tls().client_certificate_files(&both, &both)).await;
            stage.opens(stage.tls().client_certificate_pem(&pair.certificate, &pair.key)).await;
            stage.opens(stage.tls().client_certificate_der([pair.certificate_der], pair.key_der)).await;
        }
    }

    /// With TLS 1.2 in the handshake, with 1.3 where `connection.start` was due.
    async fn no_client_certificate_where_one_is_wanted() {
        let clients = Authority::new("the clients' authority");
        for versions in [ONLY_12, ONLY_13] {
            let stage = Stage::for_clients_of(&clients, versions).await;
            let words = ["the server wants a client certificate, and none was sent", "client_certificate_files"];
            stage.refuses(stage.tls(), &words).await;
        }
    }

    async fn a_client_certificate_that_is_refused() {
        let clients = Authority::new("the clients' authority");
        let pair = Authority::new("somebody else").client("hare");
        for versions in [ONLY_12, ONLY_13] {
            let stage = Stage::for_clients_of(&clients, versions).await;
            let tls = stage.tls().client_certificate_pem(&pair.certificate, &pair.key);
            stage.refuses(tls, &["refused the client certificate", "authority that it does not trust"]).await;
        }
    }

    /// Nobody listens, and that is not what the error says.
    async fn files_are_looked_at_before_anybody_is_called() {
        let (one, other) = (Authority::new("one").client("hare"), Authority::new("one").client("hare"));
        let folder = Folder::new();
        let (certificate, key) = (folder.file("hare.pem", &one.certificate), folder.file("other.key", &other.key));
        let tls = TlsConfig::new().root_pem(&one.certificate).client_certificate_files(&certificate, &key);
        let builder = Connection::builder("amqps://127.0.0.1:1").unwrap().tls(tls);
        let error = within("an error", builder.open()).await.unwrap_err();
        let words = ["other.key does not belong to the certificate in", "hare.pem"];
        assert_tls(&error, &words, std::panic::Location::caller());
    }
}

#[test]
fn keys_that_are_encrypted_are_refused() {
    let pair = Authority::new("the authority").client("hare");
    let with = |key: &str| TlsConfig::new().root_pem(&pair.certificate).client_certificate_pem(&pair.certificate, key);
    let words = ["is encrypted", "openssl pkey"];
    assert_useless(&with("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), &words);
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n";
    assert_useless(&with(&format!("{old}-----END RSA PRIVATE KEY-----\n")), &words);
    for length in [&[0x05][..], &[0x82, 0, 5]] {
        let der = [&[0x30][..], length, &[0x30, 0, 0x04, 1, 0]].concat();
        assert_useless(&TlsConfig::new().client_certificate_der([pair.certificate_der.clone()], der), &words);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let pair = Authority::new("the authority").client("hare");
    let (certificate, key) = (folder.file("good.pem", &pair.certificate), folder.file("good.key", &pair.key));
    let broken = pair.key.replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\n!hush!");
    let bad = |name: &str, content: &str| folder.file(name, content);
    let root = |path: &Path| TlsConfig::new().root_file(path);
    let client =
        |certificate: &Path, key: &Path| root(&path(&folder, "good.pem")).client_certificate_files(certificate, key);

    assert_useless(&root(Path::new("/nowhere/ca.pem")), &["/nowhere/ca.pem", "cannot be read"]);
    assert_useless(&root(&bad("empty.pem", "")), &["no certificate", "empty.pem"]);
    assert_useless(&root(&key), &["no certificate", "good.key"]);
    assert_useless(&root(&bad("cut.pem", &pair.certificate[..200])), &["cut.pem", "breaks off"]);
    assert_useless(
        &root(&bad("strange.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        &["certificate 1 in", "strange.pem"],
    );
    assert_useless(&client(&key, &key), &["no certificate", "good.key"]);
    assert_useless(&client(&certificate, &certificate), &["no private key", "good.pem"]);
    assert_useless(&client(&certificate, Path::new("/nowhere/k.pem")), &["/nowhere/k.pem", "cannot be read"]);
    let error = client(&certificate, &bad("broken.key", &broken)).check().unwrap_err();
    assert_tls(&error, &["broken.key is broken", "base64"], std::panic::Location::caller());
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    let strange = bad("strange.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_useless(&client(&certificate, &strange), &["strange.key cannot be read, or is of a kind"]);
    assert_useless(
        &TlsConfig::new().client_certificate_der(Vec::<Vec<u8>>::new(), pair.key_der),
        &["no certificate was given"],
    );
    assert_useless(&TlsConfig::new().client_certificate_der([pair.certificate_der], b"hush"), &["neither PKCS #8"]);
    client(&certificate, &key).check().unwrap();
}

fn path(folder: &Folder, name: &str) -> std::path::PathBuf {
    folder.path().join(name)
}

#[test]
fn keys_are_not_shown() {
    let pair = Authority::new("the authority").client("hare");
    let tls = TlsConfig::new().client_certificate_pem(&pair.certificate, &pair.key);
    let builder = Connection::builder("amqps://localhost").unwrap().tls(tls.clone());
    let line = pair.key.lines().nth(1).unwrap();
    assert!(!format!("{tls:?} {builder:?}").contains(line));
    let tls = TlsConfig::new().client_certificate_der([pair.certificate_der], &pair.key_der);
    let shown = format!("{tls:?}");
    let first = format!("{:?}", &pair.key_der[..4]);
    assert!(!shown.contains(first.trim_matches(['[', ']'])), "{shown}");
    let tls = TlsConfig::new().client_certificate_files("hare.pem", "hare.key").server_name("hare.example");
    for words in ["hare.pem", "hare.key", "hare.example"] {
        assert!(format!("{tls:?}").contains(words), "{tls:?}");
    }
}

// ------------------------------------------------------------------------------------- the one speaks TLS, the other does not

on_its_own! {
    async fn tls_on_the_plain_port() {
        let broker = Broker::start().await.unwrap();
        let builder = Connection::builder(&broker.url().replace("amqp://", "amqps://")).unwrap();
        let tls = TlsConfig::new().danger_accept_any_certificate();
        let error = within("an error", builder.tls(tls).open()).await.unwrap_err();
        assert_tls(&error, &["does not speak TLS on this port", "amqp://"], std::panic::Location::caller());
    }

    async fn plain_on_the_tls_port() {
        let stage = Stage::new().await;
        let builder = Connection::builder(&format!("amqp://localhost:{}", stage.port)).unwrap();
        let error = within("an error", builder.open()).await.unwrap_err();
        assert_tls(&error, &["the server speaks TLS on this port", "amqps://"], std::panic::Location::caller());
    }

    /// Somebody who goes away in the middle may be back the next time.
    async fn a_server_that_goes_in_the_handshake() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqps://{}", listener.local_addr().unwrap());
        let tls = TlsConfig::new().danger_accept_any_certificate();
        let (error, _) = tokio::join!(Connection::builder(&url).unwrap().tls(tls).open(), async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read(&mut [0; 4096]).await
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.is_transient() && error.to_string().contains("TLS handshake"), "{error}");
    }
}
