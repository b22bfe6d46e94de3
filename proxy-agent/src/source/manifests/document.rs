//! The documents of a file, and where in it they are.

use std::fmt;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_yaml_ng::Value;

use super::object::{Kind, Raw};

/// Syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// What is wrong, and on which line of the file, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

/// One document of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    format: Format,
    text: &'a str,
    /// Lines of the file before `text`.
    lines_before: usize,
}

/// An object in a document.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) document: Document<'a>,
    /// Position in the list, for an item of one.
    pub(super) item: Option<usize>,
    pub(super) raw: Raw,
}

/// The documents of a file.
///
/// # Errors
/// When a JSON file is not JSON; a YAML document is not looked into here.
pub(super) fn documents(format: Format, text: &str) -> Result<Vec<Document<'_>>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Yaml => Ok(yaml_documents(text)),
        Format::Json => json_documents(text),
    }
}

/// A `---` or `...` at the start of a line is a document marker wherever it stands, so lines are enough.
fn yaml_documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    let mut end = 0;
    let mut close = |start: usize, end: usize, lines_before| {
        let text = &text[start..end];
        let is_content = |line: &str| {
            let line = line.trim();
            !line.is_empty() && line != "---" && !line.starts_with(['#', '%'])
        };
        if text.lines().any(is_content) {
            documents.push(Document { format: Format::Yaml, text, lines_before });
        }
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = |marker| {
            line.strip_prefix(marker)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        };
        if is_marker("---") {
            close(start, end, lines_before);
            (start, lines_before) = (end, index);
        } else if is_marker("...") {
            close(start, end, lines_before);
            (start, lines_before) = (end + line.len(), index + 1);
        }
        end += line.len();
    }
    close(start.min(end), end, lines_before);
    documents
}

fn json_documents(text: &str) -> Result<Vec<Document<'_>>, Fault> {
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut start = 0;
    while let Some(document) = stream.next() {
        document.map_err(|error| Fault { line: Some(error.line()), message: error.to_string() })?;
        let end = stream.byte_offset();
        let lines_before = text[..start].matches('\n').count();
        documents.push(Document { format: Format::Json, text: &text[start..end], lines_before });
        start = end;
    }
    Ok(documents)
}

impl<'a> Document<'a> {
    /// The objects in the document that are of a kind that counts, or why there is one that cannot be told.
    ///
    /// # Errors
    /// When the document is not of its syntax, or not an object at all.
    pub(super) fn objects(self) -> Result<Vec<Result<Found<'a>, Fault>>, Fault> {
        let mut tree: Value = self.parse()?;
        if tree.is_null() {
            return Ok(Vec::new());
        }
        let fault = |message: &str| Fault { line: Some(self.first_line()), message: message.to_owned() };
        if !tree.is_mapping() {
            return Err(fault("the document is not an object with apiVersion and kind"));
        }
        let Some((api_version, kind)) = type_of(&tree) else {
            return Ok(vec![Err(fault("an object has no apiVersion or no kind: it is skipped"))]);
        };
        let items_kind = match (api_version, kind) {
            ("v1", "List") => None,
            (_, list) => match list.strip_suffix("List").and_then(|item| Kind::of(api_version, item)) {
                Some(kind) => Some(kind),
                None => {
                    let Some(kind) = Kind::of(api_version, kind) else {
                        tracing::debug!(api_version, kind, "a manifest of a kind that does not count");
                        return Ok(Vec::new());
                    };
                    return Ok(vec![Ok(Found { document: self, item: None, raw: Raw { kind, tree } })]);
                }
            },
        };
        let items = match tree.get_mut("items").map(std::mem::take) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Sequence(items)) => items,
            Some(_) => return Ok(vec![Err(fault("the items of a list are not a sequence: it is skipped"))]),
        };
        let items = items.into_iter().enumerate();
        Ok(items.filter_map(|(index, item)| self.item(index, item, items_kind)).collect())
    }

    /// An item of a typed list may leave its own type out, as the API server does.
    fn item(self, index: usize, tree: Value, kind: Option<Kind>) -> Option<Result<Found<'a>, Fault>> {
        let kind = match (type_of(&tree), kind) {
            (Some((api_version, kind)), _) => Kind::of(api_version, kind)?,
            (None, Some(kind)) => kind,
            (None, None) => {
                let message = format!("items[{index}] has no apiVersion or no kind: it is skipped");
                return Some(Err(Fault { line: Some(self.first_line()), message }));
            }
        };
        let raw = Raw { kind, tree };
        Some(Ok(Found { document: self, item: Some(index), raw }))
    }

    /// Line of the file on which the document's content begins.
    pub(super) fn first_line(self) -> usize {
        let is_content = |line: &str| {
            let line = line.trim();
            !line.is_empty() && line != "---" && !line.starts_with('#')
        };
        self.lines_before + self.text.lines().position(is_content).unwrap_or(0) + 1
    }

    fn parse<T: DeserializeOwned>(self) -> Result<T, Fault> {
        self.parse_seed(std::marker::PhantomData)
    }

    fn parse_seed<S: for<'de> DeserializeSeed<'de, Value = T>, T>(self, seed: S) -> Result<T, Fault> {
        // The end of a text that is cut off is on the line after the last.
        let lines = self.text.lines().count();
        let fault = |line: Option<usize>, message| Fault {
            line: Some(line.map_or_else(|| self.first_line(), |line| self.lines_before + line.min(lines))),
            message,
        };
        match self.format {
            Format::Yaml => {
                seed.deserialize(serde_yaml_ng::Deserializer::from_str(self.text)).map_err(|error| {
                    fault(error.location().map(|at| at.line()), without_place(&error.to_string()))
                })
            }
            Format::Json => seed
                .deserialize(&mut serde_json::Deserializer::from_str(self.text))
                .map_err(|error| fault(Some(error.line()), without_place(&error.to_string()))),
        }
    }
}

impl Found<'_> {
    /// Where and why this object, which is known to be malformed, is so.
    pub(super) fn fault(document: Document<'_>, item: Option<usize>, kind: Kind) -> Option<Fault> {
        match kind {
            Kind::Service => document.parse_seed(At::<core::Service>::new(item)).err(),
            Kind::EndpointSlice => document.parse_seed(At::<discovery::EndpointSlice>::new(item)).err(),
            Kind::Node => document.parse_seed(At::<core::Node>::new(item)).err(),
        }
    }
}

fn type_of(tree: &Value) -> Option<(&str, &str)> {
    Some((tree.get("apiVersion")?.as_str()?, tree.get("kind")?.as_str()?))
}

/// Both parsers end their messages with a place, counted from the start of the document.
fn without_place(message: &str) -> String {
    message.rfind(" at line ").map_or(message, |place| &message[..place]).to_owned()
}

/// Reads a document only to meet the error of one object in it with the place where it is: the document
/// itself, or an item of its `items`.
struct At<T> {
    item: Option<usize>,
    object: std::marker::PhantomData<T>,
}

impl<T> At<T> {
    fn new(item: Option<usize>) -> Self {
        Self { item, object: std::marker::PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for At<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.item {
            None => T::deserialize(deserializer).map(drop),
            Some(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for At<T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Value>()? {
            if key.as_str() == Some("items") {
                map.next_value_seed(Items(Self::new(self.item)))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Items<T>(At<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Items<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let item = if Some(index) == self.0.item {
                items.next_element::<T>()?.map(drop)
            } else {
                items.next_element::<IgnoredAny>()?.map(drop)
            };
            if item.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }
}
