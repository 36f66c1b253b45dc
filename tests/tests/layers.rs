//! The files of a crate stand in layers: no two import each other, directly or through others.
//!
//! An import is a path into another file of the crate, in a `use` or in the code: `crate::x`, `super::x`, `self::x`, or `child::x`
//! of a `mod child;` in the same file. `mod child;` alone is none. Comments, strings and `#[cfg(test)]` items do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::slice;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The source files of a crate: text by path relative to `src`.
type Sources = BTreeMap<String, String>;

#[test]
fn the_trainers_files_do_not_import_each_other_in_a_circle() {
    has_no_circle("trainer");
}

#[test]
fn the_runtimes_files_do_not_import_each_other_in_a_circle() {
    has_no_circle("runtime");
}

#[test]
fn a_circle_is_named_file_by_file() {
    let tree = |b: &str| {
        let lib = "mod a; mod b; mod c; pub use a::A;";
        circle_of(&[("lib.rs", lib), ("a.rs", "use crate::b::B;"), ("b.rs", b), ("c.rs", "fn f() { crate::a::g() }")])
    };
    assert_eq!(tree("use std::fs;"), None);
    assert_eq!(tree("use crate::c;").unwrap(), "a.rs -> b.rs -> c.rs -> a.rs");
    assert_eq!(tree("use crate::{d::{D}, a::{self}};").unwrap(), "a.rs -> b.rs -> a.rs");
    assert_eq!(tree("fn f() { println!(\"{}\", [crate::a::A; 2].len()) }").unwrap(), "a.rs -> b.rs -> a.rs");
    assert_eq!(tree("mod inner { use super::super::a; }").unwrap(), "a.rs -> b.rs -> a.rs");
    // A re-export by the root is an import of the root.
    assert_eq!(tree("use crate::A;").unwrap(), "a.rs -> b.rs -> lib.rs -> a.rs");
}

#[test]
fn only_what_is_compiled_into_the_crate_is_an_import() {
    let tree = |a: &str| circle_of(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", "use super::a::A;")]);
    for none in [
        "// use crate::b;\n/* crate::b::f() */ /// [`crate::b::B`]\nconst TEXT: &str = \"crate::b::B\";",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(test)] use crate::b::{B, C};",
        "pub(crate) fn f() {} pub(in crate::b) struct S;",
        "use b::B; use ::b::C;",
    ] {
        assert_eq!(tree(none), None, "{none}");
    }
    assert_eq!(tree("#[cfg(test)] mod tests {} use crate::b::B;").unwrap(), "a.rs -> b.rs -> a.rs");
}

#[test]
fn a_parent_and_its_child_may_not_use_each_other() {
    let tree = |parent: &str, child: &str| {
        circle_of(&[("main.rs", "mod a;"), ("a/mod.rs", parent), ("a/b.rs", child), ("a/c.rs", "")])
    };
    assert_eq!(tree("pub mod b; mod c;", "use super::A;"), None);
    assert_eq!(tree("pub mod b; mod c; use b::B;", "use super::c::C;"), None);
    assert_eq!(tree("pub mod b; mod c; use b::B;", "use super::A;").unwrap(), "a/b.rs -> a/mod.rs -> a/b.rs");
    assert_eq!(
        tree("mod c; mod r#b; fn f() { r#b::f() }", "use crate::a::*;").unwrap(),
        "a/b.rs -> a/mod.rs -> a/b.rs"
    );
}

fn has_no_circle(name: &str) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
    let mut sources = Sources::new();
    read(&src, "", &mut sources);
    let imports = imports(&sources);
    let unread: Vec<_> = sources.keys().filter(|path| !imports.contains_key(*path)).collect();
    assert!(unread.is_empty(), "{name}: no `mod` leads to {unread:?}");
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > sources.len(), "{name}: too few imports found");
    if let Some(circle) = shortest_circle(&imports) {
        panic!("{name}/src has a circle of imports: {}", circle.join(" -> "));
    }
}

fn circle_of(files: &[(&str, &str)]) -> Option<String> {
    let sources: Sources = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
    shortest_circle(&imports(&sources)).map(|circle| circle.join(" -> "))
}

fn read(folder: &Path, prefix: &str, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{path}/"), sources);
        } else if path.ends_with(".rs") {
            sources.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// For each file that a `mod` reaches from lib.rs or main.rs: the files that it imports.
fn imports(sources: &Sources) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    for root in ["lib.rs", "main.rs"].into_iter().filter(|root| sources.contains_key(*root)) {
        let mut files: BTreeMap<Vec<String>, (&str, Scan)> = BTreeMap::new();
        let mut open = vec![(vec![], root)];
        while let Some((module, path)) = open.pop() {
            let scan = Scan::of(&sources[path]);
            for child in &scan.children {
                let folder = path.strip_suffix("mod.rs").map(String::from);
                let folder = folder.unwrap_or(if path == root { "".into() } else { path.replace(".rs", "/") });
                let [flat, nested] = [format!("{folder}{child}.rs"), format!("{folder}{child}/mod.rs")];
                let (file, _) = sources.get_key_value(&flat).or(sources.get_key_value(&nested)).expect(&flat);
                open.push(([&module[..], slice::from_ref(child)].concat(), file));
            }
            files.insert(module, (path, scan));
        }
        for (module, (path, scan)) in &files {
            let imported = scan.paths.iter().filter_map(|(inline, segments)| {
                let target = absolute(module, inline, segments, &scan.children)?;
                // The longest prefix that is a file; what follows is an item in it.
                (0..=target.len()).rev().find_map(|n| files.get(&target[..n])).map(|(path, _)| path.to_string())
            });
            let imported: BTreeSet<String> = imported.filter(|imported| imported != path).collect();
            imports.entry(path.to_string()).or_insert_with(BTreeSet::new).extend(imported);
        }
    }
    imports
}

