//! Checks definitions against an API's own OpenAPI 3 document (JSON).
//!
//! APIs ignore unknown parameters, so a misspelt one silently returns the wrong rows. Called by `waybill check
//! --openapi`. Pure. What the document leaves open (references to other files) is never reported.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{DefinitionDraft, DefinitionProblem, nearest};

/// Longest chain of references that is followed.
const REFERENCES_MAX: usize = 8;

/// The GET operations of an API.
pub struct ApiDescription {
    paths: BTreeMap<String, Option<GetOperation>>,
    /// Paths of the server addresses, which our paths may begin with.
    prefixes: Vec<String>,
}

/// One GET operation.
#[derive(Default)]
struct GetOperation {
    /// Query parameters.
    parameters: BTreeMap<String, Parameter>,
    /// Some parameters could not be resolved.
    is_open: bool,
    media_types: Vec<String>,
}

#[derive(Default)]
struct Parameter {
    is_required: bool,
    /// Empty: any.
    values: Vec<String>,
}

impl ApiDescription {
    /// Reads the file's text.
    ///
    /// # Errors
    /// It is not OpenAPI 3 in JSON.
    pub fn read(text: &[u8]) -> Result<ApiDescription, String> {
        let all: Value = serde_json::from_slice(text)
            .map_err(|error| format!("is not JSON ({error}); turn YAML into JSON first"))?;
        let version = all.get("openapi").and_then(Value::as_str).unwrap_or_default();
        let paths = all.get("paths").and_then(Value::as_object);
        let Some(paths) = paths.filter(|_| version.starts_with("3.")) else {
            return Err("is not OpenAPI 3: it needs `openapi` (3.x) and `paths`".to_owned());
        };
        let read = |(path, item): (&String, &Value)| {
            let item = resolved(&all, item)?;
            let get = item.get("get").map(|get| operation(&all, item, get));
            Some((path.clone(), get))
        };
        let servers = all.get("servers").and_then(Value::as_array).into_iter().flatten();
        let addresses = servers.filter_map(|server| server.get("url")?.as_str());
        Ok(ApiDescription { paths: paths.iter().filter_map(read).collect(), prefixes: addresses.map(prefix).collect() })
    }

    /// Where a definition contradicts the document. For an incomplete definition, missing parameters are not reported.
    pub fn check(&self, DefinitionDraft { definition, is_whole, .. }: &DefinitionDraft) -> Vec<DefinitionProblem> {
        let name = &definition.name;
        let mut found = FoundProblems { at: format!("resource.{name}"), problems: Vec::new() };
        if let Some((path, operation)) = self.get("list.path", &definition.list.path, &mut found) {
            let sent = definition.list.sent();
            for (key, parameter) in &sent {
                operation.knows(&format!("list.{key}"), parameter, path, &mut found);
            }
            for combination in &definition.list.combinations {
                for (parameter, value) in &combination.0 {
                    operation.knows_value(parameter, value, &mut found);
                }
            }
            let is_sent = |name: &&String| sent.iter().any(|(_, parameter)| parameter == *name);
            let required = operation.parameters.iter().filter(|(_, parameter)| parameter.is_required);
            for name in required.map(|(name, _)| name).filter(|name| *is_whole && !is_sent(name)) {
                found.add("list", format!("GET {path} needs the parameter `{name}`, which is not sent"));
            }
            operation.answers(&definition.media_type, path, &mut found);
        }
        if let Some(detail) = &definition.detail
            && let Some((path, operation)) = self.get("detail.path", &detail.path, &mut found)
        {
            operation.answers(&definition.media_type, path, &mut found);
        }
        found.problems
    }

    /// The GET operation of a path; reports it if there is none. An empty path could not be read and is skipped.
    fn get(&self, key: &str, ours: &str, found: &mut FoundProblems) -> Option<(&str, &GetOperation)> {
        if ours.is_empty() {
            return None;
        }
        let stripped = self.prefixes.iter().filter_map(|prefix| ours.strip_prefix(prefix.as_str()));
        let known = std::iter::once(ours).chain(stripped).find_map(|path| {
            let alike = self.paths.iter().filter(|(known, _)| is_path(known, path));
            // The one with the fewest placeholders.
            alike.min_by_key(|(known, _)| known.matches('{').count())
        });
        match known {
            Some((path, Some(operation))) => return Some((path, operation)),
            Some((path, None)) => found.add(key, format!("`{path}` exists, but not with GET")),
            None => {
                // Placeholders may have other names there.
                let distance = |known: &&String| strsim::levenshtein(&unnamed(ours), &unnamed(known));
                let hint = self.paths.keys().min_by_key(distance).map(|near| format!("; did you mean `{near}`?"));
                found.add(key, format!("`{ours}` is not a path of this API{}", hint.unwrap_or_default()));
            }
        }
        None
    }
}

