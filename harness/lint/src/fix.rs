//! Writes down what has one safe meaning.

use crate::diagnostic::{Diagnostic, Edit};
use crate::source::Source;
use std::io::{self, Write};
use std::path::Path;

/// The text of a source after all safe corrections that do not touch each other; `None` if there is none. Corrections
/// are taken in the order of the findings, each as a whole.
pub fn corrected(source: &Source, findings: &[Diagnostic]) -> Option<(String, usize)> {
    let mut taken: Vec<&Edit> = Vec::new();
    let mut fixes = 0;
    for fix in findings.iter().filter_map(|finding| finding.fix.as_ref()) {
        // A correction across several files is a person's to make.
        let ours = fix.edits.iter().all(|edit| &edit.source == source);
        if !fix.safe || !ours || fix.edits.is_empty() {
            continue;
        }
        if fix
            .edits
            .iter()
            .any(|edit| taken.iter().any(|other| touch(edit, other)))
        {
            continue;
        }
        taken.extend(&fix.edits);
        fixes += 1;
    }
    if taken.is_empty() {
        return None;
    }
    taken.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let text = source.text();
    let mut corrected = String::with_capacity(text.len());
    let mut done = 0;
    for edit in taken {
        corrected.push_str(&text[done..edit.span.start]);
        corrected.push_str(&edit.replacement);
        done = edit.span.end;
    }
    corrected.push_str(&text[done..]);
    Some((corrected, fixes))
}

fn touch(a: &Edit, b: &Edit) -> bool {
    a.span.start <= b.span.end && b.span.start <= a.span.end
}

/// Replaces a file's text at once: whoever reads it meanwhile has the old or the new one, whole. Mode and owner stay; a
/// symbolic link stays one.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::other("the file has no directory"))?;
    let metadata = std::fs::metadata(&path)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(metadata.permissions())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let ours = file.as_file().metadata()?;
        if (ours.uid(), ours.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
            // Changing the owner takes the special bits away.
            file.as_file().set_permissions(metadata.permissions())?;
        }
    }
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}
