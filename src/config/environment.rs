//! The environment as a configuration layer: `OUTHAUL__BLOCK__KEY`, and the shortcuts for what lies in lists.
//!
//! The variables are handed in, so nothing here reads the process' environment except [`Environment::of_process`]. An
//! empty variable counts as unset, because that is what an empty default in a Compose file leaves behind. A variable
//! that begins with `OUTHAUL_` and means nothing is an error, except the ones that Docker and Kubernetes set by
//! themselves for a service that happens to be called outhaul. Values are never expanded.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use config::{Map, Value, ValueKind};

use super::problem::{Place, Places, Problem, item, join};
use super::unknown;

/// What every variable of ours begins with.
const PREFIX: &str = "OUTHAUL_";

/// Between the levels of a key.
const LEVEL: &str = "__";

/// The variable that names the configuration file.
pub(super) const CONFIG_FILE: &str = "OUTHAUL_CONFIG_FILE";

/// The variable that the Docker command line uses for the engine's address.
pub(super) const DOCKER_HOST: &str = "DOCKER_HOST";

/// Shortcuts for keys outside lists.
const SHORTCUTS: [(&str, &str); 5] = [
    ("OUTHAUL_BUFFER_PATH", "buffer.path"),
    ("OUTHAUL_INSTANCE", "global.external_labels.instance"),
    ("OUTHAUL_LOG_FORMAT", "log.format"),
    ("OUTHAUL_LOG_LEVEL", "log.level"),
    ("OUTHAUL_PUSHGATEWAY_URL", "pushgateway.url"),
];

/// A shortcut for a key of the first remote-write endpoint.
struct EndpointShortcut {
    variable: &'static str,
    /// Block and key, or an empty block.
    key: (&'static str, &'static str),
    /// What the variable replaces, because only one of them may be there.
    replaces: &'static [(&'static str, &'static str)],
}

const BEARER_KEYS: [(&str, &str); 3] = [("", "authorization"), ("", "bearer_token"), ("", "bearer_token_file")];

/// Shortcuts for the first remote-write endpoint, which as an item of a list has no `OUTHAUL__` name.
const ENDPOINT_SHORTCUTS: [EndpointShortcut; 7] = [
    EndpointShortcut { variable: "OUTHAUL_REMOTE_WRITE_URL", key: ("", "url"), replaces: &[] },
    EndpointShortcut {
        variable: "OUTHAUL_REMOTE_WRITE_USERNAME",
        key: ("basic_auth", "username"),
        replaces: &[BEARER_KEYS[0], BEARER_KEYS[1], BEARER_KEYS[2], ("basic_auth", "username_file")],
    },
    EndpointShortcut {
        variable: "OUTHAUL_REMOTE_WRITE_PASSWORD",
        key: ("basic_auth", "password"),
        replaces: &[BEARER_KEYS[0], BEARER_KEYS[1], BEARER_KEYS[2], ("basic_auth", "password_file")],
    },
    EndpointShortcut {
        variable: "OUTHAUL_REMOTE_WRITE_PASSWORD_FILE",
        key: ("basic_auth", "password_file"),
        replaces: &[BEARER_KEYS[0], BEARER_KEYS[1], BEARER_KEYS[2], ("basic_auth", "password")],
    },
    EndpointShortcut {
        variable: "OUTHAUL_REMOTE_WRITE_BEARER_TOKEN",
        key: ("authorization", "credentials"),
        replaces: &[("", "basic_auth"), BEARER_KEYS[0], BEARER_KEYS[1], BEARER_KEYS[2]],
    },
    EndpointShortcut {
        variable: "OUTHAUL_REMOTE_WRITE_BEARER_TOKEN_FILE",
        key: ("authorization", "credentials_file"),
        replaces: &[("", "basic_auth"), BEARER_KEYS[0], BEARER_KEYS[1], BEARER_KEYS[2]],
    },
    EndpointShortcut { variable: "OUTHAUL_REMOTE_WRITE_TENANT", key: ("headers", TENANT_HEADER), replaces: &[] },
];

/// The header by which Mimir, Cortex and Loki tell tenants apart.
const TENANT_HEADER: &str = "X-Scope-OrgID";

