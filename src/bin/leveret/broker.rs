//! `leveret broker`: the broker in the box by itself.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use leveret::broker::{Broker, Builder, Script};
use percent_encoding::percent_decode_str;
use tokio::net::lookup_host;
use tokio::sync::oneshot;

use super::signals::told_to_end;
use super::{Result, complain, wrong};

/// Runs an AMQP 0-9-1 server in memory, for tests and first steps: not for production
///
/// It behaves as RabbitMQ does and keeps nothing. When it listens, it prints one line on standard output: a URL with a user and the
/// password. It ends on Ctrl-C or SIGTERM, after it has closed its connections with 320 CONNECTION_FORCED.
///
/// Exit status: 0 when it was told to end, 1 when it could not listen, 2 for arguments that make no sense.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen; port 0 takes a free one
    ///
    /// Anything but a loopback address is open to other machines, and passwords go there unencrypted.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5672", value_parser = address)]
    listen: String,

    /// A user, in place of guest; may be given several times
    ///
    /// All virtual hosts are open to the user, or those that are named. Everything is percent-encoded, as in a URL. Arguments can be
    /// seen by other users of the machine (ps); the variable cannot, and takes several users with spaces between.
    #[arg(
        long = "user",
        value_name = "NAME:PASSWORD[@HOST,HOST]",
        env = "LEVERET_BROKER_USERS",
        hide_env_values = true,
        value_delimiter = ' '
    )]
    users: Vec<String>,

    /// A virtual host, in place of "/"; may be given several times
    #[arg(long = "virtual-host", visible_alias = "vhost", value_name = "NAME")]
    virtual_hosts: Vec<String>,

    /// The heartbeat interval that clients are offered; 0 for none [default: 60]
    #[arg(long, value_name = "SECONDS")]
    heartbeat: Option<u16>,

    /// The largest frame; 0 for no limit [default: 131072]
    #[arg(long, value_name = "OCTETS")]
    frame_max: Option<u32>,

    /// How many channels a connection may have; 0 for no limit [default: 2047]
    #[arg(long, value_name = "CHANNELS")]
    channel_max: Option<u16>,

    /// The largest message [default: 128 MiB]
    #[arg(long, value_name = "OCTETS")]
    max_message_size: Option<u64>,

    /// The SASL mechanisms that are offered, with spaces between [default: PLAIN AMQPLAIN]
    ///
    /// EXTERNAL, ANONYMOUS and RABBIT-CR-DEMO are known, too; whoever says EXTERNAL is believed.
    #[arg(long, value_name = "NAMES")]
    mechanisms: Option<String>,

    /// What goes wrong on a connection; may be given several times
    ///
    /// The first connection gets the first script, and so on; later ones get none, or that of the seed. For example 'published 3: cut'
    /// or 'frame sent 20: close connection 320 "maintenance"': the documentation of leveret::broker::Script has all of it.
    #[arg(long = "script", value_name = "STEPS")]
    scripts: Vec<Script>,

    /// Chance makes a script of this number, always the same one, for every connection that has none
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Ends when standard input ends, too
    ///
    /// So it ends with the program that has started it and holds the other end of a pipe, even if that is killed.
    #[arg(long)]
    until_eof: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let (listen, until_eof, scripts) = (arguments.listen.clone(), arguments.until_eof, arguments.scripts.clone());
    let builder = arguments.builder().unwrap_or_else(|why| wrong(why));
    let told_to_end = told_to_end()?;
    let broker = bind(builder, &listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    // Nobody has been let in: nothing was awaited since it listens, and there is one thread.
    broker.script(scripts);
    let mut output = io::stdout();
    writeln!(output, "{}", broker.url()).and_then(|()| output.flush())?;

    tokio::select! {
        () = told_to_end => {}
        () = end_of_input(), if until_eof => {}
    }
    broker.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn bind(builder: Builder, listen: &str) -> io::Result<Broker> {
    let addresses: Vec<_> = lookup_host(listen).await?.collect();
    if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        complain(format_args!(
            "{address} is open to other machines: passwords and messages are not encrypted on the way,"
        ));
        complain("and this broker is for tests, not for production");
    }
    builder.bind(addresses.as_slice()).await
}

impl Arguments {
    fn builder(self) -> Result<Builder, String> {
        let mut builder = Broker::builder();
        for (number, user) in (1..).zip(self.users.iter().filter(|user| !user.is_empty())) {
            builder = add_user(builder, user)
                .ok_or_else(|| format!("user {number} is not written as NAME:PASSWORD[@HOST,HOST], percent-encoded"))?;
        }
        for name in &self.virtual_hosts {
            builder = builder.virtual_host(name);
        }
        if let Some(seconds) = self.heartbeat {
            builder = builder.heartbeat(seconds);
        }
        if let Some(octets) = self.frame_max {
            builder = builder.frame_max(octets);
        }
        if let Some(channels) = self.channel_max {
            builder = builder.channel_max(channels);
        }
        if let Some(octets) = self.max_message_size {
            builder = builder.max_message_size(octets);
        }
        if let Some(names) = self.mechanisms {
            builder = builder.mechanisms(names);
        }
        if let Some(seed) = self.seed {
            let script = Script::seeded(seed);
            complain(format_args!("the script of {seed} is: {script}"));
            builder = builder.script(script);
        }
        Ok(builder)
    }
}

/// `NAME:PASSWORD` or `NAME:PASSWORD@HOST,HOST`.
fn add_user(builder: Builder, user: &str) -> Option<Builder> {
    let decode = |text| percent_decode_str(text).decode_utf8().ok();
    let (login, hosts) = user.split_once('@').map_or((user, None), |(login, hosts)| (login, Some(hosts)));
    let (name, password) = login.split_once(':')?;
    let (name, password) = (decode(name)?, decode(password)?);
    Some(match hosts {
        None => builder.user(name, password),
        Some(hosts) => {
            let hosts = hosts.split(',').map(decode).collect::<Option<Vec<_>>>()?;
            builder.restricted_user(name, password, hosts.iter().map(AsRef::as_ref))
        }
    })
}

/// Whether it looks like an address; a host's name is looked up later.
fn address(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("a host and a port are wanted, for example 127.0.0.1:5672"),
    }
}

/// Ready when nothing can be read any more. In a thread of its own, for which nobody waits at the end.
async fn end_of_input() {
    let (ends, ended) = oneshot::channel::<()>();
    thread::spawn(move || {
        let _ends = ends;
        io::copy(&mut io::stdin(), &mut io::sink())
    });
    let _ = ended.await;
}
