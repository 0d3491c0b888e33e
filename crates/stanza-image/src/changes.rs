//! The Dockerfile instructions that `import -c` and `commit -c` take.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use stanza_spec::oci::image::Config;

/// What Docker keeps in a configuration beside what the OCI describes: `Healthcheck`, `OnBuild`, `Shell`.
pub(crate) type Extra = Map<String, Value>;

/// Applies one instruction as `commit` takes it: also those of Docker's own.
pub(crate) fn apply_all(config: &mut Config, extra: &mut Extra, change: &str) -> Result<(), String> {
    let (name, rest) = split(change);
    match name.as_str() {
        "HEALTHCHECK" => {
            extra.insert("Healthcheck".to_owned(), healthcheck(rest)?);
        }
        "ONBUILD" => {
            let (first, _) = split(rest);
            if matches!(first.as_str(), "" | "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(
                    "`ONBUILD` wants an instruction other than `ONBUILD`, `FROM` and `MAINTAINER`".to_owned()
                );
            }
            match extra.entry("OnBuild").or_insert_with(|| json!([])) {
                Value::Array(all) => all.push(rest.into()),
                other => *other = json!([rest]),
            }
        }
        _ => return apply(config, change),
    }
    Ok(())
}

/// An instruction's name in capitals, and what follows it.
fn split(change: &str) -> (String, &str) {
    let change = change.trim();
    let (name, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    (name.to_ascii_uppercase(), rest.trim())
}

/// `[--interval=D] [--timeout=D] [--start-period=D] [--start-interval=D] [--retries=N] CMD …`, or `NONE`.
fn healthcheck(text: &str) -> Result<Value, String> {
    let mut rest = text;
    let mut check = Map::new();
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        rest = after.trim_start();
        let (key, value) = option.split_once('=').ok_or_else(|| format!("`--{option}` has no value"))?;
        let name = match key {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => {
                let number: u32 = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
                check.insert("Retries".to_owned(), number.into());
                continue;
            }
            _ => return Err(format!("`--{}` is not an option of `HEALTHCHECK`", key.escape_debug())),
        };
        let time =
            nanoseconds(value).ok_or_else(|| format!("`{}` is not a duration", value.escape_debug()))?;
        check.insert(name.to_owned(), time.into());
    }
    let (kind, command) = split(rest);
    let test = match kind.as_str() {
        "NONE" if command.is_empty() && check.is_empty() => json!(["NONE"]),
        "CMD" if !command.is_empty() => match json_list(command) {
            Some(words) => Value::from_iter(std::iter::once("CMD".to_owned()).chain(words)),
            None => json!(["CMD-SHELL", command]),
        },
        _ => return Err("`HEALTHCHECK` wants `CMD` and a command, or `NONE`".to_owned()),
    };
    check.insert("Test".to_owned(), test);
    Ok(Value::Object(check))
}

/// A duration as Go writes it (`1m30s`, `1.5s`, `200ms`), in nanoseconds.
fn nanoseconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, after) = rest.split_at(end);
        let length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        rest = after;
        let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().ok()? };
        let mut part = unit;
        let mut sum = whole.checked_mul(unit)?;
        for digit in fraction.chars() {
            part /= 10;
            sum = sum.checked_add(u64::from(digit.to_digit(10)?) * part)?;
        }
        total = total.checked_add(sum)?;
    }
    (!text.is_empty()).then_some(total)
}

/// Applies one instruction.
pub(crate) fn apply(config: &mut Config, change: &str) -> Result<(), String> {
    let (name, rest) = split(change);
    if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(format!("`{}` wants an argument", name.escape_debug()));
    }
    match name.as_str() {
        "CMD" => {
            config.set_cmd(Some(command(rest)));
        }
        "ENTRYPOINT" => {
            config.set_entrypoint(Some(command(rest)));
        }
        "USER" => {
            config.set_user(Some(single(rest)?));
        }
        "WORKDIR" => {
            config.set_working_dir(Some(working_directory(config.working_dir().as_deref(), &single(rest)?)));
        }
        "STOPSIGNAL" => {
            config.set_stop_signal(Some(single(rest)?));
        }
        "ENV" => {
            let mut all = config.env().clone().unwrap_or_default();
            for (key, value) in pairs(rest)? {
                all.retain(|old| old.split('=').next() != Some(&key));
                all.push(format!("{key}={value}"));
            }
            config.set_env(Some(all));
        }
        "LABEL" => {
            let mut all: HashMap<String, String> = config.labels().clone().unwrap_or_default();
            all.extend(pairs(rest)?);
            config.set_labels(Some(all));
        }
        "EXPOSE" => {
            let mut all = config.exposed_ports().clone().unwrap_or_default();
            for word in words(rest)? {
                add(&mut all, port(&word)?);
            }
            config.set_exposed_ports(Some(all));
        }
        "VOLUME" => {
            let mut all = config.volumes().clone().unwrap_or_default();
            for path in json_list(rest).map_or_else(|| words(rest), Ok)? {
                add(&mut all, path);
            }
            config.set_volumes(Some(all));
        }
        other => {
            return Err(format!(
                "`{}` is not an instruction that can be applied to an image",
                other.escape_debug()
            ));
        }
    }
    Ok(())
}

