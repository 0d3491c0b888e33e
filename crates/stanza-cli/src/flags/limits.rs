//! `--ulimit`, `--cpuset-cpus`, `--pids-limit`.

use stanza_spec::Ulimit;

use super::FlagError;

const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, FlagError> {
    let fail = |reason: String| FlagError::new("--ulimit", reason);
    let Some((name, limits)) = text.split_once('=') else {
        return Err(fail(format!("`{text}` is not of the form `name=soft[:hard]`")));
    };
    let name = name.to_ascii_lowercase();
    if !NAMES.contains(&name.as_str()) {
        return Err(fail(format!("there is no limit `{name}`")).hint(format!("limits: {}", NAMES.join(", "))));
    }
    let number = |text: &str| match text {
        "unlimited" | "infinity" => Ok(-1),
        _ => match text.parse::<i64>() {
            Ok(number) if number >= -1 => Ok(number),
            _ => Err(fail(format!("`{text}` is not a limit: expected a number or -1"))),
        },
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(fail(format!("the soft limit of `{name}` is above its hard limit")));
    }
    Ok(Ulimit { name, soft, hard })
}

/// A list of processors as the kernel reads it: `0-2,5`.
pub(crate) fn cpuset(text: &str) -> Result<String, FlagError> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let legal = |part: &str| match part.split_once('-') {
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
        None => number(part).is_some(),
    };
    if text.split(',').all(legal) {
        return Ok(text.to_owned());
    }
    Err(FlagError::new("--cpuset-cpus", format!("`{text}` is not a list of processors"))
        .hint("write numbers and ranges, as `0-2,5`"))
}

/// A number of processes; 0 and -1 are unlimited, as in Docker.
pub(crate) fn pids(text: &str) -> Result<i64, FlagError> {
    match text.parse::<i64>() {
        Ok(0 | -1) => Ok(-1),
        Ok(number) if number > 0 => Ok(number),
        _ => Err(FlagError::new("--pids-limit", format!("`{text}` is not a number of processes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_have_a_name_and_one_or_two_numbers() {
        let limit = |name: &str, soft, hard| Ok(Ulimit { name: name.to_owned(), soft, hard });
        assert_eq!(ulimit("nofile=1024"), limit("nofile", 1024, 1024));
        assert_eq!(ulimit("NPROC=10:-1"), limit("nproc", 10, -1));
        assert_eq!(ulimit("core=unlimited"), limit("core", -1, -1));
        for bad in ["nofile", "nope=1", "nofile=", "nofile=2:1", "nofile=-1:5", "nofile=-2", "nofile=1:2:3"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_and_processes() {
        assert_eq!(cpuset("0-2,5"), Ok("0-2,5".to_owned()));
        for bad in ["", "a", "2-1", "1,", "+1", "1-2-3", "-1"] {
            assert!(cpuset(bad).is_err(), "{bad}");
        }
        assert_eq!((pids("0"), pids("-1"), pids("100")), (Ok(-1), Ok(-1), Ok(100)));
        assert!(pids("-2").is_err() && pids("x").is_err());
    }
}
