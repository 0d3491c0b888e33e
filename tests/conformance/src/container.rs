//! One container of a case, by the runtime's command line.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::bundle::Bundle;
use crate::case::{Outcome, wait_for};
use crate::runtime::Output;
use crate::scene::{Running, Scene, read};

/// A bundle and the id that it is, or will be, run by.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) id: String,
    pub(crate) bundle: Bundle,
    /// What the container prints after `create`.
    pub(crate) log: RefCell<Option<PathBuf>>,
}

impl Container<'_> {
    /// The runtime with a verb, options and the id.
    pub(crate) fn command(&self, verb: &str, options: &[&str], rest: &[&str]) -> Command {
        let mut command = self.scene.command();
        command.arg(verb).args(options).arg(&self.id).args(rest);
        command
    }

    /// Runs a verb on it to its end.
    pub(crate) fn verb(&self, verb: &str, options: &[&str], rest: &[&str]) -> Outcome<Output> {
        self.scene.finish(self.command(verb, options, rest))
    }

    /// `run`, with options, to the container's end.
    pub(crate) fn run_with(&self, options: &[&str]) -> Outcome<Output> {
        self.bundle.write()?;
        let bundle = self.bundle.directory.display().to_string();
        self.verb("run", &[&["--bundle", &bundle], options].concat(), &[])
    }

    /// `run`, to the container's end.
    pub(crate) fn run(&self) -> Outcome<Output> {
        self.run_with(&[])
    }

    /// `run`, without waiting.
    pub(crate) fn spawn(&self) -> Outcome<Running> {
        self.bundle.write()?;
        let bundle = self.bundle.directory.display().to_string();
        self.scene.spawn(self.command("run", &["--bundle", &bundle], &[]))
    }

    /// `create`, with options; what it did, the container's output to come in the same files.
    pub(crate) fn try_create(&self, options: &[&str]) -> Outcome<Output> {
        self.bundle.write()?;
        let bundle = self.bundle.directory.display().to_string();
        let running =
            self.scene.spawn(self.command("create", &[&["--bundle", &bundle], options].concat(), &[]))?;
        *self.log.borrow_mut() = Some(running.stdout.clone());
        running.finish()
    }

    pub(crate) fn create_with(&self, options: &[&str]) -> Outcome {
        self.try_create(options)?.ok().map_err(|error| format!("create: {error}")).map(drop)
    }

    pub(crate) fn create(&self) -> Outcome {
        self.create_with(&[])
    }

    pub(crate) fn start(&self) -> Outcome {
        self.verb("start", &[], &[])?.ok().map_err(|error| format!("start: {error}")).map(drop)
    }

    /// `create` and `start`.
    pub(crate) fn up(&self) -> Outcome {
        self.create()?;
        self.start()
    }

    /// What the container has printed since `create`.
    pub(crate) fn output(&self) -> String {
        self.log.borrow().as_ref().map(read).unwrap_or_default()
    }

    /// Waits until the container has printed a text.
    pub(crate) fn expect(&self, text: &str) -> Outcome<String> {
        wait_for(&format!("`{text}` in the output"), || {
            let output = self.output();
            Ok(output.contains(text).then_some(output))
        })
        .map_err(|error| format!("{error}, but {:?}", self.output()))
    }

    pub(crate) fn state(&self) -> Outcome<Value> {
        self.scene.state(&self.id)
    }

    pub(crate) fn status(&self) -> Outcome<String> {
        Ok(self.state()?["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Its first process, as the host sees it.
    pub(crate) fn pid(&self) -> Outcome<i32> {
        let state = self.state()?;
        state["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| format!("no pid in {state}"))
    }

    /// Waits until `state` says so.
    pub(crate) fn wait_status(&self, status: &str) -> Outcome {
        wait_for(&format!("status {status}"), || Ok((self.status()? == status).then_some(())))
    }

    pub(crate) fn kill(&self, signal: &str) -> Outcome {
        self.verb("kill", &[], &[signal])?.ok().map_err(|error| format!("kill: {error}")).map(drop)
    }

    pub(crate) fn delete(&self) -> Outcome {
        self.verb("delete", &[], &[])?.ok().map_err(|error| format!("delete: {error}")).map(drop)
    }

    pub(crate) fn delete_force(&self) -> Outcome {
        self.scene.delete_force(&self.id)
    }

    /// `exec`, to the command's end.
    pub(crate) fn exec(&self, options: &[&str], words: &[&str]) -> Outcome<Output> {
        self.verb("exec", options, words)
    }

    /// A shell script inside; what it printed.
    pub(crate) fn sh(&self, script: &str) -> Outcome<String> {
        self.exec(&[], &["sh", "-c", script])?.ok()
    }

    /// A file of its cgroup in one hierarchy of version 1.
    pub(crate) fn cgroup_file(&self, controller: &str, file: &str) -> Outcome<String> {
        let cgroups = self.scene.cgroups(&self.id);
        let path = cgroups
            .get(controller)
            .ok_or_else(|| format!("no {controller} cgroup of {}, only {cgroups:?}", self.id))?
            .join(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        Ok(text.trim().to_owned())
    }
}
