//! `compare`: the same work behind each wall.

use stanza_test::fixture;

#[test]
fn the_same_work_is_compared_and_what_cannot_take_part_is_told() {
    let stanza = fixture!();
    let page = stanza.file("report.html", "");
    let options = ["compare", "--rounds", "2", "--network", "none", "--format", "json", "--html", &page];
    let text = stanza.ok(&[&options[..], &["--on-host", "busybox", "sh", "-c", "echo hi; exit 3"]].concat());
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let contenders = document["contenders"].as_array().unwrap();
    let walls: Vec<_> = contenders.iter().map(|one| one["wall"].as_str().unwrap()).collect();
    assert_eq!(walls[..2], ["host", "container"], "{text}");
    for contender in contenders {
        assert_eq!(contender["exit_codes"], serde_json::json!([3]), "{text}");
        assert_eq!(contender["finished_ms"]["all"].as_array().unwrap().len(), 2, "{text}");
        let (cpu, first) = (&contender["cpu_ms"]["least"], &contender["first_output_ms"]["median"]);
        assert!(cpu.as_f64() > Some(0.0) && first.as_f64() > Some(0.0), "{text}");
    }
    assert!(contenders[1]["memory_peak_mib"]["median"].as_f64() > Some(0.0), "{text}");
    // Without a kernel or QEMU the third is told.
    if walls.len() < 3 {
        assert_eq!(document["left_out"][0]["wall"], "vm", "{text}");
        assert!(document["left_out"][0]["why"].as_str().is_some_and(|why| !why.is_empty()), "{text}");
    }
    assert!(std::fs::read_to_string(page).unwrap().contains("</html>"));
    assert_eq!(stanza.ok(&["ps", "-aq"]), "");
}

#[test]
fn what_compare_does_not_take_is_named() {
    let stanza = fixture!();
    for (options, said) in [
        (&["--name", "x"][..], "does not take `--name`"),
        (&["-t"], "gives no terminal"),
        (&["--rounds", "0"], "`0` is not a number from 1 to 1000"),
        (&["--format", "xml"], "neither `text` nor `json`"),
    ] {
        let output = stanza.output(&[&["compare"][..], options, &["busybox", "true"]].concat());
        assert!(output.code == 1 && output.stderr.contains(said), "{options:?}: {}", output.stderr);
    }
    let output = stanza.output(&["compare", "--pull", "never", "no-such-image", "true"]);
    assert!(output.code == 1 && output.stderr.contains("no-such-image"), "{}", output.stderr);
}
