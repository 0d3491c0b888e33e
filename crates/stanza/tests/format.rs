//! What listings print: tables, templates, JSON, filters.

use serde_json::Value;
use stanza_test::{Stanza, fixture};

fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn three(stanza: &Stanza) {
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "runs",
        "-l",
        "kind=a",
        "busybox",
        "sleep",
        "1000",
    ]);
    stanza.output(&[
        "run",
        "--network",
        "none",
        "--name",
        "failed",
        "-l",
        "kind=b",
        "busybox",
        "sh",
        "-c",
        "exit 3",
    ]);
    stanza.ok(&["create", "--network", "none", "--name", "made", "-l", "kind", "busybox", "true"]);
}

#[test]
fn ps_prints_dockers_table() {
    let stanza = fixture!();
    three(&stanza);
    let text = stanza.ok(&["ps", "-a"]);
    let head: Vec<&str> =
        text.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(head, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let row = text.lines().find(|line| line.ends_with("failed")).unwrap();
    assert!(
        row.contains("busybox") && row.contains("\"sh -c 'exit 3'\"") && row.contains("Exited (3) "),
        "{row}"
    );
    let row = text.lines().find(|line| line.ends_with("runs")).unwrap();
    assert!(row.contains("Up "), "{row}");
    assert!(text.lines().find(|line| line.ends_with("made")).unwrap().contains("Created"));
    assert_eq!(stanza.ok(&["ps"]).lines().count(), 2);
}

#[test]
fn ids_are_short_or_whole() {
    let stanza = fixture!();
    let id = stanza.sleeper("c1");
    assert_eq!(stanza.ok(&["ps", "-q"]), id[..12]);
    assert_eq!(stanza.ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(stanza.ok(&["ps", "--format", "{{.ID}}"]), id[..12]);
    assert_eq!(stanza.ok(&["ps", "--no-trunc", "--format", "{{.ID}}"]), id);
}

#[test]
fn ps_has_gos_templates() {
    let stanza = fixture!();
    three(&stanza);
    assert_eq!(
        lines(&stanza.ok(&["ps", "-a", "--format", "{{.Names}}|{{.State}}|{{.Image}}"])),
        ["failed|exited|busybox", "made|created|busybox", "runs|running|busybox"]
    );
    assert_eq!(stanza.ok(&["ps", "--format", "{{.Label \"kind\"}}"]), "a");
    assert_eq!(stanza.ok(&["ps", "--format", "{{upper .Names}} {{json .State}}"]), "RUNS \"running\"");
    let table = stanza.ok(&["ps", "--format", "table {{.Names}}\t{{.Status}}"]);
    assert!(table.starts_with("NAMES") && table.lines().next().unwrap().contains("STATUS"), "{table}");
    assert_eq!(stanza.ok(&["ps", "--format", "{{if eq .State \"running\"}}yes{{else}}no{{end}}"]), "yes");
}

#[test]
fn ps_has_json_lines() {
    let stanza = fixture!();
    three(&stanza);
    for format in ["json", "{{json .}}"] {
        let text = stanza.ok(&["ps", "-a", "--format", format]);
        assert_eq!(text.lines().count(), 3);
        for line in text.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            assert_eq!(row["Image"], "busybox");
            assert_eq!(row["ID"].as_str().unwrap().len(), 12);
        }
    }
}

#[test]
fn ps_filters() {
    let stanza = fixture!();
    three(&stanza);
    for (filter, expected) in [
        ("status=running", &["runs"][..]),
        ("status=exited", &["failed"]),
        ("exited=3", &["failed"]),
        ("label=kind", &["failed", "made", "runs"]),
        ("label=kind=b", &["failed"]),
        ("name=ma", &["made"]),
        ("name=^runs$", &["runs"]),
        ("ancestor=busybox", &["failed", "made", "runs"]),
    ] {
        assert_eq!(
            lines(&stanza.ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"])),
            expected,
            "{filter}"
        );
    }
    assert_eq!(
        lines(&stanza.ok(&[
            "ps",
            "-a",
            "-f",
            "status=running",
            "-f",
            "status=created",
            "--format",
            "{{.Names}}"
        ])),
        ["made", "runs"]
    );
    assert_eq!(stanza.ok(&["ps", "-l", "--format", "{{.Names}}"]), "made");
    assert_eq!(stanza.ok(&["ps", "-n", "2", "--format", "{{.Names}}"]), "made\nfailed");
    assert!(stanza.fails(1, &["ps", "--filter", "nonsense=1"]).contains("nonsense"));
    assert!(stanza.fails(1, &["ps", "--filter", "nonsense"]).contains("nonsense"));
}

#[test]
fn bad_templates_are_named() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    for template in ["{{.Nonsense}}", "{{", "{{nonsense}}"] {
        let output = stanza.output(&["ps", "--format", template]);
        assert_ne!(output.code, 0, "{template}");
        assert!(output.stderr.to_lowercase().contains("template"), "{}", output.stderr);
    }
}

#[test]
fn images_print_dockers_table_and_formats() {
    let stanza = fixture!();
    stanza.ok(&["tag", "busybox", "room:1"]);
    let text = stanza.ok(&["images"]);
    let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(
        lines(&stanza.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])),
        ["busybox:latest", "room:1"]
    );
    assert_eq!(stanza.ok(&["images", "room", "--format", "{{.Tag}}"]), "1");
    assert_eq!(stanza.ok(&["images", "--filter", "reference=roo*", "--format", "{{.Tag}}"]), "1");
    assert_eq!(stanza.ok(&["images", "-q", "room"]).len(), 12);
    assert!(stanza.ok(&["images", "-q", "--no-trunc", "room"]).starts_with("sha256:"));
    let row: Value = serde_json::from_str(&stanza.ok(&["images", "room", "--format", "json"])).unwrap();
    assert_eq!(row["Repository"], "room");
}

