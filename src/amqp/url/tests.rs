//! The examples of the URI specification's appendix, and what else stands in URLs.

use super::*;

type Parts<'a> = (&'a str, &'a str, &'a str, Option<u16>, &'a str);

/// What is not said, by default.
const USER: &str = "guest";
const HOST: &str = "localhost";
const ROOT: &str = "/";

#[track_caller]
fn assert_parts(url: &str, (user, password, host, port, virtual_host): Parts<'_>) {
    let config = parse(url).unwrap();
    let [address] = config.hosts.as_slice() else { panic!("{url}: {:?}", config.hosts) };
    let found = (config.credentials.username(), config.credentials.secret(), address.host.as_str(), address.port);
    assert_eq!(found, (user, password, host, port), "{url}");
    assert_eq!(config.virtual_host, *virtual_host, "{url}");
}

#[test]
fn c18_the_appendix_of_the_specification() {
    for (url, parts) in [
        ("amqp://user:pass@host:10000/vhost", ("user", "pass", "host", Some(10000), "vhost")),
        ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", ("usera", "apass", "hoast", Some(10000), "v/host")),
        ("amqp://", (USER, USER, HOST, None, ROOT)),
        ("amqp://:@/", ("", "", HOST, None, "")),
        ("amqp://user@", ("user", USER, HOST, None, ROOT)),
        ("amqp://user:pass@", ("user", "pass", HOST, None, ROOT)),
        ("amqp://host", (USER, USER, "host", None, ROOT)),
        ("amqp://:10000", (USER, USER, HOST, Some(10000), ROOT)),
        ("amqp:///vhost", (USER, USER, HOST, None, "vhost")),
        ("amqp://host/", (USER, USER, "host", None, "")),
        ("amqp://host/%2f", (USER, USER, "host", None, "/")),
        ("amqp://host/%2F", (USER, USER, "host", None, "/")),
        ("amqp://[::1]", (USER, USER, "::1", None, ROOT)),
    ] {
        assert_parts(url, parts);
    }
}

/// Beyond the appendix: what other clients' tests have.
#[test]
fn c18_other_urls() {
    for (url, parts) in [
        ("AMQP://host", (USER, USER, "host", None, ROOT)),
        ("amqp:///", (USER, USER, HOST, None, "")),
        ("amqp://@host", (USER, USER, "host", None, ROOT)),
        ("amqp://user:@host", ("user", "", "host", None, ROOT)),
        ("amqp://:pass@host", ("", "pass", "host", None, ROOT)),
        ("amqp://user:pass@host:10000", ("user", "pass", "host", Some(10000), ROOT)),
        ("amqp://user:pa:ss@host", ("user", "pa:ss", "host", None, ROOT)),
        ("amqp://us@er:p@ss@host", ("us@er", "p@ss", "host", None, ROOT)),
        ("amqp://a+b:c+d%2b@host/e+f", ("a+b", "c+d+", "host", None, "e+f")),
        ("amqp://%c3%a9:%20@host/%e2%82%ac", ("é", " ", "host", None, "€")),
        ("amqp://u:p@[::1]:100", ("u", "p", "::1", Some(100), ROOT)),
        ("amqp://[2001:DB8:0:0::1]/x", (USER, USER, "2001:db8::1", None, "x")),
        ("amqp://127.0.0.1:1/x", (USER, USER, "127.0.0.1", Some(1), "x")),
        ("amqp://u:p@host/v%40x", ("u", "p", "host", None, "v@x")),
        ("amqp://host/x?", (USER, USER, "host", None, "x")),
        ("amqp://?heartbeat=1", (USER, USER, HOST, None, ROOT)),
    ] {
        assert_parts(url, parts);
    }
}

#[test]
fn several_hosts() {
    let config = parse("amqp://u:p@h1:5672,h2,[::1]:5673/vhost").unwrap();
    let listed: Vec<String> = config.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["h1:5672", "h2", "[::1]:5673"]);
    assert_eq!(config.virtual_host, *"vhost");
    for url in ["amqp://h1,", "amqp://,h2", "amqp://h1,,h2", "amqp://h1,:1"] {
        assert!(parse(url).unwrap_err().to_string().contains("no name"), "{url}");
    }
}

