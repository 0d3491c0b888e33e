//! A listing: rows of named fields, shown as a table, through a template, or as one JSON object a line.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::table;
use super::template::{Scope, Template, TemplateError};
use crate::failure::Failure;

/// One row of a listing.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// Fields as templates name them; all are shown by `--format json`.
    pub(crate) fields: Map<String, Value>,
    /// What `.Label "name"` looks into.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Row {
    /// The row with one more field.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// What `--format` asked for.
enum Shape<'a> {
    Json,
    Raw(&'a str),
    Table(&'a str),
}

/// The text of a listing.
///
/// `titles` gives each field's column title; `default` is the template of the default table, without `table `.
///
/// # Errors
/// When the template does not parse, or fails on a row.
pub(crate) fn render(
    format: Option<&str>,
    default: &str,
    titles: &[(&str, &str)],
    rows: &[Row],
) -> Result<String, Failure> {
    let shape = match format.map(str::trim) {
        None | Some("" | "table") => Shape::Table(default),
        Some("json") => Shape::Json,
        Some(text) => match text.strip_prefix("table") {
            Some(rest) if rest.starts_with([' ', '\t']) => Shape::Table(rest.trim()),
            _ => Shape::Raw(text),
        },
    };
    let source = match shape {
        Shape::Json => {
            let lines = rows.iter().map(|row| Value::Object(row.fields.clone()).to_string() + "\n");
            return Ok(lines.collect());
        }
        Shape::Raw(text) | Shape::Table(text) => text.replace("\\t", "\t").replace("\\n", "\n"),
    };
    let template = parse(&source)?;
    let mut text = String::new();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| execute_row(&template, row))
        .collect::<Result<_, TemplateError>>()
        .map_err(failed)?;
    let tabular = matches!(shape, Shape::Table(_));
    if tabular {
        text.push_str(&title_line(&template, titles).map_err(failed)?);
        text.push('\n');
    }
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(if tabular { table::align(&text) } else { text })
}

/// The template of `source`, or the failure that Docker reports.
pub(crate) fn parse(source: &str) -> Result<Template, Failure> {
    Template::parse(source).map_err(|error| {
        Failure::usage(format!("template parsing error: {error}"))
            .with_hint("the format is a Go template, as `{{.ID}}`, or `json`, or `table` and a template")
    })
}

fn failed(error: TemplateError) -> Failure {
    Failure::usage(format!("failed to execute template: {error}"))
        .with_hint("`--format json` shows every field there is")
}

fn execute_row(template: &Template, row: &Row) -> Result<String, TemplateError> {
    let label = |name: &str, arguments: &[Value]| match (name, arguments) {
        ("Label", [Value::String(name)]) => Some(row.labels.get(name).cloned().unwrap_or_default().into()),
        _ => None,
    };
    let data = Value::Object(row.fields.clone());
    template.execute(&data, &Scope { maps: &[], method: Some(&label), header: false })
}

/// The template executed on the titles.
fn title_line(template: &Template, titles: &[(&str, &str)]) -> Result<String, TemplateError> {
    let label = |name: &str, arguments: &[Value]| match (name, arguments) {
        ("Label", [Value::String(name)]) => {
            let last = name.rsplit('.').next().unwrap_or(name);
            Some(last.replace(['-', '_'], " ").into())
        }
        _ => None,
    };
    let data = titles.iter().map(|(field, title)| ((*field).to_owned(), Value::from(*title))).collect();
    template.execute(&Value::Object(data), &Scope { maps: &[], method: Some(&label), header: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &[(&str, &str)] = &[("ID", "CONTAINER ID"), ("Names", "NAMES"), ("Labels", "LABELS")];

    fn rows() -> Vec<Row> {
        let labels = BTreeMap::from([("com.x.tier-name".to_owned(), "web".to_owned())]);
        vec![
            Row { labels, ..Row::default() }.with("ID", "0123456789ab").with("Names", "a").with("Labels", ""),
            Row::default().with("ID", "fedcba987654").with("Names", "b").with("Labels", "x=y"),
        ]
    }

    fn shown(format: Option<&str>) -> String {
        render(format, "{{.ID}}\t{{.Names}}", TITLES, &rows()).unwrap()
    }

    #[test]
    fn the_default_is_a_table_with_titles() {
        let expected = "CONTAINER ID   NAMES\n0123456789ab   a\nfedcba987654   b\n";
        assert_eq!(shown(None), expected);
        assert_eq!(shown(Some("table")), expected);
    }

    #[test]
    fn templates_json_and_own_tables() {
        assert_eq!(shown(Some("{{.Names}}:{{.ID}}")), "a:0123456789ab\nb:fedcba987654\n");
        assert_eq!(shown(Some(r"{{.Names}}\t{{.ID}}")), "a\t0123456789ab\nb\tfedcba987654\n");
        assert_eq!(
            shown(Some(r"table {{upper .Names}}\t{{.Label `com.x.tier-name`}}")),
            "NAMES     tier name\nA         web\nB         \n"
        );
        assert_eq!(
            shown(Some("json")),
            "{\"ID\":\"0123456789ab\",\"Labels\":\"\",\"Names\":\"a\"}\n{\"ID\":\"fedcba987654\",\"Labels\":\"x=y\",\"Names\":\"b\"}\n"
        );
        assert_eq!(shown(Some("{{json .}}")).lines().count(), 2);
    }

    #[test]
    fn a_wrong_template_is_told_in_dockers_words() {
        let error = |format| render(Some(format), "", TITLES, &rows()).unwrap_err().to_string();
        assert_eq!(
            error("{{.Foo}}"),
            "failed to execute template: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""
        );
        assert_eq!(error("{{.Foo"), "template parsing error: template: :1: unclosed action");
    }
}