#[test]
fn inspect_has_templates_and_types() {
    let stanza = fixture!();
    let id = stanza.sleeper("c1");
    assert_eq!(
        stanza.ok(&["inspect", "-f", "{{.Id}} {{.State.Status}} {{.State.Running}}", "c1"]),
        format!("{id} running true")
    );
    assert_eq!(stanza.ok(&["inspect", "--format", "{{json .Config.Cmd}}", "c1"]), "[\"sleep\",\"1000\"]");
    assert_eq!(
        stanza.ok(&["inspect", "--format", "{{range .Config.Cmd}}<{{.}}>{{end}}", "c1"]),
        "<sleep><1000>"
    );
    assert_eq!(
        stanza.ok(&["inspect", "--format", "{{index .Config.Cmd 0}} {{len .Config.Cmd}}", "c1"]),
        "sleep 2"
    );
    assert_eq!(stanza.ok(&["inspect", "--type", "image", "-f", "{{.Os}}", "busybox"]), "linux");
    assert_eq!(stanza.ok(&["inspect", "-f", "{{.Os}}", "busybox"]), "linux");
    stanza.fails(1, &["inspect", "--type", "container", "busybox"]);
    let both: Value = serde_json::from_str(&stanza.ok(&["inspect", "c1", "busybox"])).unwrap();
    assert_eq!(both.as_array().unwrap().len(), 2);
}

#[test]
fn what_is_found_is_printed_though_the_rest_is_not() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    let output = stanza.output(&["inspect", "c1", "nosuch"]);
    assert_eq!(output.code, 1);
    assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap().as_array().unwrap().len(), 1);
    assert!(output.stderr.contains("nosuch"));
}

#[test]
fn the_system_is_told() {
    let stanza = fixture!();
    for args in [
        &["system", "info"][..],
        &["system", "df"],
        &["system", "check"],
        &["version"],
        &["--version"],
        &["--help"],
        &["run", "--help"],
    ] {
        let output = stanza.output(args);
        assert!(output.stdout.len() > 10, "{args:?}: {output:?}");
    }
    let facts: Value = serde_json::from_str(&stanza.ok(&["system", "info", "--format", "json"])).unwrap();
    assert!(facts.is_object());
    assert!(!stanza.ok(&["version", "--format", "{{.Client.Version}}"]).is_empty());
}

#[test]
fn no_colour_or_progress_goes_into_a_pipe() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    for args in [
        &["ps", "-a"][..],
        &["images"],
        &["inspect", "c1"],
        &["system", "check"],
        &["nonsense"],
        &["run", "nonsense:::"],
    ] {
        let output = stanza.output(args);
        assert!(!format!("{}{}", output.stdout, output.stderr).contains('\u{1b}'), "{args:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_panic() {
    let stanza = fixture!();
    three(&stanza);
    let inner = stanza.command(&["inspect", "runs"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "\"$@\" | head -c 1", "sh"]).arg(inner.get_program()).args(inner.get_args());
    let output = stanza_test::Running::start(command).finish();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("[", ""));
}
