//! Checks that files named in documents exist, in links and in paths in backticks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::tree;

/// The prefixes of paths from the top of the tree.
const DIRECTORIES: [&str; 9] =
    ["lb-common/", "lb-ebpf/", "lb-userspace/", "tests/", "fuzz/", "xtask/", "docs/", "deploy/", "examples/"];

/// Every `.md` file at the top and under `docs/`.
pub fn check() -> Result<()> {
    let mut documents = markdown(tree::top())?;
    documents.extend(markdown(&tree::top().join("docs"))?);
    documents.extend(markdown(&tree::top().join("docs/decisions"))?);

    let mut missing = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).with_context(|| format!("read {}", document.display()))?;
        let directory = document.parent().unwrap_or(tree::top());
        let links = links(&text).into_iter().map(|link| (directory.join(link), link));
        let paths = paths(&text).into_iter().map(|path| (tree::top().join(path), path));
        let absent = links.chain(paths).filter(|(file, _)| !file.exists());
        missing.extend(absent.map(|(_, name)| format!("{}: no such file: {name}", shown(&document))));
    }
    ensure!(missing.is_empty(), "\n{}", missing.join("\n"));
    Ok(())
}

fn markdown(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        files.push(entry?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    Ok(files)
}

fn shown(document: &Path) -> String {
    document.strip_prefix(tree::top()).unwrap_or(document).display().to_string()
}

/// Targets of `[text](target)` within the tree, without their anchors.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files =
        targets.filter(|target| !target.contains("://")).filter_map(|target| target.split('#').next());
    files.filter(|file| !file.is_empty()).collect()
}

/// Files and directories in backticks: they begin with one of [`DIRECTORIES`] and end with an extension or a slash.
fn paths(text: &str) -> Vec<&str> {
    let is_path = |quoted: &&str| {
        let is_plain = quoted.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        let names_one = quoted.ends_with('/') || Path::new(quoted).extension().is_some();
        is_plain && names_one && DIRECTORIES.iter().any(|directory| quoted.starts_with(directory))
    };
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_the_tree_are_files_without_anchors() {
        let text = "[a](docs/cli.md#traces), [b](https://example.net/), [c](#here) and [d](../README.md)";

        assert_eq!(links(text), ["docs/cli.md", "../README.md"]);
    }

    #[test]
    fn paths_are_what_backticks_quote_of_the_tree() {
        let text = "`tests/src/rows/`, `tests/src/rows/*.rs`, `lb-common/src/flow.rs`, `tests/lab`, `packet/parse.rs`\n\
                    tests/src/lib.rs";

        assert_eq!(paths(text), ["tests/src/rows/", "lb-common/src/flow.rs"]);
    }
}