/// A path from the crate's root; `None` for one into another crate. `inline` are the `mod x {}` that the path stands in.
fn absolute(
    module: &[String],
    inline: &[String],
    segments: &[String],
    children: &BTreeSet<String>,
) -> Option<Vec<String>> {
    let mut at = [module, inline].concat();
    let mut rest = segments;
    match segments[0].as_str() {
        "crate" => (at, rest) = (vec![], &segments[1..]),
        "self" => rest = &segments[1..],
        "super" => {}
        child => return (inline.is_empty() && children.contains(child)).then(|| [&at, segments].concat()),
    }
    while rest.first().is_some_and(|segment| segment == "super") {
        at.pop();
        rest = &rest[1..];
    }
    Some([&at, rest].concat())
}

/// The circle of fewest files, its first file again at its end.
fn shortest_circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let circles = imports.keys().filter_map(|start| {
        let mut open = VecDeque::from([vec![start.clone()]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = open.pop_front() {
            for next in imports.get(way.last()?).into_iter().flatten() {
                let way = [&way[..], slice::from_ref(next)].concat();
                if next == start {
                    return Some(way);
                }
                if seen.insert(next) {
                    open.push_back(way);
                }
            }
        }
        None
    });
    circles.min_by_key(Vec::len)
}

/// What one file says of others.
#[derive(Default)]
struct Scan {
    /// Names of `mod child;`.
    children: BTreeSet<String>,
    /// Paths of two segments and more, each with the `mod x {}` that it stands in.
    paths: Vec<(Vec<String>, Vec<String>)>,
}

impl Scan {
    fn of(text: &str) -> Self {
        let mut scan = Self::default();
        scan.tokens(TokenStream::from_str(text).expect("a Rust file"), &[], &[]);
        scan
    }

    /// `prefix` is the path before the braces of a `use a::{b, c}`.
    fn tokens(&mut self, tokens: TokenStream, inline: &[String], prefix: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let text =
            |i: usize| tokens.get(i).map(|t| t.to_string().trim_start_matches("r#").to_owned()).unwrap_or_default();
        let group = |i: usize| match tokens.get(i) {
            Some(TokenTree::Group(group)) => Some(group),
            _ => None,
        };
        let mut i = 0;
        while i < tokens.len() {
            match &tokens[i] {
                TokenTree::Punct(_) if text(i) == "#" && text(i + 1).replace(' ', "") == "[cfg(test)]" => {
                    // The item ends with its braces, or with a semicolon.
                    let is_use =
                        (i + 2..tokens.len()).map(text).find(|t| !t.starts_with(['#', '[', '(']) && t != "pub");
                    let is_use = is_use.as_deref() == Some("use");
                    let is_body = |i| !is_use && group(i).is_some_and(|g| g.delimiter() == Delimiter::Brace);
                    i += 2;
                    while i < tokens.len() && text(i) != ";" && !is_body(i) {
                        i += 1;
                    }
                    i += 1;
                }
                TokenTree::Ident(word) if word == "pub" && group(i + 1).is_some() => i += 2,
                TokenTree::Ident(word) if word == "mod" && group(i + 2).is_some() => {
                    self.tokens(group(i + 2).unwrap().stream(), &[inline, &[text(i + 1)]].concat(), &[]);
                    i += 3;
                }
                TokenTree::Ident(word) if word == "mod" && text(i + 2) == ";" => {
                    self.children.insert(text(i + 1));
                    i += 3;
                }
                TokenTree::Ident(word) if word == "as" && !prefix.is_empty() => i += 2,
                TokenTree::Ident(_) => {
                    let mut path = [prefix, &[text(i)]].concat();
                    let before = [text(i.wrapping_sub(2)), text(i.wrapping_sub(1))].concat();
                    // Not `::other_crate::x`, nor `x.method::<T>()`.
                    let may_be_ours = before != "::" && (!before.ends_with('.') || before == "..");
                    let mut has_tail = !prefix.is_empty();
                    i += 1;
                    while text(i) == ":" && text(i + 1) == ":" {
                        has_tail = true;
                        i += 2;
                        match tokens.get(i) {
                            Some(TokenTree::Ident(_)) => path.push(text(i)),
                            Some(TokenTree::Group(group)) => {
                                self.tokens(group.stream(), inline, &path);
                                has_tail = false; // the paths are those in the braces
                            }
                            _ => break, // a star, or types in angle brackets
                        }
                        i += 1;
                    }
                    if has_tail && may_be_ours {
                        self.paths.push((inline.to_vec(), path));
                    }
                }
                TokenTree::Group(inner) => {
                    self.tokens(inner.stream(), inline, &[]);
                    i += 1;
                }
                _ => i += 1,
            }
        }
    }
}
