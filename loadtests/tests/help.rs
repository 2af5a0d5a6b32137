//! What a person reads who asks for help is under snapshot.

use std::process::Command;

#[test]
fn the_help_of_every_verb_is_what_it_was() {
    let help = |verb: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_fleet-load"))
            .args(verb)
            .arg("--help")
            .env_remove("CONDUIT_BIN")
            .output()
            .expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let all = help(&[]);
    let listed = all.split("Commands:").nth(1).expect("the verbs");
    let verbs: Vec<_> = listed
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|verb| !verb.is_empty() && *verb != "help")
        .collect();
    let each: Vec<_> = verbs.iter().map(|verb| help(&[verb])).collect();
    insta::assert_snapshot!("help", format!("{all}\n{}", each.join("\n")));
}