/// Keys that hold lists, whose items have no `OUTHAUL__` name.
const LISTS: [&str; 6] = ["docker", "dockerhub", "portainer", "profiles", "remote_write", "scrape_configs"];

/// The environment variables that a configuration may use.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, Option<String>>);

/// The value of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable<'a> {
    /// There is none.
    Unset,
    /// It is not UTF-8.
    NotUnicode,
    /// Its text.
    Text(&'a str),
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::of_variables(std::env::vars_os())
    }

    /// These variables; a name that is not UTF-8 is none that anybody can ask for.
    pub(super) fn of_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let variables = variables.into_iter();
        Self(variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()))).collect())
    }

    pub(super) fn get(&self, name: &str) -> Variable<'_> {
        match self.0.get(name) {
            None => Variable::Unset,
            Some(None) => Variable::NotUnicode,
            Some(Some(text)) => Variable::Text(text),
        }
    }

    /// The text of a variable that is set, not empty, and UTF-8.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Variable::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The variables that are ours, or ought to be: those that begin with `OUTHAUL_` and are not empty.
    fn ours(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let ours = self.0.range(PREFIX.to_owned()..).take_while(|(name, _)| name.starts_with(PREFIX));
        ours.map(|(name, text)| (name.as_str(), text.as_deref())).filter(|(_, text)| *text != Some(""))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect())
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The keys outside lists that the environment sets, by path; problems with names are reported.
pub(super) fn layer(environment: &Environment, places: &mut Places, problems: &mut Vec<Problem>) -> Map<String, Value> {
    let mut paths: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for (variable, text) in environment.ours() {
        let place = Place::Variable(variable.to_owned());
        let mut wrong =
            |rule: String| problems.push(Problem { place: place.clone(), key: String::new(), value: None, rule });
        let path = match path_of(variable) {
            Ok(Some(path)) => path,
            Ok(None) if text.is_some() => continue,
            Ok(None) => {
                wrong("is not valid UTF-8".to_owned());
                continue;
            }
            Err(_) if text.is_some_and(|text| is_service_link(variable, text)) => continue,
            Err(rule) => {
                wrong(rule);
                continue;
            }
        };
        let Some(text) = text else {
            wrong("is not valid UTF-8".to_owned());
            continue;
        };
        if let Some((other, _)) = paths.get(&path).filter(|(_, other)| *other != text) {
            wrong(format!("contradicts {other}, which sets the same key; unset one of them"));
        }
        places.note_with_ancestors(&path, &place);
        paths.insert(path, (variable, text));
    }
    paths.into_iter().map(|(path, (_, text))| (path, Value::new(None, text))).collect()
}

/// Every `OUTHAUL_` variable that is not of the form `OUTHAUL__BLOCK__KEY`.
pub(super) fn known_variables() -> impl Iterator<Item = &'static str> {
    let endpoint = ENDPOINT_SHORTCUTS.iter().map(|shortcut| shortcut.variable);
    endpoint.chain(SHORTCUTS.iter().map(|(name, _)| *name)).chain([CONFIG_FILE])
}

/// The path that a variable sets; `None` for one that is used elsewhere.
fn path_of(variable: &str) -> Result<Option<String>, String> {
    if variable == CONFIG_FILE || ENDPOINT_SHORTCUTS.iter().any(|shortcut| shortcut.variable == variable) {
        return Ok(None);
    }
    if let Some((_, path)) = SHORTCUTS.iter().find(|(name, _)| *name == variable) {
        return Ok(Some((*path).to_owned()));
    }
    let Some(levels) = variable.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_')) else {
        return Err(match unknown::nearest(variable, known_variables()) {
            Some(nearest) => format!("is unknown; did you mean {nearest}?"),
            None => "is unknown; outhaul reads OUTHAUL__BLOCK__KEY and its documented shortcuts".to_owned(),
        });
    };
    let levels: Vec<String> = levels.split(LEVEL).map(str::to_ascii_lowercase).collect();
    // Anything else would be a path expression to the `config` crate, such as an index that makes a huge list.
    let plain =
        |level: &String| !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !levels.iter().all(plain) {
        return Err("is not of the form OUTHAUL__BLOCK__KEY".to_owned());
    }
    if levels.len() > 1 && LISTS.contains(&levels[0].as_str()) {
        let hint = "use a file, or OUTHAUL_REMOTE_WRITE_URL and its companions for the first endpoint";
        return Err(format!("{} is a list, and items of a list cannot be set by a variable; {hint}", levels[0]));
    }
    Ok(Some(levels.join(".")))
}

