//! Landlock by the annotation `dev.stanza.landlock`: a JSON text in the form that is proposed for the specification
//! (runtime-spec pull request 1241).
//!
//! ```text
//!  {"ruleset": {"handledAccessFS": [ACCESS…]},
//!   "rules": {"pathBeneath": [{"allowedAccess": [ACCESS…], "paths": [PATH…]}]}}
//! ```

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::container::Container;
use crate::scene::Scene;

const RUNC: Need = Need::Lacks("runc", "no Landlock");
const CRUN: Need = Need::Lacks("crun", "no Landlock");

cases!("landlock":
    what_is_not_allowed_is_refused [RUNC, CRUN],
    writing_alone_is_refused [RUNC, CRUN],
    what_is_not_handled_is_left_alone [RUNC, CRUN],
    execution_is_refused [RUNC, CRUN],
    it_holds_for_exec [RUNC, CRUN],
    it_holds_without_no_new_privileges_only_with_the_right [RUNC, CRUN],
    a_path_that_is_not_there_is_refused [RUNC, CRUN],
    a_text_that_is_no_json_is_refused [RUNC, CRUN],
    an_unknown_access_is_refused [RUNC, CRUN],
    features_name_the_annotation [RUNC, CRUN],
);

const NAME: &str = "dev.stanza.landlock";
const READ: [&str; 3] = ["execute", "read_file", "read_dir"];
const WRITE: [&str; 4] = ["write_file", "make_reg", "remove_file", "make_dir"];

fn restricted<'a>(s: &'a Scene, words: &[&str], rules: &Value) -> Outcome<Container<'a>> {
    let mut container = s.container(words)?;
    if s.tool(&[&s.probe()?.display().to_string(), "syscall", "444", "0", "0", "1"])?.contains("errno") {
        return Err(crate::case::skip("the kernel has no Landlock"));
    }
    container.bundle.config["annotations"][NAME] = json!(rules.to_string());
    Ok(container)
}

/// All may be read, and `/tmp` be written.
fn writable_tmp() -> Value {
    let all = [&READ[..], &WRITE].concat();
    json!({
        "ruleset": {"handledAccessFS": all},
        "rules": {"pathBeneath": [
            {"allowedAccess": READ, "paths": ["/"]},
            {"allowedAccess": WRITE, "paths": ["/tmp", "/dev/null"]}
        ]}
    })
}

const TRY: &str = "for place in /tmp /home; do (echo x >$place/file) 2>/dev/null && echo $place written; done; cat /etc/passwd >/dev/null && echo read";

fn what_is_not_allowed_is_refused(s: &Scene) -> Outcome {
    let rules = json!({
        "ruleset": {"handledAccessFS": READ},
        "rules": {"pathBeneath": [{"allowedAccess": READ, "paths": ["/bin", "/dev", "/proc"]}]}
    });
    let script =
        "cat /etc/passwd 2>/dev/null || echo refused; ls / 2>/dev/null || echo hidden; ls -d /bin/probe";
    same("seen", restricted(s, &["sh", "-c", script], &rules)?.run()?.ok()?, "refused\nhidden\n/bin/probe")
}

fn writing_alone_is_refused(s: &Scene) -> Outcome {
    same("seen", restricted(s, &["sh", "-c", TRY], &writable_tmp())?.run()?.ok()?, "/tmp written\nread")
}

fn what_is_not_handled_is_left_alone(s: &Scene) -> Outcome {
    let rules = json!({"ruleset": {"handledAccessFS": ["make_dir"]}, "rules": {"pathBeneath": []}});
    let script = format!("{TRY}; mkdir /tmp/new 2>/dev/null || echo no directory");
    let seen = restricted(s, &["sh", "-c", &script], &rules)?.run()?.ok()?;
    same("seen", seen, "/tmp written\n/home written\nread\nno directory")
}

fn execution_is_refused(s: &Scene) -> Outcome {
    let rules = json!({
        "ruleset": {"handledAccessFS": ["execute"]},
        "rules": {"pathBeneath": [{"allowedAccess": ["execute"], "paths": ["/bin"]}]}
    });
    let script = "cp /bin/probe /tmp/probe; /bin/probe clock >/dev/null && echo allowed; /tmp/probe clock 2>/dev/null || echo refused";
    same("seen", restricted(s, &["sh", "-c", script], &rules)?.run()?.ok()?, "allowed\nrefused")
}

fn it_holds_for_exec(s: &Scene) -> Outcome {
    let container = restricted(s, &["sleep", "1000"], &writable_tmp())?;
    container.up()?;
    same("seen", container.sh(TRY)?, "/tmp written\nread")
}

fn it_holds_without_no_new_privileges_only_with_the_right(s: &Scene) -> Outcome {
    // landlock_restrict_self wants either (man 2 landlock_restrict_self): the runtime still has the right.
    let mut container = restricted(s, &["sh", "-c", TRY], &writable_tmp())?;
    container.bundle.config["process"]["noNewPrivileges"] = json!(false);
    let output = container.run()?;
    holds(&format!("{output:?}"), output.code != 0 || output.stdout == "/tmp written\nread\n")
}

fn refused(s: &Scene, text: &str, part: &str) -> Outcome {
    let mut container = restricted(s, &["echo", "ran"], &json!({}))?;
    container.bundle.config["annotations"][NAME] = json!(text);
    let said = container.run()?.refused().map_err(|error| format!("`{text}`: {error}"))?;
    holds("the program has not run", !said.contains("ran\n"))?;
    contains("what is said", &said.to_lowercase(), part)
}

fn a_path_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let rules = json!({
        "ruleset": {"handledAccessFS": READ},
        "rules": {"pathBeneath": [{"allowedAccess": READ, "paths": ["/", "/no/such"]}]}
    });
    refused(s, &rules.to_string(), "/no/such")
}

fn a_text_that_is_no_json_is_refused(s: &Scene) -> Outcome {
    for text in ["", "{", "7", "[]", "{\"rules\": 7}"] {
        refused(s, text, "landlock")?;
    }
    Ok(())
}

fn an_unknown_access_is_refused(s: &Scene) -> Outcome {
    refused(
        s,
        &json!({"ruleset": {"handledAccessFS": ["fly"]}, "rules": {"pathBeneath": []}}).to_string(),
        "fly",
    )?;
    let rules = json!({
        "ruleset": {"handledAccessFS": READ},
        "rules": {"pathBeneath": [{"allowedAccess": ["fly"], "paths": ["/"]}]}
    });
    refused(s, &rules.to_string(), "fly")
}

fn features_name_the_annotation(s: &Scene) -> Outcome {
    let seen: Value =
        serde_json::from_str(&s.call(&["features"])?.ok()?).map_err(|error| error.to_string())?;
    let listed = seen["potentiallyUnsafeConfigAnnotations"].as_array().cloned().unwrap_or_default();
    holds(
        &format!("{NAME} in {listed:?}"),
        listed.iter().any(|name| name.as_str().is_some_and(|name| NAME.starts_with(name))),
    )
}
