//! What the fuzz target for URLs asserts. It stands here so that `cargo test` can replay its seeds; nobody else calls it.

use std::fmt::Write;

use super::{Address, Config, Sasl};

/// A secret of this many octets with a digit in it is none of the words of an error.
const SECRET: usize = 8;

/// Any octets as a URL: what it says survives being written down again, and an error does not repeat its secrets.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::from_url(text) {
        Ok(config) => {
            let written = written(&config);
            let again = Config::from_url(&written);
            let again = again.map(|again| (self::written(&again), again));
            match again {
                Ok((twice, again)) => {
                    assert_eq!(twice, written);
                    assert_eq!(format!("{again:?}"), format!("{config:?}"));
                    assert!(again.credentials.secret() == config.credentials.secret());
                }
                Err(error) => unreachable!("{error}: {written}"),
            }
        }
        Err(error) => {
            if let Some(secret) = secret(text) {
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains(secret), "the error shows {secret:?}: {shown}");
            }
        }
    }
}

/// What somebody may have meant as a password: all from the first colon to the last `@`.
fn secret(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let (user_info, _) = rest.rsplit_once('@')?;
    let (user, secret) = user_info.split_once(':')?;
    let long = secret.len() >= SECRET && secret.bytes().any(|octet| octet.is_ascii_digit());
    // What stands elsewhere as well may be shown for what it is there.
    (long && !user.contains(secret) && text.matches(secret).count() == 1).then_some(secret)
}

/// A URL that says what a config says.
fn written(config: &Config) -> String {
    let mut url = String::from(if config.tls.is_some() { "amqps://" } else { "amqp://" });
    let hosts: Vec<String> = config.hosts.iter().map(host).collect();
    let (user, secret) = (config.credentials.username(), config.credentials.secret());
    let _ = write!(
        url,
        "{}:{}@{}/{}",
        escaped(user),
        escaped(secret),
        hosts.join(","),
        escaped(&config.virtual_host.to_string())
    );
    let timeout = config.connect_timeout.as_millis();
    let (heartbeat, frame_max, channel_max) = (config.heartbeat, config.frame_max, config.channel_max);
    let _ = write!(
        url,
        "?heartbeat={heartbeat}&frame_max={frame_max}&channel_max={channel_max}&connection_timeout={timeout}"
    );
    for mechanism in config.mechanisms.iter().copied().map(Sasl::name) {
        let _ = write!(url, "&auth_mechanism={mechanism}");
    }
    let Some(tls) = &config.tls else { return url };
    let files = [("cacertfile", &tls.ca_cert_file), ("certfile", &tls.cert_file), ("keyfile", &tls.key_file)];
    for (name, file) in files {
        if let Some(file) = file.as_ref().and_then(|file| file.to_str()) {
            let _ = write!(url, "&{name}={}", escaped(file));
        }
    }
    if let Some(name) = &tls.server_name {
        let _ = write!(url, "&server_name_indication={}", escaped(name));
    }
    if let Some(password) = &tls.key_password {
        let _ = write!(url, "&password={}", escaped(password.reveal()));
    }
    let _ = write!(url, "&verify={}", if tls.verify_peer { "verify_peer" } else { "verify_none" });
    url
}

fn host(address: &Address) -> String {
    let host = match address.host.contains(':') {
        true => format!("[{}]", address.host),
        false => escaped(&address.host),
    };
    match address.port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, octet| {
        let _ = match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => escaped.write_char(char::from(octet)),
            _ => write!(escaped, "%{octet:02x}"),
        };
        escaped
    })
}
