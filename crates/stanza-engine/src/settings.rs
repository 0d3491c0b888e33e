//! The configuration file: what an administrator decides once for all commands.
//!
//! It is read when something that it decides is about to be done: what a `create` or `run` of an unpacked image asks of it is
//! the storage driver, unless the command line or the environment says that.
//! `docs/configuration.md` tells every field.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use stanza_network::{Pool, Publish, Subnet};
use stanza_snapshot::{StorageDriver, UnknownDriver};
use stanza_spec::units::parse_bytes;
use stanza_spec::{Classify, ErrorKind};

use crate::Engine;

/// What the configuration file says; absent fields and an absent file have the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[images]`.
    pub images: ImageSettings,
    /// `[network]`.
    pub network: NetworkSettings,
    /// `[storage]`.
    pub storage: StorageSettings,
}

/// `[network]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkSettings {
    /// Ranges that networks without a subnet of their own get parts of; empty is the engine's own choice.
    #[serde(deserialize_with = "pools")]
    pub default_address_pools: Vec<Pool>,
    /// The subnet of the default network, while it is not made yet; `None` lets the engine choose.
    #[serde(deserialize_with = "ipv4_subnet")]
    pub default_subnet: Option<Subnet>,
    /// The bridge of the default network, while it is not made yet; `None` is `stanza0`, or `stanza-` and eight digits for
    /// other roots.
    #[serde(deserialize_with = "device")]
    pub default_bridge: Option<String>,
    /// The largest packet of the default network in bytes, while it is not made yet; `None` is 1500.
    pub mtu: Option<u32>,
    /// Whether published ports pass a firewall of the host that drops what it does not allow.
    pub publish: Publish,
    /// Name servers of containers that name none; empty is the host's.
    pub dns: Vec<IpAddr>,
    /// Domains that short names are tried in; empty is the host's.
    pub dns_search: Vec<String>,
    /// Options of the resolver; empty is the host's.
    pub dns_options: Vec<String>,
    /// Where configurations of CNI networks are, in the order of their weight; empty is `/etc/cni/net.d`.
    #[serde(deserialize_with = "directories")]
    pub cni_config_dirs: Vec<PathBuf>,
    /// Where CNI plugins are, in the order of their weight; empty is where distributions put them.
    #[serde(deserialize_with = "directories")]
    pub cni_plugin_dirs: Vec<PathBuf>,
}

/// Paths that mean the same from everywhere.
fn directories<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => {
            Err(D::Error::custom(format!("`{}` is no absolute path of a directory", path.display())))
        }
        None => Ok(paths),
    }
}

/// A pool as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolText {
    base: String,
    size: u8,
}

fn pools<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pool>, D::Error> {
    let texts = Vec::<PoolText>::deserialize(deserializer)?;
    let pool = |text: PoolText| {
        let base: Subnet = text.base.parse().map_err(D::Error::custom)?;
        let longest = if base.is_ipv6() { 126 } else { 30 };
        if (base.prefix()..=longest).contains(&text.size) {
            Ok(Pool { base, size: text.size })
        } else {
            let (size, first) = (text.size, base.prefix());
            Err(D::Error::custom(format!(
                "the size `{size}` of parts of `{base}` is not from {first} to {longest}"
            )))
        }
    };
    texts.into_iter().map(pool).collect()
}

fn ipv4_subnet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Subnet>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let subnet: Subnet = text.parse().map_err(D::Error::custom)?;
    if subnet.is_ipv6() || subnet.first_host().is_none() {
        return Err(D::Error::custom(format!("`{text}` is no IPv4 subnet with a prefix of at most 30")));
    }
    Ok(Some(subnet))
}

fn device<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if crate::networks::is_device_name(&text) {
        Ok(Some(text))
    } else {
        Err(D::Error::custom(format!(
            "`{text}` is no name of a network device: 1 to 15 bytes, without `/`, `:` and blanks"
        )))
    }
}

/// `[images]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageSettings {
    /// Bytes that compressed blobs and unpacked layers may take together; `None` is without limit.
    #[serde(deserialize_with = "size")]
    pub budget: Option<u64>,
    /// Over the budget, also images that no container uses are removed, least recently used first.
    pub evict: bool,
    /// How long what came of a download that was cut is kept; default a day.
    #[serde(deserialize_with = "length_of_time")]
    pub partial_age: Duration,
    /// Layers that come in at once: 1 to 64, default 4.
    #[serde(deserialize_with = "downloads")]
    pub max_concurrent_downloads: usize,
}

