//! The TOML file. Each key becomes the flag of the same name for the parser of the command line, so
//! the file takes the same values and gives the same errors.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::nearest::nearest;

/// The keys of the file as flags, without the settings that are `given` on the command line or in
/// the environment.
///
/// # Errors
/// The file cannot be read, is not TOML, or has a key that is not a setting of `serve`.
pub(super) fn flags(
    path: &Path,
    serve: &clap::Command,
    given: &ArgMatches,
) -> Result<Vec<OsString>, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot be read: {error}; check the path and its permissions"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].split('\n').count());
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })?;
    let settings = || {
        let named =
            serve.get_arguments().filter_map(|argument| Some((argument.get_long()?, argument)));
        // A file cannot name a second file.
        named.filter(|&(key, _)| key != "config")
    };
    let mut flags = Vec::new();
    for (key, value) in &table {
        let Some((_, argument)) = settings().find(|(known, _)| known == key) else {
            let keys: Vec<&str> = settings().map(|(key, _)| key).collect();
            let meant = nearest(key, keys.iter().copied());
            let meant = meant.map_or(String::new(), |key| format!(", did you mean `{key}`"));
            return Err(format!("unknown key `{key}`{meant}; the keys are {}", keys.join(", ")));
        };
        let values = match (key.as_str(), value) {
            ("namespace", toml::Value::Table(tables)) => namespaces(tables)?,
            ("namespace", _) => {
                return Err("`namespace` must be tables, as [namespace.chat]".into());
            }
            _ => vec![scalar(value).ok_or(format!("`{key}` must be {SCALAR}"))?],
        };
        let source = given.value_source(argument.get_id().as_str());
        if matches!(source, None | Some(ValueSource::DefaultValue)) {
            flags.extend(values.iter().map(|value| format!("--{key}={value}").into()));
        }
    }
    Ok(flags)
}

/// The tables `[namespace.NAME]` of the file, each as the value of one `--namespace`.
fn namespaces(tables: &toml::Table) -> Result<Vec<String>, String> {
    let namespace = |(name, rules): (&String, &toml::Value)| {
        let toml::Value::Table(rules) = rules else {
            return Err(format!("`namespace.{name}` must be a table, as [namespace.{name}]"));
        };
        let mut value = plain(name).ok_or(format!("`namespace.{name}` {NOT_PLAIN}"))?.to_owned();
        for (rule, setting) in rules {
            let key = format!("namespace.{name}.{rule}");
            let setting = scalar(setting).ok_or(format!("`{key}` must be {SCALAR}"))?;
            let (Some(rule), Some(setting)) = (plain(rule), plain(&setting)) else {
                return Err(format!("`{key}` {NOT_PLAIN}"));
            };
            value += &format!(",{rule}={setting}");
        }
        Ok(value)
    };
    tables.iter().map(namespace).collect()
}

/// The text; `None` if it has a character that separates parts of the flag's value.
fn plain(text: &str) -> Option<&str> {
    (!text.contains([',', ';', '='])).then_some(text)
}

const NOT_PLAIN: &str = "has a comma, a semicolon or an equals sign; leave it out";

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            Some(value.to_string())
        }
        _ => None,
    }
}

const SCALAR: &str = "a string, a number, true or false";
