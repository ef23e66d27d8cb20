//! Texts with fields of the record in them: `log.{type}.{meta.tenant|none}`.

use super::record::Record;

/// A text with places for fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { path: String, otherwise: Option<String> },
}

impl Template {
    /// Reads a template; `{{` and `}}` are braces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{text:?}: {what}"));
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if let Some(behind) = brace.strip_prefix("{{") {
                plain.push('{');
                rest = behind;
            } else if let Some(behind) = brace.strip_prefix("}}") {
                plain.push('}');
                rest = behind;
            } else if let Some(behind) = brace.strip_prefix('{') {
                let Some((field, behind)) = behind.split_once('}') else { return wrong("a { without its }") };
                let (path, otherwise) = match field.split_once('|') {
                    Some((path, otherwise)) => (path, Some(otherwise.to_owned())),
                    None => (field, None),
                };
                if path.is_empty() || path.contains('{') {
                    return wrong("between { and } stands the name of a field");
                }
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Field { path: path.to_owned(), otherwise });
                rest = behind;
            } else {
                return wrong("a } without its {");
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The text for a record; an error names the field that it does not have.
    pub(super) fn fill(&self, record: &Record) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Field { path, otherwise } => match (record.text(path), otherwise) {
                    (Some(value), _) => text.push_str(&value),
                    (None, Some(otherwise)) => text.push_str(otherwise),
                    (None, None) => return Err(format!("the record has no text in its field {path}")),
                },
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_they_are_named() {
        let record =
            Record::new("x").field("type", "Bounce").field("n", 7).field("meta", serde_json::json!({"t": "a"}));
        for (template, expected) in [
            ("", "".to_owned()),
            ("plain", "plain".into()),
            ("log.{type}.{meta.t}", "log.Bounce.a".into()),
            ("{n}{n}", "77".into()),
            ("{{{type}}}", "{Bounce}".into()),
            ("{x|none}{x|}", "none".into()),
        ] {
            assert_eq!(Template::parse(template).unwrap().fill(&record), Ok(expected), "{template}");
        }
        let error = Template::parse("{meta}").unwrap().fill(&record).unwrap_err();
        assert!(error.contains("meta"), "{error}");
        for template in ["{", "}", "{}", "a}b", "{a{b}", "{|x}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }
}