impl Default for ImageSettings {
    fn default() -> ImageSettings {
        ImageSettings {
            budget: None,
            evict: false,
            partial_age: Duration::from_secs(24 * 60 * 60),
            max_concurrent_downloads: 4,
        }
    }
}

/// `[storage]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSettings {
    /// How layers are stored and become root file systems; `None`, in the file `auto`, is what works here.
    #[serde(deserialize_with = "driver")]
    pub driver: Option<StorageDriver>,
}

fn driver<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StorageDriver>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "auto" {
        return Ok(None);
    }
    let fail = |error| format!("{error}: expected `auto`, `overlay`, `erofs` or `copy`");
    text.parse().map(Some).map_err(|error: UnknownDriver| D::Error::custom(fail(error)))
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_bytes(&text).map(Some).map_err(D::Error::custom)
}

fn length_of_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fail =
        || D::Error::custom(format!("`{text}` is not a length of time: expected one as `90m` or `24h`"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(fail()),
    };
    let number: u64 = digits.parse().map_err(|_| fail())?;
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(fail)
}

fn downloads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let number = i64::deserialize(deserializer)?;
    usize::try_from(number)
        .ok()
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(|| D::Error::custom(format!("`{number}` is not a number from 1 to 64")))
}

/// Why the configuration file does not count.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read, or was named and is not there.
    #[error("cannot read the configuration file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says something that cannot be.
    #[error("configuration file `{}`, line {line}: {reason}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there, with what is allowed.
        reason: String,
    },
}

impl Classify for SettingsError {
    fn kind(&self) -> ErrorKind {
        match self {
            SettingsError::Read { source, .. } => ErrorKind::of_io(source),
            SettingsError::Wrong { .. } => ErrorKind::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SettingsError::Read { .. } => None,
            SettingsError::Wrong { .. } => Some("docs/configuration.md tells every field".to_owned()),
        }
    }
}

impl Settings {
    /// Reads a file. One that was not asked for by name (`required`) may be absent.
    ///
    /// # Errors
    /// When it cannot be read, or says something that cannot be.
    pub fn read(path: &Path, required: bool) -> Result<Settings, SettingsError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Settings::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Ok(Settings::default()),
            Err(source) => Err(SettingsError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Settings, SettingsError> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            SettingsError::Wrong {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                // In one line, whatever it quotes.
                reason: error.message().replace('\n', " "),
            }
        })
    }
}

/// Where the configuration file is, and whether it was asked for by name: `given`, `STANZA_CONFIG`, or the user's own
/// place.
pub(crate) fn place(
    given: Option<&Path>,
    rootless: bool,
    variable: &dyn Fn(&str) -> Option<PathBuf>,
) -> Option<(PathBuf, bool)> {
    if let Some(path) = given.map(Path::to_path_buf).or_else(|| variable("STANZA_CONFIG")) {
        return Some((path, true));
    }
    if !rootless {
        return Some((PathBuf::from("/etc/stanza/config.toml"), false));
    }
    let home = || variable("HOME").map(|home| home.join(".config"));
    let directory = variable("XDG_CONFIG_HOME").or_else(home)?;
    Some((directory.join("stanza/config.toml"), false))
}

