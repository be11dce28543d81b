//! Finds the values of several pointers in one pass over a JSON text.

use smallvec::SmallVec;

use crate::formats::jsonlines::BadLine;
use crate::formats::jsonlines::scan::{Bad, Scanner, Shape, Strings, Token};

/// The tree of all wanted pointers. A node stands for a value, and its children for keys in it.
#[derive(Clone, Debug)]
pub(super) struct Locator {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
struct Child {
    key: Box<str>,
    /// The key as the index of an item of an array.
    index: Option<usize>,
    node: usize,
}

/// The node of the whole text.
const ROOT: usize = 0;

/// The location of each node's value, `None` if the text lacks it. A mapping rarely has more pointers.
type Tokens = SmallVec<[Option<Token>; 16]>;

/// The values that were found in a text.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    tokens: Tokens,
    pub(super) is_ascii: bool,
}

impl Found {
    pub(super) fn get(&self, node: usize) -> Option<Token> {
        self.tokens[node]
    }

    /// Returns the whole text, without the white space around it.
    pub(super) fn whole(&self) -> Token {
        self.tokens[ROOT].expect("a text that was located is a value")
    }
}

impl Default for Locator {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Locator {
    /// Adds the keys of a pointer; returns the node of its value.
    pub(super) fn add(&mut self, keys: &[Box<str>]) -> usize {
        let mut node = ROOT;
        for key in keys {
            let known = self.nodes[node].children.iter().find(|child| child.key == *key).map(|child| child.node);
            node = known.unwrap_or_else(|| {
                let new = self.nodes.len();
                // RFC 6901: an index has no leading zeros.
                let index = key.parse().ok().filter(|index: &usize| index.to_string() == **key);
                self.nodes[node].children.push(Child { key: key.clone(), index, node: new });
                self.nodes.push(Node::default());
                new
            });
        }
        node
    }

    /// Checks that a text is one JSON value, and finds the wanted values in it.
    pub(super) fn locate(&self, text: &[u8], found: &mut Found) -> Result<(), BadLine> {
        // The fast scanner refuses texts that need care; the other one decides.
        self.locate_by(text, Scanner::fast(text), found)
            .or_else(|_| self.locate_by(text, Scanner::new(text), found))
            .map_err(BadLine::from)
    }

    fn locate_by<S: Strings>(
        &self,
        text: &[u8],
        scanner: Result<Scanner<'_, S>, Bad>,
        found: &mut Found,
    ) -> Result<(), Bad> {
        let mut scanner = scanner?;
        found.tokens.clear();
        found.tokens.resize(self.nodes.len(), None);
        self.value(text, &mut scanner, ROOT, 0, &mut found.tokens)?;
        scanner.end()?;
        found.is_ascii = scanner.is_ascii();
        Ok(())
    }

    /// Passes the value of a node. Its recursion ends with the longest pointer.
    fn value<S: Strings>(
        &self,
        text: &[u8],
        scanner: &mut Scanner<'_, S>,
        node: usize,
        depth: u32,
        tokens: &mut Tokens,
    ) -> Result<(), Bad> {
        scanner.space();
        let start = scanner.at() as u32;
        let shape = match scanner.peek() {
            Some(b'{') if !self.nodes[node].children.is_empty() => {
                self.object(text, scanner, node, depth + 1, tokens)?;
                Shape::Object
            }
            Some(b'[') if !self.nodes[node].children.is_empty() => {
                self.array(text, scanner, node, depth + 1, tokens)?;
                Shape::Array
            }
            _ => scanner.value(depth)?.shape,
        };
        tokens[node] = Some(Token { start, end: scanner.at() as u32, shape });
        Ok(())
    }