fn add(all: &mut Vec<String>, item: String) {
    if !all.contains(&item) {
        all.push(item);
    }
}

/// The exec form is a JSON list; anything else goes to a shell.
fn command(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    json_list(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn single(text: &str) -> Result<String, String> {
    match <[String; 1]>::try_from(words(text)?) {
        Ok([word]) => Ok(word),
        Err(_) => Err("it wants one argument".to_owned()),
    }
}

/// Relative to the one before, as in a Dockerfile.
fn working_directory(before: Option<&str>, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    format!("{}/{path}", before.unwrap_or("").trim_end_matches('/'))
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn port(text: &str) -> Result<String, String> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last && matches!(protocol.as_str(), "tcp" | "udp" | "sctp") => {
            Ok(format!("{range}/{protocol}"))
        }
        _ => Err(format!("`{}` is not a port", text.escape_debug())),
    }
}

/// `key=value …`, or the old form `key value`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if words.first().is_some_and(|first| !first.contains('=')) {
        let (key, value) =
            text.split_once(char::is_whitespace).ok_or_else(|| "it wants `key=value`".to_owned())?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("`{}` is not `key=value`", word.escape_debug())),
        })
        .collect()
}

/// Words parted by white space; quotes and backslashes keep it together.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = characters.next().ok_or("it ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[&str]) -> Config {
        let mut config = Config::default();
        for change in changes {
            apply(&mut config, change).unwrap();
        }
        config
    }

    #[test]
    fn instructions_mean_what_they_mean_in_a_dockerfile() {
        let config = config(&[
            r#"CMD ["sh", "-l"]"#,
            "entrypoint run me",
            "ENV A=1 B='two words' C=\\ x",
            "ENV D four words here",
            "ENV A=2",
            "WORKDIR /srv",
            "WORKDIR app",
            "USER 1000:1000",
            "EXPOSE 80 53/UDP 80/tcp",
            r#"VOLUME ["/data", "/log"]"#,
            "VOLUME /data /more",
            r#"LABEL a.b="c d" e=f"#,
            "STOPSIGNAL SIGQUIT",
        ]);
        let list = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>());
        assert_eq!(config.cmd(), &list(&["sh", "-l"]));
        assert_eq!(config.entrypoint(), &list(&["/bin/sh", "-c", "run me"]));
        assert_eq!(config.env(), &list(&["B=two words", "C= x", "D=four words here", "A=2"]));
        assert_eq!(config.working_dir().as_deref(), Some("/srv/app"));
        assert_eq!(config.user().as_deref(), Some("1000:1000"));
        assert_eq!(config.exposed_ports(), &list(&["80/tcp", "53/udp"]));
        assert_eq!(config.volumes(), &list(&["/data", "/log", "/more"]));
        assert_eq!(config.labels().as_ref().unwrap()["a.b"], "c d");
        assert_eq!(config.stop_signal().as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn wrong_instructions_are_refused() {
        for bad in ["RUN x", "", "ENV", "ENV =x", "EXPOSE 0", "EXPOSE 99999", "USER a b", "LABEL 'x", "ENV A"]
        {
            assert!(apply(&mut Config::default(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dockers_own_instructions_are_kept_beside() {
        let mut extra = Extra::new();
        for change in [
            "healthcheck --interval=1m30s --timeout=1.5s --retries=3 CMD curl -f http://localhost/",
            "ONBUILD RUN make",
            "onbuild ADD . /app",
        ] {
            apply_all(&mut Config::default(), &mut extra, change).unwrap();
        }
        let expected = json!({
            "Healthcheck": {
                "Interval": 90_000_000_000_u64, "Timeout": 1_500_000_000, "Retries": 3,
                "Test": ["CMD-SHELL", "curl -f http://localhost/"],
            },
            "OnBuild": ["RUN make", "ADD . /app"],
        });
        assert_eq!(Value::Object(extra.clone()), expected);
        apply_all(&mut Config::default(), &mut extra, r#"HEALTHCHECK CMD ["a", "b"]"#).unwrap();
        assert_eq!(extra["Healthcheck"], json!({ "Test": ["CMD", "a", "b"] }));
        apply_all(&mut Config::default(), &mut extra, "HEALTHCHECK NONE").unwrap();
        assert_eq!(extra["Healthcheck"], json!({ "Test": ["NONE"] }));
        for bad in [
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=5 CMD x",
            "HEALTHCHECK --x=1s CMD x",
            "HEALTHCHECK --interval= CMD x",
            "HEALTHCHECK RUN x",
            "ONBUILD",
            "ONBUILD FROM x",
            "RUN x",
        ] {
            assert!(apply_all(&mut Config::default(), &mut extra, bad).is_err(), "{bad}");
        }
    }
}
