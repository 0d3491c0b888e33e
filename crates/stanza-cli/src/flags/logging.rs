//! `--log-driver` and `--log-opt`.

use stanza_spec::{LogConfig, LogDriver};

use super::{FlagError, bytes};

/// The log's configuration.
pub(crate) fn log<'a>(
    driver: Option<&str>,
    options: impl Iterator<Item = &'a str>,
) -> Result<LogConfig, FlagError> {
    let mut log = LogConfig {
        driver: match driver {
            None | Some("" | "json-file") => LogDriver::JsonFile,
            Some("none") => LogDriver::None,
            Some(
                other @ ("local" | "journald" | "syslog" | "gelf" | "fluentd" | "awslogs" | "splunk"
                | "etwlogs" | "gcplogs" | "k8s-file" | "passthrough"),
            ) => return Err(FlagError::not_built("--log-driver", other).hint("drivers: json-file, none")),
            Some(other) => {
                return Err(FlagError::new("--log-driver", format!("there is no log driver `{other}`"))
                    .hint("drivers: json-file, none"));
            }
        },
        ..LogConfig::default()
    };
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "max-size" if value == "-1" => log.max_size = Some(u64::MAX),
            "max-size" => log.max_size = Some(bytes::size("--log-opt", value)?),
            "max-file" => match value.parse::<u32>() {
                Ok(count) if count > 0 => log.max_files = Some(count),
                _ => {
                    let reason = format!("`max-file={value}` is not a number of files, at least 1");
                    return Err(FlagError::new("--log-opt", reason));
                }
            },
            "labels" | "labels-regex" | "env" | "env-regex" | "tag" | "compress" | "mode"
            | "max-buffer-size" => {
                return Err(FlagError::not_built("--log-opt", key).hint("options: max-size, max-file"));
            }
            _ => {
                return Err(FlagError::new("--log-opt", format!("there is no log option `{key}`"))
                    .hint("options: max-size, max-file"));
            }
        }
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_and_options_are_read_or_refused_by_name() {
        let read = |driver, options: &[&'static str]| log(driver, options.iter().copied());
        assert_eq!(read(None, &[]), Ok(LogConfig::default()));
        assert_eq!(
            read(Some("json-file"), &["max-size=10m", "max-file=3"]),
            Ok(LogConfig { driver: LogDriver::JsonFile, max_size: Some(10 << 20), max_files: Some(3) })
        );
        assert_eq!(read(Some("none"), &[]).unwrap().driver, LogDriver::None);
        assert!(read(Some("syslog"), &[]).unwrap_err().unsupported);
        assert!(!read(Some("nope"), &[]).unwrap_err().unsupported);
        for bad in ["max-file=0", "max-size=x", "nope=1", "tag=x"] {
            assert!(read(None, &[bad]).is_err(), "{bad}");
        }
    }
}