#[test]
fn what_is_wrong_is_said_without_the_password() {
    for (url, words) in [
        ("http://u:hush@host", "scheme"),
        ("amqp://u:hush@host/a/b", "%2f"),
        ("amqp://u:hush@host?heartbeat=-1", "seconds"),
        ("amqp://u:hush@host?heartbeat=70000", "range"),
        ("amqp://u:hush@host?heartbeat=1&heartbeat=2", "twice"),
        ("amqp://u:hush@host?connection_timeout=0", "always a limit"),
        ("amqp://u:hush@host?colour=red", "auth_mechanism, cacertfile, certfile, channel_max"),
        ("amqp://u:hush@host?auth_mechanism=MAGIC", "EXTERNAL"),
        ("amqp://u:hu#sh@host", "%23"),
        ("amqp://u:hush@host:99999", "port"),
        ("amqp://u:hush@host:", "port"),
        ("amqp://u:hush@host:x", "port"),
        ("amqp://u:hush@::1", "brackets"),
        ("amqp://u:hush@[::1", "brackets"),
        ("amqp://u:hush@[::g]", "host"),
        ("amqp://u:hush@[::1]hush", "host"),
        ("amqp://u:hush@ho%00st", "host"),
        ("amqp://u:hush@ho%2fst", "host"),
        ("amqp://u:hush@ho%25st", "host"),
        ("amqp://u:hush%@host", "%25"),
        ("amqp://u:hush%2@host", "%25"),
        ("amqp://u:hush%zz@host", "%25"),
        ("amqp://u:hush%ff@host", "UTF-8"),
        ("amqp://u:hush@host/%ff", "UTF-8"),
        ("no url", "begin with amqp://"),
        ("u:hush@host", "begin with amqp://"),
        ("u:hush://host", "scheme"),
        ("amqp://u:hush@ho st", "%20"),
        // Characters that end the password where nobody meant it to end.
        ("amqp://u:12hush/34@host", "%2f"),
        ("amqp://u:12/hush34@host", "%2f"),
        ("amqp://u:12?hush34@host", "%3f"),
        ("amqp://u:12@hush/34@host", "%40"),
        ("amqp://u:12@34/hush@host", "%40"),
        ("amqp://u:12@hush,34/@host/x", "%40"),
        ("amqp://u:12@hush:34/x@host?heartbeat=5", "%40"),
        ("amqp://u:12@hush?34@host", "%40"),
        ("amqp://u:hush/x", "port"),
        // TLS without TLS.
        ("amqp://u:hush@host?cacertfile=/x", "amqps://"),
        ("amqp://u:p@host?password=hush", "amqps://"),
        ("amqps://u:hush@host?verify=hush", "verify_none"),
        ("amqps://u:hush@host?server_name_indication=disable", "not supported"),
        ("amqps://u:hush@host?certfile=", "no value"),
    ] {
        let error = parse(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl, "{url}");
        assert!(error.to_string().contains(words), "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    }
}

#[test]
fn parameters_set_what_they_name() {
    let config = parse(
        "amqp://h?heartbeat=7&frame_max=8192&channel_max=3&connection_timeout=1500&auth_mechanism=external\
         &auth_mechanism=PLAIN",
    )
    .unwrap();
    assert_eq!((config.heartbeat, config.frame_max, config.channel_max), (7, 8192, 3));
    assert_eq!(config.connect_timeout, Duration::from_millis(1500));
    assert_eq!(config.mechanisms, [Sasl::External, Sasl::Plain]);
    assert_eq!(config.tls, None);
}

#[test]
fn tls_parameters_set_what_they_name() {
    let config = parse(
        "amqps://h?cacertfile=/etc/ca%20s.pem&certfile=c+1.pem&keyfile=k.pem&password=hu%26sh&verify=verify_none\
         &server_name_indication=other.example",
    )
    .unwrap();
    let expected = TlsParameters {
        ca_cert_file: Some("/etc/ca s.pem".into()),
        cert_file: Some("c+1.pem".into()),
        key_file: Some("k.pem".into()),
        key_password: Some(Secret::new("hu&sh")),
        verify_peer: false,
        server_name: Some("other.example".into()),
    };
    assert_eq!(config.tls, Some(expected));
    assert!(!format!("{config:?}").contains("hu&sh"));
    assert_eq!(parse("amqps://h?verify=verify_peer").unwrap().tls, Some(TlsParameters::default()));
}

/// What may not stand in a URL as it is does not get into a host's name behind percent signs either.
#[test]
fn a_host_has_no_control_characters() {
    for url in ["amqp://a%1ab", "amqp://a%7f", "amqp://%c2%a0", "amqp://a%e2%80%a8b", "amqp://a%0a", "amqp://a%20b"] {
        assert!(parse(url).unwrap_err().to_string().contains("neither a name nor an address"), "{url}");
    }
}

/// An `@` in the user's name and a `?` in the password: what follows it is no parameter, and is not shown as one.
#[test]
fn what_may_be_a_password_is_not_shown_as_a_parameter() {
    for url in [
        "amqp://me@corp?x:hush1234@host",
        "amqp://me@corp?x:&hush1234&@host",
        "amqp://me@corp?heartbeat=hush1234@host",
        "amqp://me@corp?auth_mechanism=hush1234@host",
        "amqp://me@corp?hush1234=1&hush1234=@host",
    ] {
        let error = parse(url).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{url}: {error}");
        assert!(error.to_string().contains("%40"), "{url}: {error}");
    }
}
