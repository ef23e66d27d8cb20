//! `Config::from_env`, in processes of their own: a test may not change the variables of its siblings.

use std::process::Command;

use leveret::amqp::Config;

/// Run by the test below only.
#[test]
#[ignore = "is run by another test, with a variable set"]
fn says_what_it_reads() {
    match Config::from_env() {
        Ok(config) => println!("read {:?} {}", config.hosts, config.virtual_host),
        Err(error) => println!("{:?} {error}", error.kind()),
    }
}

#[test]
fn the_variable_names_the_server() {
    for (value, words) in [
        (Some("amqp://u:hush@rabbit.example/orders"), "read [Address { host: \"rabbit.example\", port: None }] orders"),
        (Some("amqp://u:hush@rabbit.example:x"), "InvalidUrl the environment variable AMQP_URL: the URL's port"),
        (Some(""), "InvalidUrl the environment variable AMQP_URL: the URL does not begin with amqp://"),
        (None, "InvalidUrl the environment variable AMQP_URL, which names the server, is not set"),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "says_what_it_reads", "--include-ignored", "--nocapture"]).env_remove("AMQP_URL");
        if let Some(value) = value {
            child.env("AMQP_URL", value);
        }
        let output = child.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains(words), "{value:?}: {said}");
        assert!(!said.contains("hush"), "{said}");
    }
}