impl Engine {
    /// What the configuration file says; read once.
    ///
    /// # Errors
    /// When it cannot be read, or says something that cannot be.
    pub fn settings(&mut self) -> Result<&Settings, SettingsError> {
        if self.settings.is_none() {
            let variable =
                |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let settings = match place(self.options.config.as_deref(), self.options.rootless, &variable) {
                Some((path, required)) => Settings::read(&path, required)?,
                None => Settings::default(),
            };
            self.settings = Some(settings);
        }
        Ok(self.settings.as_ref().expect("they were read above"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("c.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_field_is_read_and_what_is_absent_has_its_default() {
        let text = "[images]\nbudget = \"2g\"\nevict = true\npartial-age = \"90m\"\nmax-concurrent-downloads = 9\n\
                    [storage]\ndriver = \"erofs\"\n";
        let expected = Settings {
            images: ImageSettings {
                budget: Some(2 << 30),
                evict: true,
                partial_age: Duration::from_secs(5400),
                max_concurrent_downloads: 9,
            },
            network: NetworkSettings::default(),
            storage: StorageSettings { driver: Some(StorageDriver::Erofs) },
        };
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse(""), Ok(Settings::default()));
        assert_eq!(parse("[storage]\ndriver = \"auto\""), Ok(Settings::default()));
        assert_eq!(parse("[images]\nevict = true").unwrap().images.max_concurrent_downloads, 4);
    }

    #[test]
    fn the_networks_settings_are_read() {
        let text = "[network]\ndefault-address-pools = [{base = \"10.9.0.0/16\", size = 24}]\n\
                    default-subnet = \"10.8.0.0/16\"\ndefault-bridge = \"lan0\"\nmtu = 1400\npublish = \"open\"\n\
                    dns = [\"9.9.9.9\", \"fd00::1\"]\ndns-search = [\"lan\"]\ndns-options = [\"ndots:2\"]\n\
                    cni-config-dirs = [\"/c\"]\ncni-plugin-dirs = [\"/p\", \"/q\"]\n";
        let expected = NetworkSettings {
            default_address_pools: vec![Pool { base: "10.9.0.0/16".parse().unwrap(), size: 24 }],
            default_subnet: Some("10.8.0.0/16".parse().unwrap()),
            default_bridge: Some("lan0".to_owned()),
            mtu: Some(1400),
            publish: Publish::Open,
            dns: vec![[9, 9, 9, 9].into(), "fd00::1".parse().unwrap()],
            dns_search: vec!["lan".to_owned()],
            dns_options: vec!["ndots:2".to_owned()],
            cni_config_dirs: vec!["/c".into()],
            cni_plugin_dirs: vec!["/p".into(), "/q".into()],
        };
        assert_eq!(parse(text).unwrap().network, expected);
        assert_eq!(parse("").unwrap().network.publish, Publish::RespectFirewall);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_is_allowed() {
        for (text, line, word, allowed) in [
            ("[images]\n\nbudgte = \"1g\"", 3, "budgte", "`budget`"),
            ("[image]", 1, "image", "`images`"),
            ("[storage]\ndriver = \"zfs\"", 2, "zfs", "`overlay`"),
            ("[images]\nbudget = \"much\"", 2, "much", "64m"),
            ("[images]\npartial-age = \"1y\"", 2, "1y", "24h"),
            ("[images]\nmax-concurrent-downloads = 0", 2, "0", "1 to 64"),
            ("[images]\nevict = 3", 2, "3", "boolean"),
            ("[network]\ndefault-address-pools = [{base = \"10.9.0.0/16\", size = 8}]", 2, "8", "16 to 30"),
            ("[network]\ndefault-subnet = \"fd00::/64\"", 2, "fd00::/64", "IPv4"),
            ("[network]\ndefault-bridge = \"a b\"", 2, "a b", "15 bytes"),
            ("[network]\npublish = \"always\"", 2, "always", "open"),
            ("[network]\ncni-config-dirs = [\"net.d\"]", 2, "net.d", "absolute"),
            ("a = \n", 1, "", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("configuration file `c.toml`, line {line}: ")), "{error}");
            assert!(error.contains(word) && error.contains(allowed) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let missing = Path::new("/nonexistent/config.toml");
        assert_eq!(Settings::read(missing, false).unwrap(), Settings::default());
        assert!(matches!(Settings::read(missing, true), Err(SettingsError::Read { .. })));
    }

    #[test]
    fn root_and_users_have_their_own_files() {
        let find = |given: Option<&str>, rootless: bool, env: &[(&str, &str)]| {
            let variable =
                |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            place(given.map(Path::new), rootless, &variable)
                .map(|(path, required)| (path.display().to_string(), required))
        };
        let is = |path: &str, required: bool| Some((path.to_owned(), required));
        assert_eq!(find(None, false, &[("HOME", "/h")]), is("/etc/stanza/config.toml", false));
        assert_eq!(find(None, true, &[("HOME", "/h")]), is("/h/.config/stanza/config.toml", false));
        let user = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")];
        assert_eq!(find(None, true, &user), is("/x/stanza/config.toml", false));
        assert_eq!(find(None, true, &[]), None);
        assert_eq!(find(None, false, &[("STANZA_CONFIG", "/c")]), is("/c", true));
        assert_eq!(find(Some("/g"), true, &[("STANZA_CONFIG", "/c")]), is("/g", true));
    }
}
