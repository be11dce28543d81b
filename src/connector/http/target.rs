//! The url of a request: the configured one, with a path that must stay below its own (R65).

use std::fmt;

use reqwest::Url;

use super::{Settings, permanent};
use crate::config::template::Template;
use crate::connector::BadSetting;
use crate::handler::HandlerError;

/// The configured url, and the template of the path after it.
pub(super) struct Target {
    url: Url,
    path: Option<Template>,
    /// The host, port and path that messages may show.
    shown: String,
}

impl Target {
    pub(super) fn new(settings: &Settings) -> Result<Self, BadSetting> {
        let written = &settings.url;
        let bad = |why: String| BadSetting::new(&["url"], why);
        if written.is_empty() {
            return Err(bad("`url` is missing".to_owned()));
        }
        if !written.contains("://") {
            let meant = if written.has_references() { "example.com/hook" } else { &**written };
            let problem = bad("`url` must begin with http:// or https://".to_owned());
            return Err(problem.help(format!("write it as in \"https://{meant}\"")));
        }
        let mut url = Url::parse(written).map_err(|error| bad(format!("`url` is not a url: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad("`url` must begin with http:// or https://".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let help = "write `auth = { basic = { user = \"…\", password = \"${PASSWORD}\" } }`";
            return Err(bad("`url` must not contain a user and password: use `auth`".to_owned()).help(help));
        }
        url.set_fragment(None);
        if let Some(path) = &settings.path
            && !path.render("c-i").is_ok_and(|path| path.starts_with('/'))
        {
            let help = format!("write `/{}`", path.written());
            return Err(BadSetting::new(&["path"], "`path` must begin with a slash").help(help));
        }
        // The value of a reference may be a secret, and some hosts keep theirs in the path.
        let path = if written.has_references() { "/…" } else { url.path() };
        let shown = format!("{}{}", host(&url), path.trim_end_matches('/'));
        Ok(Self { url, path: settings.path.clone(), shown })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Returns the url for a stream's events, and its form for messages.
    pub(super) fn of_stream(&self, stream: &str) -> Result<(Url, String), HandlerError> {
        let Some(template) = &self.path else {
            return Ok((self.url.clone(), self.shown.clone()));
        };
        let path = template.render(stream).map_err(|error| permanent(error.to_string()))?;
        let (url, shown) = self.below(&path)?;
        Ok((url, if template.has_references() { format!("{}/…", self.shown) } else { shown }))
    }

    /// Returns the url with a path and an optional query after its own, and its form for messages.
    pub(super) fn below(&self, path: &str) -> Result<(Url, String), HandlerError> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        if !path.starts_with('/') {
            return Err(permanent(format!("the path `{path}` does not begin with a slash")));
        }
        let own = self.url.path().trim_end_matches('/');
        let mut url = self.url.clone();
        url.set_path(&format!("{own}{path}"));
        // `set_path` resolved the dots, in all their spellings.
        if !url.path().strip_prefix(own).is_some_and(|rest| rest.starts_with('/')) {
            return Err(permanent(format!("the path `{path}` leads out of the url's path")));
        }
        if let Some(query) = query {
            let query = self.url.query().map_or_else(|| query.to_owned(), |own| format!("{own}&{query}"));
            url.set_query(Some(&query));
        }
        Ok((url, format!("{}{path}", self.shown)))
    }

    /// Returns the url's own query, which may hold a key.
    pub(super) fn query(&self) -> Option<&str> {
        self.url.query()
    }
}

/// Shows the form for messages, because the url's query may hold a key.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::HandlerErrorKind;

    fn target(settings: &str) -> Result<Target, BadSetting> {
        Target::new(&toml::from_str(settings).unwrap())
    }

    fn check_below(url: &str, path: &str, expected: Result<(&str, &str), &str>) {
        let joined = target(&format!("url = \"{url}\"")).unwrap().below(path);
        let joined = joined.as_ref().map(|(url, shown)| (url.as_str(), shown.as_str()));
        assert_eq!(joined.map_err(HandlerError::message), expected);
    }

    #[test]
    fn a_path_follows_that_of_the_url() {
        check_below("http://h", "/a", Ok(("http://h/a", "h/a")));
        check_below("http://h:81/x/", "/a/b", Ok(("http://h:81/x/a/b", "h:81/x/a/b")));
        check_below("http://h/x?key=1#f", "/a?b=2", Ok(("http://h/x/a?key=1&b=2", "h/x/a")));
        check_below("http://h/x", "/a b#c", Ok(("http://h/x/a%20b%23c", "h/x/a b#c")));
        check_below("http://h", "//evil/x", Ok(("http://h//evil/x", "h//evil/x")));
    }

    #[test]
    fn r65_a_path_cannot_leave_that_of_the_url() {
        let out = |path| format!("the path `{path}` leads out of the url's path");
        for path in ["/..", "/../y", "/a/../../y", "/%2e%2e/y", "/.%2E/y", "/\\..\\..\\y", "/../xy"] {
            check_below("http://h/x", path, Err(&out(path)));
        }
        check_below("http://h/x", "@evil/", Err("the path `@evil/` does not begin with a slash"));
        check_below("http://h/x", "", Err("the path `` does not begin with a slash"));
    }

    #[test]
    fn a_template_renders_the_path_of_a_stream() {
        let target = target("url = \"http://h/x\"\npath = \"/orders/{id}\"").unwrap();
        assert_eq!(target.of_stream("order-a/b").unwrap().0.as_str(), "http://h/x/orders/a%2Fb");
        for stream in ["order-..", "order"] {
            assert_eq!(target.of_stream(stream).unwrap_err().kind(), HandlerErrorKind::Permanent);
        }
    }

    #[test]
    fn r63_a_url_from_a_reference_shows_only_its_host() {
        let target =
            target("url = \"${PROPULSIOND_NOT_SET:-https://h/T0/secret?k=secret}\"\npath = \"/o/{id}\"").unwrap();
        let (url, shown) = target.of_stream("a-1").unwrap();
        assert_eq!((url.as_str(), shown.as_str()), ("https://h/T0/secret/o/1?k=secret", "h/…/o/1"));
    }

    #[test]
    fn an_invalid_url_is_refused_with_its_reason() {
        for (settings, why) in [
            ("", "`url` is missing"),
            ("url = \"h:80\"", "`url` must begin with http:// or https://"),
            ("url = \"ftp://h\"", "`url` must begin with http:// or https://"),
            ("url = \"http://no url\"", "`url` is not a url: invalid international domain name"),
            ("url = \"http://u:p@h\"", "`url` must not contain a user and password: use `auth`"),
            ("url = \"http://h\"\npath = \"a\"", "`path` must begin with a slash"),
        ] {
            assert_eq!(target(settings).unwrap_err().to_string(), why);
        }
    }
}
