//! TLS against a real RabbitMQ, whose side of it is Erlang's. All tests share one, which listens on a further port for each way
//! in which a server's TLS can be set up.

use std::path::PathBuf;

use leveret::amqp::{Connection, ConnectionBuilder, Sasl, TlsConfig, TlsVersion};
use leveret::error::{Error, ErrorKind};
use tokio::sync::OnceCell;

use crate::certificates::{Authority, Folder, Pair, expired};
use crate::support::{assert_works, command, environment, unique, within};

/// A RabbitMQ with TLS. It ends with the run, as everything does that is in the run's directory.
struct Secure {
    authority: Authority,
    /// Issues clients' certificates.
    clients: Authority,
    /// Certificates that the server sees under the same path, wherever it has its root.
    certificates: PathBuf,
    ctl: String,
    /// Clients need no certificate here.
    url: String,
    plain_url: String,
}

async fn secure() -> &'static Secure {
    static SECURE: OnceCell<Secure> = OnceCell::const_new();
    SECURE.get_or_init(Secure::start).await
}

impl Secure {
    async fn start() -> Self {
        let (authority, clients) = (Authority::new("the authority"), Authority::new("the clients' authority"));
        let dirs = PathBuf::from(environment("LEVERET_RABBITMQ_DIRS"));
        let (folder, dir) = (Folder::new(), dirs.join(unique("secure")));
        let server = authority.server(&["localhost", "127.0.0.1"]);
        folder.file("ca.pem", &clients.pem);
        folder.file("server.pem", &server.certificate);
        folder.file("server.key", &server.key);
        let arguments = ["start", "--tls", folder.path().to_str().unwrap(), dir.to_str().unwrap()];
        let started = command(&environment("LEVERET_RABBITMQ"), &arguments).await;
        let mut lines = started.lines().map(str::to_owned);
        let mut line = || lines.next().unwrap();
        let (plain_url, ctl, url) = (line(), line(), line());
        Self { authority, clients, certificates: dir.join("certificates"), ctl, url, plain_url }
    }

    fn builder(&self) -> ConnectionBuilder {
        Connection::builder(&self.url).unwrap().tls(self.tls())
    }

    /// Trusts the server's authority.
    fn tls(&self) -> TlsConfig {
        TlsConfig::new().root_pem(&self.authority.pem)
    }

    /// A port where the server has this certificate, and Erlang's ssl these options besides.
    async fn listener(&self, pair: &Pair, options: &str) -> u16 {
        let (certificate, key) = (unique("server.pem"), unique("server.key"));
        std::fs::write(self.certificates.join(&certificate), &pair.certificate).unwrap();
        std::fs::write(self.certificates.join(&key), &pair.key).unwrap();
        let file = |name: &str| format!("\"{}\"", self.certificates.join(name).display());
        let (roots, certificate, key) = (file("ca.pem"), file(&certificate), file(&key));
        // A port that is free may be somebody's a moment later.
        let mut said = Vec::new();
        while said.len() < 5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let expression = format!(
                "catch rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, \
                 [{{cacertfile, {roots}}}, {{certfile, {certificate}}}, {{keyfile, {key}}} {options}], 1)."
            );
            match command(&self.ctl, &["eval", &expression]).await.trim() {
                "ok" => return port,
                other => said.push(other.to_owned()),
            }
        }
        panic!("RabbitMQ does not listen: {said:?}");
    }

    /// A user without a password, who can only come with a certificate.
    async fn user(&self, name: &str) {
        command(&self.ctl, &["add_user", name, "hush"]).await;
        command(&self.ctl, &["clear_password", name]).await;
        command(&self.ctl, &["set_permissions", name, ".*", ".*", ".*"]).await;
    }
}

async fn works(builder: ConnectionBuilder) {
    let connection = within("a connection", builder.open()).await.unwrap();
    assert_works(&connection.open_channel().await.unwrap()).await;
    within("the end", connection.close()).await.unwrap();
}

