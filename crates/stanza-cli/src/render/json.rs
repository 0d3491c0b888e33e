//! JSON whose fields stand in the order in which Docker writes them.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

/// A JSON value with ordered objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// Anything without an order to keep.
    Value(Value),
    /// Fields in order.
    Object(Vec<(String, Json)>),
    /// A list.
    List(Vec<Json>),
}

impl<T: Into<Value>> From<T> for Json {
    fn from(value: T) -> Json {
        Json::Value(value.into())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Value(value) => value.serialize(serializer),
            Json::List(list) => list.serialize(serializer),
            Json::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl Json {
    /// `null`.
    pub(crate) const NULL: Json = Json::Value(Value::Null);

    /// An object of these fields.
    pub(crate) fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
        Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The same without order, for templates.
    pub(crate) fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Indented by four blanks, as Docker does.
    pub(crate) fn pretty(&self) -> String {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        // Writing text into memory does not fail.
        let _ = self.serialize(&mut serializer);
        String::from_utf8(bytes).unwrap_or_default()
    }
}

/// A list, or `null` when there is nothing in it, as Go's empty slices are.
pub(crate) fn list_or_null(list: &[String]) -> Json {
    if list.is_empty() { Json::NULL } else { list.to_vec().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order() {
        let json = Json::List(vec![Json::object([
            ("Zeta", 1.into()),
            ("Alpha", Json::object([])),
            ("L", Json::NULL),
        ])]);
        assert_eq!(
            json.pretty(),
            "[\n    {\n        \"Zeta\": 1,\n        \"Alpha\": {},\n        \"L\": null\n    }\n]"
        );
        assert_eq!(json.value()[0]["Zeta"], 1);
    }
}
