//! File names within the limit of the file system.
//!
//! Percent-encoding triples the bytes of a name outside ASCII, so that a stream's name of 86 bytes can exceed the limit.

use std::borrow::Cow;

/// The most bytes of a file name on common file systems.
const MAX_NAME_BYTES: usize = 255;
/// The most bytes of an ending that a shortened name keeps, such as `.jsonl`.
const MAX_ENDING_BYTES: usize = 16;
/// The mark before the hash. An encoded name never holds it, so that a shortened name equals no whole one.
const MARK: &str = "%~";

/// Returns a path whose every part fits the file system.
pub(super) fn fitted(path: &str) -> Cow<'_, str> {
    if path.split('/').all(|part| part.len() <= MAX_NAME_BYTES) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(path.split('/').map(shortened).collect::<Vec<_>>().join("/"))
}

/// Replaces the end of a long name by a hash of all of it. Keeps the ending.
fn shortened(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME_BYTES {
        return Cow::Borrowed(name);
    }
    let ending = name.rfind('.').map_or("", |dot| &name[dot..]);
    let ending = if ending.len() <= MAX_ENDING_BYTES { ending } else { "" };
    let hash = format!("{MARK}{:016x}", hash(name));
    let kept = name.floor_char_boundary(MAX_NAME_BYTES - hash.len() - ending.len());
    Cow::Owned(format!("{}{hash}{ending}", &name[..kept]))
}

/// FNV-1a, written out because the names of files must not change with a library.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::template::Template;

    #[test]
    fn x6_a_name_within_the_limit_stays() {
        let path = format!("out/{}.jsonl", "x".repeat(249));
        assert_eq!(fitted(&path), path);
    }

    #[test]
    fn x6_a_long_name_is_shortened_and_keeps_its_ending() {
        let template = Template::parse("out/{id}.jsonl").unwrap();
        let path = |id: &str| fitted(&template.render(&format!("a-{id}")).unwrap()).into_owned();
        let (one, other) = (path(&"ж".repeat(43)), path(&format!("{}з", "ж".repeat(42))));
        assert_ne!(one, other, "the names differ only in the part that is cut off");
        for name in [&one, &other] {
            let name = name.strip_prefix("out/").unwrap();
            assert_eq!(name.len(), MAX_NAME_BYTES, "{name}");
            assert!(name.starts_with("%D0%B6%D0%B6") && name.ends_with(".jsonl"), "{name}");
        }
        assert!(template.matches(&one), "an inspection finds it");
        // The hash is a part of the files' names: another value would begin new files.
        assert_eq!(path(&"ж".repeat(43)), one);
        assert!(one.ends_with("%~5574a00587830333.jsonl"), "{one}");
    }
}