async fn refused(builder: ConnectionBuilder, words: &[&str]) -> Error {
    let error = within("an error", builder.open()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(!error.is_transient());
    for words in words {
        assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
    }
    error
}

on_rabbitmq! {
    async fn the_server_shows_its_certificate() {
        let server = secure().await;
        for versions in [&[TlsVersion::Tls12][..], &[TlsVersion::Tls13], &[]] {
            works(server.builder().tls(server.tls().versions(versions.iter().copied()))).await;
        }
        works(server.builder().host("localhost")).await;
    }

    /// EXTERNAL: the certificate is the login.
    async fn a_client_certificate_is_a_login() {
        let server = secure().await;
        let name = unique("hare");
        server.user(&name).await;
        let pair = server.clients.client(&name);
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let tls = server.tls().versions([version]).client_certificate_pem(&pair.certificate, &pair.key);
            works(server.builder().tls(tls).mechanisms([Sasl::External])).await;
        }
        // Without one, and with one of nobody that the server knows.
        let error = within("an error", server.builder().mechanisms([Sasl::External]).open()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        let nobody = server.clients.client("nobody");
        let tls = server.tls().client_certificate_pem(&nobody.certificate, &nobody.key);
        let builder = server.builder().tls(tls).mechanisms([Sasl::External]);
        let error = within("an error", builder.open()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    }

    async fn a_client_certificate_from_files_goes_with_a_password() {
        let server = secure().await;
        let (pair, folder) = (server.clients.client("hare"), Folder::new());
        let port = server.listener(&server.authority.server(&["127.0.0.1"]), MUST_SHOW).await;
        let (certificate, key) = (folder.file("hare.pem", &pair.certificate), folder.file("hare.key", &pair.key));
        works(server.builder().port(port).tls(server.tls().client_certificate_files(certificate, key))).await;
    }

    async fn an_authority_that_nobody_trusts() {
        let server = secure().await;
        let stranger = TlsConfig::new().root_pem(Authority::new("somebody else").pem);
        refused(server.builder().tls(stranger), &["not trusted here"]).await;
        works(server.builder().tls(TlsConfig::new().danger_accept_any_certificate())).await;
    }

    async fn the_servers_certificate_has_expired() {
        let server = secure().await;
        let port = server.listener(&server.authority.server_with(&["127.0.0.1"], expired), "").await;
        refused(server.builder().port(port), &["expired on 2002-03-04"]).await;
    }

    async fn the_servers_certificate_has_another_name() {
        let server = secure().await;
        let port = server.listener(&server.authority.server(&["hare.example"]), "").await;
        refused(server.builder().port(port), &["is for hare.example, not for the name 127.0.0.1"]).await;
        works(server.builder().port(port).tls(server.tls().server_name("hare.example"))).await;
    }

    async fn the_client_shows_no_certificate() {
        let server = secure().await;
        let port = server.listener(&server.authority.server(&["127.0.0.1"]), MUST_SHOW).await;
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let builder = server.builder().port(port).tls(server.tls().versions([version]));
            refused(builder, &["wants a client certificate, and none was sent"]).await;
        }
    }

    async fn the_clients_certificate_is_not_trusted() {
        let server = secure().await;
        let port = server.listener(&server.authority.server(&["127.0.0.1"]), MUST_SHOW).await;
        let pair = Authority::new("somebody else").client("hare");
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let tls = server.tls().versions([version]).client_certificate_pem(&pair.certificate, &pair.key);
            let words = ["refused the client certificate", "authority that it does not trust"];
            refused(server.builder().port(port).tls(tls), &words).await;
        }
    }

    async fn tls_is_spoken_to_the_plain_port() {
        let server = secure().await;
        let builder = Connection::builder(&server.plain_url.replace("amqp://", "amqps://")).unwrap().tls(server.tls());
        refused(builder, &["does not speak TLS on this port"]).await;
    }

    async fn tls_is_not_spoken_to_the_port_for_it() {
        let server = secure().await;
        let builder = Connection::builder(&server.url.replace("amqps://", "amqp://")).unwrap();
        refused(builder, &["the server speaks TLS on this port", "amqps://"]).await;
    }
}

/// Clients without a certificate of the clients' authority are not let in.
const MUST_SHOW: &str = ", {verify, verify_peer}, {fail_if_no_peer_cert, true}";