/// Whether a variable is of those that Kubernetes and Docker's links set for a service of our name.
///
/// Kubernetes documentation, "Service", "Environment variables": `{NAME}_SERVICE_HOST`, `{NAME}_SERVICE_PORT[_{PORT}]`,
/// `{NAME}_PORT`, and `{NAME}_PORT_{n}_{PROTOCOL}[_PROTO|_PORT|_ADDR]` as Docker's legacy links have them.
fn is_service_link(variable: &str, text: &str) -> bool {
    let protocols = ["tcp", "udp", "sctp"];
    let is_address = protocols.iter().any(|protocol| text.starts_with(&format!("{protocol}://")));
    let has_port = variable.split_once("_PORT_").is_some_and(|(_, tail)| {
        let mut parts = tail.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| protocols.contains(&protocol.to_ascii_lowercase().as_str()))
    });
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.ends_with("_PORT") && is_address)
        || has_port
}

/// Applies the shortcuts for the first remote-write endpoint to the merged configuration, making the endpoint where there is none.
pub(super) fn apply_endpoint_shortcuts(root: &mut Map<String, Value>, environment: &Environment, places: &mut Places) {
    let set = |shortcut: &&EndpointShortcut| environment.text(shortcut.variable).is_some();
    let shortcuts: Vec<&EndpointShortcut> = ENDPOINT_SHORTCUTS.iter().filter(set).collect();
    let Some(first) = shortcuts.first() else { return };
    let endpoints = root.entry("remote_write".to_owned()).or_insert_with(|| Value::new(None, ValueKind::Nil));
    if endpoints.kind == ValueKind::Nil {
        endpoints.kind = ValueKind::Array(Vec::new());
    }
    // Any other shape is wrong, which is said when it is read.
    let ValueKind::Array(endpoints) = &mut endpoints.kind else { return };
    let path = item("remote_write", 0);
    if endpoints.is_empty() {
        places.note_with_ancestors(&path, &Place::Variable(first.variable.to_owned()));
        endpoints.push(Value::new(None, ValueKind::Table(Map::new())));
    }
    let ValueKind::Table(endpoint) = &mut endpoints[0].kind else { return };
    // First all that goes, then all that comes: two variables that contradict each other must both be seen.
    for (block, key) in shortcuts.iter().flat_map(|shortcut| shortcut.replaces) {
        remove(endpoint, block, key);
    }
    for shortcut in shortcuts {
        let (block, key) = shortcut.key;
        remove(endpoint, block, key);
        let Some(table) = descend(endpoint, block) else { continue };
        table.insert(key.to_owned(), Value::new(None, environment.text(shortcut.variable).unwrap_or_default()));
        let path = if block.is_empty() { path.clone() } else { join(&path, block) };
        places.note_with_ancestors(&join(&path, key), &Place::Variable(shortcut.variable.to_owned()));
    }
}

fn remove(endpoint: &mut Map<String, Value>, block: &str, key: &str) {
    if block.is_empty() {
        endpoint.remove(key);
    } else if let Some(ValueKind::Table(table)) = endpoint.get_mut(block).map(|value| &mut value.kind) {
        // Header names are the only keys of which case does not matter, and no other key has capitals.
        table.retain(|name, _| !name.eq_ignore_ascii_case(key));
    }
}

fn descend<'a>(endpoint: &'a mut Map<String, Value>, block: &str) -> Option<&'a mut Map<String, Value>> {
    if block.is_empty() {
        return Some(endpoint);
    }
    let value = endpoint.entry(block.to_owned()).or_insert_with(|| Value::new(None, ValueKind::Nil));
    if value.kind == ValueKind::Nil {
        value.kind = ValueKind::Table(Map::new());
    }
    match &mut value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}