    fn object<S: Strings>(
        &self,
        text: &[u8],
        scanner: &mut Scanner<'_, S>,
        node: usize,
        depth: u32,
        tokens: &mut Tokens,
    ) -> Result<(), Bad> {
        scanner.eat(b'{');
        scanner.space();
        let mut more = !scanner.eat(b'}');
        while more {
            let (key, has_escapes) = scanner.key()?;
            let quote = key.start - 1;
            let children = &self.nodes[node].children;
            let child = if has_escapes {
                // A key that cannot be decoded is an unwanted key.
                let key = serde_json::from_slice::<String>(&text[quote..=key.end]).ok();
                key.and_then(|key| children.iter().find(|child| *child.key == *key))
            } else {
                children.iter().find(|child| child.key.as_bytes() == &text[key.clone()])
            };
            match child {
                Some(child) if tokens[child.node].is_some() => {
                    return Err(Bad { at: quote, why: "the same key came before" });
                }
                Some(child) => self.value(text, scanner, child.node, depth, tokens)?,
                None => drop(scanner.value(depth)?),
            }
            more = scanner.goes_on(b'}', "expected `,` or `}`")?;
        }
        Ok(())
    }

    fn array<S: Strings>(
        &self,
        text: &[u8],
        scanner: &mut Scanner<'_, S>,
        node: usize,
        depth: u32,
        tokens: &mut Tokens,
    ) -> Result<(), Bad> {
        scanner.eat(b'[');
        scanner.space();
        let mut more = !scanner.eat(b']');
        for number in 0_usize.. {
            if !more {
                break;
            }
            match self.nodes[node].children.iter().find(|child| child.index == Some(number)) {
                Some(child) => self.value(text, scanner, child.node, depth, tokens)?,
                None => drop(scanner.value(depth)?),
            }
            more = scanner.goes_on(b']', "expected `,` or `]`")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::map::Pointer;

    /// Returns the texts of the pointers' values, or the error.
    fn located(pointers: &[&str], text: &str) -> Result<Vec<Option<String>>, String> {
        let mut locator = Locator::default();
        let nodes: Vec<_> = pointers.iter().map(|text| locator.add(&Pointer::parse(text).unwrap().keys)).collect();
        let mut found = Found::default();
        locator.locate(text.as_bytes(), &mut found).map_err(|bad| bad.to_string())?;
        Ok(nodes.iter().map(|node| Some(text[found.get(*node)?.range()].to_owned())).collect())
    }

    #[test]
    fn all_values_are_found_in_one_pass() {
        let text = r#" {"a" : {"b": [10, {"c":"x"}], "~/": 1}, "é\n": null} "#;
        let pointers = ["", "/a/b/1/c", "/a/b/0", "/a/b", "/a/~0~1", "/é\n", "/a/b/2", "/a/b/01", "/a/b/1/c/d", "/x"];
        let found = located(&pointers, text).unwrap();
        let found: Vec<_> = found.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
        let expected = [text.trim(), r#""x""#, "10", r#"[10, {"c":"x"}]"#, "1", "null", "-", "-", "-", "-"];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_text_that_is_not_json_is_refused_at_its_byte() {
        let error = |text| located(&["/a/b", "/c/0"], text).unwrap_err();
        assert_eq!(error(r#"{"a":{"b":1}"#), "expected `,` or `}` at byte 13");
        assert_eq!(error(r#"{"c":[1 2]}"#), "expected `,` or `]` at byte 9");
        assert_eq!(error(r#"{"a":{"b":1},"a":2}"#), "the same key came before at byte 14");
        assert_eq!(error("{\"a\":\"\u{1}\"}"), "expected no control character in a string at byte 7");
        assert_eq!(error(""), "expected a value at byte 1");
        assert!(error(&format!("{{\"c\":{}", "[".repeat(200))).contains("nests deeper"));
    }

    proptest! {
        #[test]
        fn values_are_those_that_serde_json_finds(text in r#"(\{|\[|\}|\]|"[ab]":|"[ab\\n]{0,2}"|[0-9]|,| ){0,14}"#) {
            let pointers = ["", "/a", "/a/b", "/a/0", "/b/1/a", "/0", "/1/a"];
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match located(&pointers, &text) {
                Err(why) if why.starts_with("the same key") => {}
                Err(why) => prop_assert!(theirs.is_err(), "{text}: {why}"),
                Ok(found) => {
                    let theirs = theirs.unwrap();
                    for (pointer, found) in pointers.iter().zip(found) {
                        let found = found.map(|found| serde_json::from_str::<serde_json::Value>(&found).unwrap());
                        prop_assert_eq!(found.as_ref(), theirs.pointer(pointer), "{} in {}", pointer, text);
                    }
                }
            }
        }
    }
}
