//! Checkpoint and restore: they work, or are refused with a reason that leaves the container as it was.

use crate::case::{Need, Outcome, cases, contains_any, holds, same, wait_for};
use crate::container::Container;
use crate::scene::{Scene, read};

cases!("checkpoint":
    works_or_is_refused_with_the_reason,
    leaving_it_running_works_or_is_refused,
    a_dump_ahead_works_or_is_refused [Need::Lacks("crun", "1.8.1 knows too little of it")],
    without_the_program_is_refused [Need::Lacks("crun", "calls a library")],
    of_an_unknown_container_is_refused,
    of_a_stopped_container_is_refused,
    restore_without_an_image_is_refused_and_leaves_nothing,
    restore_of_an_id_in_use_is_refused,
    every_option_is_taken [Need::Lacks("crun", "knows fewer")],
);

/// Whether criu can do its work here; it says so itself.
fn able(s: &Scene) -> bool {
    s.tool(&["criu", "check"]).is_ok()
}

/// A container that counts into a file.
fn counting(s: &Scene) -> Outcome<Container<'_>> {
    let container = s.script(
        "n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.02; done </dev/null >/dev/null 2>&1",
    )?;
    container.up()?;
    wait_for("it counts", || Ok((count(&container) > 2).then_some(())))?;
    Ok(container)
}

fn count(container: &Container) -> u64 {
    read(container.bundle.rootfs().join("count")).trim().parse().unwrap_or(0)
}

fn goes_on(container: &Container) -> Outcome {
    let before = count(container);
    same("status", container.status()?, "running")?;
    wait_for("it counts on", || Ok((count(container) > before + 2).then_some(())))
}

/// What is said of a refusal must name what is missing.
fn refused(s: &Scene, said: &str) -> Outcome {
    let reasons = if s.runtime.is_stanza() { &["criu", "CRIU"][..] } else { &["criu", "CRIU", "checkpoint"] };
    contains_any("what is said", said, reasons)
}

fn works_or_is_refused_with_the_reason(s: &Scene) -> Outcome {
    let container = counting(s)?;
    let (image, work) = (s.directory("image")?, s.directory("work")?);
    let output = container.verb("checkpoint", &["--image-path", &image, "--work-path", &work], &[])?;
    if !able(s) {
        refused(s, &output.refused()?)?;
        return goes_on(&container);
    }
    output.ok()?;
    holds("it does not run", container.status().is_err() || container.status()? == "stopped")?;
    if container.status().is_ok() {
        container.delete()?;
    }
    let before = count(&container);
    let bundle = container.bundle.directory.display().to_string();
    let words = ["--detach", "--image-path", &image, "--work-path", &work, "--bundle", &bundle];
    container.verb("restore", &words, &[])?.ok()?;
    goes_on(&container)?;
    holds("it went on from where it was", count(&container) > before)
}

fn leaving_it_running_works_or_is_refused(s: &Scene) -> Outcome {
    let container = counting(s)?;
    let (image, work) = (s.directory("image")?, s.directory("work")?);
    let words = ["--leave-running", "--image-path", &image, "--work-path", &work];
    let output = container.verb("checkpoint", &words, &[])?;
    if able(s) {
        output.ok()?;
    } else {
        refused(s, &output.refused()?)?;
    }
    goes_on(&container)
}

fn a_dump_ahead_works_or_is_refused(s: &Scene) -> Outcome {
    let container = counting(s)?;
    let (image, work) = (s.directory("image")?, s.directory("work")?);
    let output =
        container.verb("checkpoint", &["--pre-dump", "--image-path", &image, "--work-path", &work], &[])?;
    if able(s) {
        output.ok()?;
    } else {
        refused(s, &output.refused()?)?;
    }
    goes_on(&container)
}

fn without_the_program_is_refused(s: &Scene) -> Outcome {
    let container = counting(s)?;
    let mut command = s.command();
    command.args(["checkpoint", "--image-path", &s.directory("image")?, &container.id]);
    command.env("PATH", "/nonexistent");
    refused(s, &s.finish(command)?.refused()?)?;
    goes_on(&container)
}

fn of_an_unknown_container_is_refused(s: &Scene) -> Outcome {
    let said = s.call(&["checkpoint", "nosuch"])?.refused()?;
    s.says(&said, &["container does not exist"])
}

fn of_a_stopped_container_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    let said = container.verb("checkpoint", &["--image-path", &s.directory("image")?], &[])?.refused()?;
    s.says(
        &said,
        &[
            "cannot be checkpointed in stopped state",
            "container cannot be checkpointed",
            "Container cannot be checkpointed",
        ],
    )
}

fn restore_without_an_image_is_refused_and_leaves_nothing(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.bundle.write()?;
    let (bundle, image) = (container.bundle.directory.display().to_string(), s.directory("image")?);
    let said = container
        .verb("restore", &["--detach", "--image-path", &image, "--bundle", &bundle], &[])?
        .refused()?;
    holds(&format!("the words are known: {said}"), !said.contains("flag provided but not defined"))?;
    holds("no state is left", s.call(&["state", &container.id])?.code != 0)?;
    same("cgroups left", s.cgroups(&container.id).len(), 0)
}

fn restore_of_an_id_in_use_is_refused(s: &Scene) -> Outcome {
    let container = counting(s)?;
    let (bundle, image) = (container.bundle.directory.display().to_string(), s.directory("image")?);
    let said = container
        .verb("restore", &["--detach", "--image-path", &image, "--bundle", &bundle], &[])?
        .refused()?;
    s.says(&said, &["container with given ID already exists"])?;
    goes_on(&container)
}

fn every_option_is_taken(s: &Scene) -> Outcome {
    let container = counting(s)?;
    let (image, work) = (s.directory("image")?, s.directory("work")?);
    let words = [
        "--image-path",
        &image,
        "--work-path",
        &work,
        "--leave-running",
        "--tcp-established",
        "--ext-unix-sk",
        "--shell-job",
        "--file-locks",
        "--manage-cgroups-mode",
        "soft",
        "--empty-ns",
        "network",
        "--auto-dedup",
    ];
    let output = container.verb("checkpoint", &words, &[])?;
    let said = format!("{}{}", output.stdout, output.stderr);
    for text in
        ["Incorrect Usage", "flag provided but not defined", "unknown option", "flag needs an argument"]
    {
        holds(&format!("no `{text}` in {said:?}"), !said.contains(text))?;
    }
    goes_on(&container)
}