/// The problems of one definition.
struct FoundProblems {
    at: String,
    problems: Vec<DefinitionProblem>,
}

impl FoundProblems {
    fn add(&mut self, key: &str, what: String) {
        let problem = DefinitionProblem::new(format!("{}.{key}", self.at), what);
        // Several combinations may have the same problem.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

impl GetOperation {
    fn knows(&self, key: &str, name: &str, path: &str, found: &mut FoundProblems) {
        if self.is_open || self.parameters.contains_key(name) {
            return;
        }
        let all: Vec<&str> = self.parameters.keys().map(String::as_str).collect();
        let hint = match nearest(name, all.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if all.is_empty() => "it takes none".to_owned(),
            None => format!("there are {}", all.join(", ")),
        };
        found.add(key, format!("`{name}` is not a parameter of GET {path}; {hint}"));
    }

    fn knows_value(&self, name: &str, value: &str, found: &mut FoundProblems) {
        let values = self.parameters.get(name).map_or(&[][..], |parameter| parameter.values.as_slice());
        if !values.is_empty() && !values.iter().any(|known| known == value) {
            let all = values.join(", ");
            let what = format!("`{value}` is not a value of `{name}`; there are {all}");
            found.add(&format!("list.parameters.{name}"), what);
        }
    }

    fn answers(&self, media_type: &str, path: &str, found: &mut FoundProblems) {
        let plain = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !self.media_types.is_empty() && !self.media_types.iter().any(|known| plain(known) == plain(media_type)) {
            let all = self.media_types.join(", ");
            found.add("media_type", format!("GET {path} does not answer with `{media_type}`, but with {all}"));
        }
    }
}

/// A path without the names of its placeholders.
fn unnamed(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Whether a path of ours matches one of the document's, in which `{...}` matches any one part.
fn is_path(known: &str, ours: &str) -> bool {
    let (known, ours): (Vec<&str>, Vec<&str>) = (known.split('/').collect(), ours.split('/').collect());
    let fits = |(known, ours): (&&str, &&str)| known == ours || known.starts_with('{') && known.ends_with('}');
    known.len() == ours.len() && known.iter().zip(&ours).all(fits)
}

/// The path of a server's address, without a slash at its end.
fn prefix(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
    path.trim_end_matches('/').to_owned()
}

fn operation(all: &Value, item: &Value, get: &Value) -> GetOperation {
    let mut operation = GetOperation::default();
    // The operation's own parameters come last and override those of the path.
    for value in [item, get].iter().filter_map(|place| place.get("parameters")?.as_array()).flatten() {
        let read = resolved(all, value)
            .and_then(|value| Some((value, value.get("name")?.as_str()?, value.get("in")?.as_str()?)));
        let Some((value, name, place)) = read else {
            operation.is_open = true;
            continue;
        };
        if place == "query" {
            let is_required = value.get("required").and_then(Value::as_bool).unwrap_or_default();
            let values = value.get("schema").map(|schema| values(all, schema)).unwrap_or_default();
            operation.parameters.insert(name.to_owned(), Parameter { is_required, values });
        }
    }
    let answer = get.get("responses").and_then(|responses| resolved(all, responses.get("200")?));
    let content = answer.and_then(|answer| answer.get("content")?.as_object());
    operation.media_types = content.into_iter().flat_map(|content| content.keys().cloned()).collect();
    operation
}

/// The values that a schema allows, if it names them.
fn values(all: &Value, schema: &Value) -> Vec<String> {
    let Some(schema) = resolved(all, schema) else { return Vec::new() };
    let schema = schema.get("items").and_then(|items| resolved(all, items)).unwrap_or(schema);
    let named = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    named.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
}

/// Follows references within the document; None: it leads elsewhere.
fn resolved<'a>(all: &'a Value, value: &'a Value) -> Option<&'a Value> {
    let mut value = value;
    for _ in 0..REFERENCES_MAX {
        match value.get("$ref") {
            None => return Some(value),
            Some(reference) => value = all.pointer(reference.as_str()?.strip_prefix('#')?)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{ApiDescription, DefinitionDraft};

    const TEXT: &str = r##"{
        "openapi": "3.0.1",
        "servers": [{"url": "https://api.example.com/v1/"}],
        "paths": {
            "/things": {
                "parameters": [{"$ref": "#/components/parameters/Shop"}],
                "get": {
                    "parameters": [
                        {"name": "page", "in": "query"},
                        {"name": "state", "in": "query", "schema": {"$ref": "#/components/schemas/State"}},
                        {"name": "changed", "in": "query"},
                        {"name": "X-Trace", "in": "header"}
                    ],
                    "responses": {"200": {"content": {"application/json": {}}}}
                }
            },
            "/things/{thing-id}": {"get": {"parameters": []}},
            "/things/{thing-id}/more": {"post": {}},
            "/open": {"get": {"parameters": [{"$ref": "other.json#/x"}]}}
        },
        "components": {
            "parameters": {"Shop": {"name": "shop", "in": "query", "required": true}},
            "schemas": {"State": {"type": "array", "items": {"enum": ["OPEN", "DONE"]}}}
        }
    }"##;

    fn problems(text: &str) -> Vec<String> {
        let definition = crate::catalog::reader::read("things", &toml::from_str(text).unwrap()).unwrap();
        let draft = DefinitionDraft { definition: definition.into(), is_whole: true, is_wanted: true };
        let found = ApiDescription::read(TEXT.as_bytes()).unwrap().check(&draft);
        found.iter().map(ToString::to_string).collect()
    }

    fn things(list: &str, more: &str) -> Vec<String> {
        problems(&format!("id = \"/id\"\ntable = {{}}\nlist = {{ items = \"/things\", {list} }}\n{more}"))
    }

    const SOUND: &str = "path = \"/v1/things\", parameters = { shop = [\"1\"], state = [\"OPEN\", \"DONE\"] }, \
        pages = { style = \"number\", parameter = \"page\" }";

    #[test]
    fn a_definition_that_matches_the_document_has_no_problems() {
        assert_eq!(things(SOUND, "detail = { path = \"/things/{id}\" }"), Vec::<String>::new());
        let open = "path = \"/open\", parameters = { any = [\"1\"] }, pages = { style = \"none\" }";
        assert_eq!(things(open, ""), Vec::<String>::new(), "an unresolved reference");
    }

    #[test]
    fn contradictions_are_reported_with_key_and_hint() {
        let list = SOUND.replace("shop =", "shopp =").replace("\"page\"", "\"pgae\"").replace("DONE", "dun");
        let windows =
            ", windows = { day = \"chnaged\", reach = \"3d\" }, recent = { parameter = \"minutes\", max = \"60min\" }";
        assert_eq!(
            things(&format!("{list}{windows}"), "media_type = \"text/csv\"\ndetail = { path = \"/things/{id}/more\" }"),
            [
                "resource.things.list.parameters.shopp: `shopp` is not a parameter of GET /things; did you mean `shop`?",
                "resource.things.list.pages.parameter: `pgae` is not a parameter of GET /things; did you mean `page`?",
                "resource.things.list.windows.day: `chnaged` is not a parameter of GET /things; did you mean `changed`?",
                "resource.things.list.recent.parameter: `minutes` is not a parameter of GET /things; there are changed, page, shop, state",
                "resource.things.list.parameters.state: `dun` is not a value of `state`; there are OPEN, DONE",
                "resource.things.list: GET /things needs the parameter `shop`, which is not sent",
                "resource.things.media_type: GET /things does not answer with `text/csv`, but with application/json",
                "resource.things.detail.path: `/things/{thing-id}/more` exists, but not with GET",
            ]
        );
        let lost = "path = \"/thinks\", pages = { style = \"none\" }";
        assert_eq!(
            things(lost, ""),
            ["resource.things.list.path: `/thinks` is not a path of this API; did you mean `/things`?"]
        );
    }

    #[test]
    fn anything_but_openapi_3_in_json_is_refused() {
        for text in ["openapi: 3.0.1", "{}", r#"{"swagger":"2.0","paths":{}}"#, r#"{"openapi":"3.1.0"}"#] {
            assert!(ApiDescription::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
