//! JSON as strictly as a policy asks for it: a name stands once in an object, and nothing is left over.
//!
//! `serde_json` takes the last of several fields with one name; another reader of the same bytes may take the first.
//! What was signed must mean one thing only.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value without repeated names.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool,
    Number {
        /// Whether it has no fraction.
        whole: bool,
    },
    Text(String),
    List(Vec<Node>),
    Object(Fields),
}

/// The fields of an object that were not taken yet.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields(BTreeMap<String, Node>);

impl Node {
    /// Reads a whole document.
    pub(super) fn parse(bytes: &[u8]) -> Result<Node, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    pub(super) fn object(self, what: &str) -> Result<Fields, String> {
        match self {
            Node::Object(fields) => Ok(fields),
            _ => Err(format!("`{what}` is not an object")),
        }
    }

    pub(super) fn list(self, what: &str) -> Result<Vec<Node>, String> {
        match self {
            Node::List(items) => Ok(items),
            _ => Err(format!("`{what}` is not a list")),
        }
    }

    pub(super) fn text(self, what: &str) -> Result<String, String> {
        match self {
            Node::Text(text) => Ok(text),
            _ => Err(format!("`{what}` is not a string")),
        }
    }
}

impl Fields {
    /// Takes a field out; `None` when there is none.
    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        self.0.remove(name)
    }

    /// Takes a field that must be there.
    pub(super) fn need(&mut self, name: &str) -> Result<Node, String> {
        self.take(name).ok_or_else(|| format!("`{name}` is missing"))
    }

    /// Takes a string that may be there.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.take(name).map(|node| node.text(name)).transpose()
    }

    /// Takes a string that must be there.
    pub(super) fn need_text(&mut self, name: &str) -> Result<String, String> {
        self.need(name)?.text(name)
    }

    /// Takes a list of strings that may be there, but not empty.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, String> {
        let Some(node) = self.take(name) else { return Ok(None) };
        let items = node.list(name)?;
        if items.is_empty() {
            return Err(format!("`{name}` is empty"));
        }
        items.into_iter().map(|item| item.text(name)).collect::<Result<_, _>>().map(Some)
    }

    /// Whether there is a field of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("the field `{}` is unknown", name.escape_debug())),
        }
    }
}

impl IntoIterator for Fields {
    type Item = (String, Node);
    type IntoIter = std::collections::btree_map::IntoIter<String, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Bool)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Number { whole: true })
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Number { whole: true })
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Number { whole: number.fract() == 0.0 })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, node)) = map.next_entry::<String, Node>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format!("the field `{}` is there twice", name.escape_debug())));
            }
            fields.insert(name, node);
        }
        Ok(Node::Object(Fields(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_at_every_depth() {
        assert!(Node::parse(br#"{"a": [1, 1.5, null, true, "x", {"b": {}}], "b": 1}"#).is_ok());
        for twice in [r#"{"a":1,"a":1}"#, r#"{"x":{"a":1,"b":2,"a":3}}"#, r#"[{"a":1,"\u0061":2}]"#] {
            assert!(Node::parse(twice.as_bytes()).unwrap_err().contains("`a` is there twice"), "{twice}");
        }
        for wrong in ["", "{", "{} {}", "{}x", "\u{feff}{}"] {
            assert!(Node::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let deep = "[".repeat(100_000);
        assert!(Node::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_nobody_took_is_refused() {
        let mut fields = Node::parse(br#"{"a": "x", "b": ["y"], "c": []}"#).unwrap().object("it").unwrap();
        assert_eq!(fields.text("a"), Ok(Some("x".to_owned())));
        assert_eq!(fields.text("a"), Ok(None));
        assert_eq!(fields.texts("b"), Ok(Some(vec!["y".to_owned()])));
        assert_eq!(fields.texts("c"), Err("`c` is empty".to_owned()));
        assert_eq!(fields.finish(), Ok(()));
        let mut fields = Node::parse(br#"{"a": 1, "b": 2}"#).unwrap().object("it").unwrap();
        assert_eq!(fields.text("a"), Err("`a` is not a string".to_owned()));
        assert_eq!(fields.finish(), Err("the field `b` is unknown".to_owned()));
    }
}
