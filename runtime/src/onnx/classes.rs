//! The classes of a generator, as the file's metadata or the user say.
//!
//! `conditional` is `one-hot:N` for N classes. `classes` is a JSON array of their N names; without it the names are 0, 1, ….

use super::proto::shown;
use crate::latent::MAX_CLASSES;

/// The names of the classes; none if the generator is unconditional, which has 0 classes or 1.
///
/// # Errors
/// Another value of `conditional`, more than 64 classes, or names that are not one for each class.
pub fn from_metadata(metadata: &[(String, String)]) -> Result<Vec<String>, String> {
    let value = |key| metadata.iter().find(|entry| entry.0 == key).map(|entry| &entry.1);
    let Some(conditional) = value("conditional") else { return Ok(vec![]) };
    let count = conditional.strip_prefix("one-hot:").and_then(|count| count.parse().ok());
    let Some(count) = count.filter(|&count| count <= MAX_CLASSES) else {
        return Err(format!("conditional: one-hot:0 to one-hot:{MAX_CLASSES} expected, {} found", shown(conditional)));
    };
    match value("classes") {
        _ if count < 2 => Ok(vec![]),
        None => Ok(numbered_names(count)),
        Some(json) => parse(json, count).map_err(|e| format!("classes: {e}")),
    }
}

/// The names of `count` classes if the user says their number: those of the metadata if they name as many, else 0, 1, ….
pub fn of_count(count: usize, metadata: &[(String, String)]) -> Vec<String> {
    from_metadata(metadata).ok().filter(|names| names.len() == count).unwrap_or_else(|| numbered_names(count))
}

/// The names 0, 1, … of classes without names.
fn numbered_names(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

/// A number of classes that the user gives: 0 for an unconditional generator, or 2 to 64.
pub fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|&count| count == 0 || (2..=MAX_CLASSES).contains(&count));
    count.ok_or_else(|| format!("0 or 2 to {MAX_CLASSES} expected"))
}

/// A warning for a file whose metadata name no classes, but whose weights suggest that it has `count`.
pub fn unnamed_warning(count: usize) -> String {
    format!("the metadata name no classes, but the weights look like those of about {count} classes")
}

fn parse(json: &str, count: usize) -> Result<Vec<String>, String> {
    let array = serde_json::from_str::<Vec<String>>(json);
    let names = array.map_err(|_| format!("a JSON array of {count} names expected, {} found", shown(json)))?;
    if names.len() != count {
        return Err(format!("{count} names expected, {} found", names.len()));
    }
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || name.contains(char::is_control) {
            return Err(format!("names without control characters expected, \"{}\" found", shown(name)));
        }
        if names[..i].contains(name) {
            return Err(format!("{count} different names expected, {} found twice", shown(name)));
        }
    }
    Ok(names)
}
