//! The process of an `exec`: by a file, or by the container's own with what the options change.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stanza_spec::oci::runtime::{Box as ConsoleSize, Process, Spec, User};

use crate::arguments::Parsed;
use crate::failure::{Doing, Failure};
use crate::validate::check_user;

/// The process that `exec ID [COMMAND...]` asks for; the id is the first word.
pub(crate) fn of(parsed: &Parsed, spec: &Spec) -> Result<Process, Failure> {
    if let Some(path) = parsed.value("process").filter(|path| !path.is_empty()) {
        let text = fs::read(path).doing("open", path)?;
        let mut process: Process = serde_json::from_slice(&text)
            .map_err(|error| Failure::Configuration(format!("{path}: {error}")))?;
        process.user_mut().set_username(None);
        return check(process);
    }
    let mut process = spec
        .process()
        .clone()
        .ok_or_else(|| Failure::Configuration("process property must not be empty".to_owned()))?;
    process.set_args(Some(parsed.words.iter().skip(1).cloned().collect()));
    process.set_terminal(Some(parsed.is_on("tty")));
    process.set_console_size(None::<ConsoleSize>);
    process.user_mut().set_username(None);
    if let Some(directory) = parsed.value("cwd").filter(|path| !path.is_empty()) {
        process.set_cwd(PathBuf::from(directory));
    }
    let added: Vec<String> = parsed.values("env").map(str::to_owned).collect();
    if !added.is_empty() {
        let mut variables = process.env().clone().unwrap_or_default();
        variables.extend(added);
        process.set_env(Some(variables));
    }
    if let Some(profile) = parsed.value("apparmor").filter(|profile| !profile.is_empty()) {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = parsed.value("process-label").filter(|label| !label.is_empty()) {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if parsed.is_on("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    let names: Vec<&str> = parsed.values("cap").collect();
    if !names.is_empty() {
        process = with_capabilities(&process, &names)?;
    }
    if let Some(text) = parsed.value("user").filter(|text| !text.is_empty()) {
        set_user(process.user_mut(), text)?;
    }
    let groups = parsed
        .values("additional-gids")
        .map(|text| id(text, "--additional-gids"))
        .collect::<Result<Vec<u32>, _>>()?;
    if !groups.is_empty() {
        let user = process.user_mut();
        let all = user.additional_gids().iter().flatten().copied().chain(groups).collect();
        user.set_additional_gids(Some(all));
    }
    check(process)
}

fn check(process: Process) -> Result<Process, Failure> {
    let refuse = |text: &str| Err(Failure::Configuration(text.to_owned()));
    if process.args().as_deref().unwrap_or_default().is_empty() {
        return refuse("process args cannot be empty");
    }
    check_user(process.user())?;
    if process.cwd() == Path::new("") {
        return refuse("Cwd property must not be empty");
    }
    if !process.cwd().is_absolute() {
        return refuse("Cwd must be an absolute path");
    }
    Ok(process)
}

/// The named capabilities besides those it has, never inheritable: a program could hand those on (CVE-2022-29162).
fn with_capabilities(process: &Process, names: &[&str]) -> Result<Process, Failure> {
    let mut value = serde_json::to_value(process).map_err(Failure::below)?;
    let ambient_before = process.capabilities().as_ref().is_some_and(|sets| sets.ambient().is_some());
    for set in ["bounding", "effective", "permitted", "ambient"] {
        if set == "ambient" && !ambient_before {
            continue;
        }
        let place = &mut value["capabilities"][set];
        if !place.is_array() {
            *place = json!([]);
        }
        for name in names {
            let name = Value::from(name.to_ascii_uppercase());
            if let Some(list) = place.as_array_mut().filter(|list| !list.contains(&name)) {
                list.push(name);
            }
        }
    }
    serde_json::from_value(value)
        .map_err(|_| Failure::Usage(format!("unknown capability among --cap {}", names.join(" --cap "))))
}

/// `UID[:GID]`, numbers only: exactly these or an error, never root by default (CVE-2026-30892).
fn set_user(user: &mut User, text: &str) -> Result<(), Failure> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    user.set_uid(id(uid, "--user")?);
    if let Some(gid) = gid {
        user.set_gid(id(gid, "--user")?);
    }
    Ok(())
}

fn id(text: &str, option: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // 4294967295 is the kernel's "no id".
    let number = text.parse::<u32>().ok().filter(|number| digits && *number != u32::MAX);
    number.ok_or_else(|| Failure::Usage(format!("invalid value {text:?} for {option}: expected a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_its_numbers_or_an_error() {
        let user = |text: &str| {
            let mut user = User::default();
            set_user(&mut user, text).map(|()| (user.uid(), user.gid()))
        };
        assert_eq!(user("5").unwrap(), (5, 0));
        assert_eq!(user("5:6").unwrap(), (5, 6));
        for bad in
            ["1000:", ":100", ":", "+5", "-1", "4294967295", "4294967296", "0x0", "root", "1:staff", " 1"]
        {
            assert!(user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn added_capabilities_are_not_inheritable() {
        let process: Process = serde_json::from_value(json!({
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["x"], "capabilities": {"bounding": ["CAP_KILL"]}
        }))
        .unwrap();
        let process = with_capabilities(&process, &["CAP_SYS_ADMIN"]).unwrap();
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 2);
        assert!(sets.inheritable().is_none() && sets.ambient().is_none());
        assert!(with_capabilities(&process, &["CAP_FLY"]).is_err());
    }
}
