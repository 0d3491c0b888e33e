//! One call of one plugin: where its program is, what it is told, what its answer means.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::conflist::is_plugin_name;
use super::plan::{CniNetwork, CniPlaces, CniPlan, CniVersion};
use super::program::{self, NoOutcome};
use super::{CniCall, CniError};

/// Where programs are looked for when the caller has no `PATH`: plugins call `iptables`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest message of a plugin that is shown, in characters.
const MAX_MESSAGE: usize = 2000;

/// What a plugin is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Check,
    Del,
    Gc,
    Status,
    Version,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Check => "CHECK",
            Verb::Del => "DEL",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }
}

/// The calls of one verb to the plugins of one network, which share a time limit.
pub(super) struct Caller<'a> {
    network: &'a CniNetwork,
    places: &'a CniPlaces,
    end: Instant,
}

/// An error as plugins write it.
#[derive(Deserialize)]
struct WrittenError {
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl<'a> Caller<'a> {
    pub(super) fn new(network: &'a CniNetwork, places: &'a CniPlaces) -> Caller<'a> {
        Caller { network, places, end: Instant::now() + places.time_limit }
    }

    /// Calls a plugin about a container; `netns` is empty when there is none any more.
    pub(super) fn call_for(
        &self,
        verb: Verb,
        plan: &CniPlan,
        netns: Option<&Path>,
        plugin: &Map<String, Value>,
        result: Option<&Value>,
    ) -> Result<Vec<u8>, CniError> {
        let mut input = self.input(plugin);
        let config = plan.request.runtime_config(plugin);
        if !config.is_empty() {
            input.insert("runtimeConfig".to_owned(), config.into());
        }
        if let Some(result) = result {
            input.insert("prevResult".to_owned(), result.clone());
        }
        let args: Vec<String> = plan.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let netns = netns.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let environment = vec![
            ("CNI_CONTAINERID", plan.container.to_string()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", plan.interface.clone()),
            ("CNI_ARGS", args.join(";")),
        ];
        self.call(verb, plugin, input, environment)
    }

    /// Calls a plugin about the network, with `more` in its configuration.
    pub(super) fn call_about(
        &self,
        verb: Verb,
        plugin: &Map<String, Value>,
        more: Option<(&str, Value)>,
    ) -> Result<Vec<u8>, CniError> {
        let mut input = self.input(plugin);
        input.extend(more.map(|(key, value)| (key.to_owned(), value)));
        self.call(verb, plugin, input, Vec::new())
    }

    /// The versions that a plugin speaks.
    pub(super) fn versions(&self, plugin: &Map<String, Value>) -> Result<Vec<String>, CniError> {
        #[derive(Deserialize)]
        struct Versions {
            #[serde(rename = "supportedVersions")]
            supported: Vec<String>,
        }
        let input = Map::from_iter([("cniVersion".to_owned(), self.network.version.as_str().into())]);
        let output = self.call(Verb::Version, plugin, input, Vec::new())?;
        serde_json::from_slice::<Versions>(&output).map(|versions| versions.supported).map_err(|error| {
            CniError::Answer { call: self.name(Verb::Version, plugin), reason: error.to_string() }
        })
    }

    /// Who is called for what.
    pub(super) fn name(&self, verb: Verb, plugin: &Map<String, Value>) -> CniCall {
        CniCall {
            network: self.network.name.clone(),
            plugin: plugin.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
            verb: verb.as_str(),
        }
    }

    /// A plugin's own configuration with what the specification has the runtime set and take away.
    fn input(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        let mut input = plugin.clone();
        for ours in ["capabilities", "runtimeConfig", "prevResult", "cniVersions"] {
            input.remove(ours);
        }
        input.insert("cniVersion".to_owned(), self.network.version.as_str().into());
        input.insert("name".to_owned(), self.network.name.as_str().into());
        input
    }

    fn call(
        &self,
        verb: Verb,
        plugin: &Map<String, Value>,
        input: Map<String, Value>,
        mut environment: Vec<(&str, String)>,
    ) -> Result<Vec<u8>, CniError> {
        let program = self.program(verb, plugin)?;
        let call = self.name(verb, plugin);
        let path = std::env::var("PATH").ok().filter(|path| !path.is_empty());
        let dirs: Vec<_> = self.places.plugin_dirs.iter().map(|dir| dir.to_string_lossy()).collect();
        environment.extend([
            ("PATH", path.unwrap_or_else(|| DEFAULT_PATH.to_owned())),
            ("CNI_COMMAND", verb.as_str().to_owned()),
            ("CNI_PATH", dirs.join(":")),
        ]);
        let input = Value::from(input).to_string();
        let outcome = match program::run(&program, &environment, input.as_bytes(), self.end) {
            Ok(outcome) => outcome,
            Err(NoOutcome::Io(source)) => return Err(CniError::Run { call, source }),
            Err(NoOutcome::Late) => {
                return Err(CniError::Late { call, seconds: self.places.time_limit.as_secs() });
            }
            Err(NoOutcome::TooMuch) => {
                return Err(CniError::Answer { call, reason: "it is larger than 1 MiB".to_owned() });
            }
        };
        if outcome.status.success() {
            return Ok(outcome.output);
        }
        let Ok(error) = serde_json::from_slice::<WrittenError>(&outcome.output) else {
            let talk = readable(&String::from_utf8_lossy(&outcome.talk));
            let said =
                if talk.is_empty() { "it says nothing".to_owned() } else { format!("it says: {talk}") };
            return Err(CniError::Answer { call, reason: format!("{}, and {said}", outcome.status) });
        };
        let (message, details) = (readable(&error.msg), readable(&error.details));
        let message = match (message.is_empty(), details.is_empty()) {
            (_, true) => message,
            (true, false) => details,
            (false, false) => format!("{message}: {details}"),
        };
        // Code 1 is about the version: the plugin itself knows which ones it speaks.
        let ask = error.code == 1 && verb != Verb::Version;
        let supported = if ask { self.versions(plugin).unwrap_or_default() } else { Vec::new() };
        Err(CniError::Failed { call, code: error.code, message, supported })
    }

    /// Refuses a chain with a plugin that is not there, before any of it runs: it could not be deleted either.
    pub(super) fn require_all(&self) -> Result<(), CniError> {
        self.network.plugins.iter().try_for_each(|plugin| self.program(Verb::Add, plugin).map(drop))
    }

    fn program(&self, verb: Verb, plugin: &Map<String, Value>) -> Result<PathBuf, CniError> {
        let call = self.name(verb, plugin);
        let found = self.find(&call.plugin);
        found.ok_or_else(|| CniError::NoPlugin { call, dirs: self.places.plugin_dirs.clone() })
    }

    /// The plugin's program: an executable file of that name in the first directory that has one.
    fn find(&self, kind: &str) -> Option<PathBuf> {
        // A plan may come from a record that somebody wrote into.
        if !is_plugin_name(kind) {
            return None;
        }
        let paths = self.places.plugin_dirs.iter().filter(|dir| dir.is_absolute()).map(|dir| dir.join(kind));
        paths.into_iter().find(|path| {
            path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
    }

    /// Reads the result of ADD; it has the version that was asked for from here on.
    pub(super) fn result(&self, plugin: &Map<String, Value>, output: &[u8]) -> Result<Value, CniError> {
        let wrong = |reason: String| CniError::Answer { call: self.name(Verb::Add, plugin), reason };
        let mut result: Map<String, Value> =
            serde_json::from_slice(output).map_err(|error| wrong(error.to_string()))?;
        let asked = self.network.version.as_str();
        match result.get("cniVersion") {
            None => drop(result.insert("cniVersion".to_owned(), asked.into())),
            Some(Value::String(version)) if version == asked => {}
            // 0.3.0 and 0.3.1 are the same.
            Some(Value::String(version))
                if CniVersion::of(version).is_some_and(|version| version <= CniVersion::V0_3_1)
                    && self.network.version <= CniVersion::V0_3_1 => {}
            Some(version) => return Err(wrong(format!("it is of version {version}, not of {asked}"))),
        }
        Ok(result.into())
    }
}

/// A plugin's words in one line that does nothing to a terminal.
fn readable(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(MAX_MESSAGE).collect()
}
