//! Lists that come in pages: tags and referrers.

use std::io::Read;

use super::client::{Ask, Content, OnRetry, Registry, Target, refused_redirect};
use super::error::RegistryError;
use super::transport::Method;
use super::url::Url;

/// Longest page, in bytes. Registries that know no pages send a hundred thousand tags in one.
const MAX_PAGE: u64 = 16 * 1024 * 1024;
/// Most pages of one list.
const MAX_PAGES: u32 = 10_000;

impl Registry<'_> {
    /// Fetches the pages of a list, and goes on for as long as `take` says and there is one more.
    pub(super) fn pages(
        &self,
        path: &str,
        what: &str,
        on_retry: OnRetry<'_>,
        take: &mut dyn FnMut(&[u8]) -> Result<bool, String>,
    ) -> Result<(), RegistryError> {
        let mut next: Option<Url> = None;
        for _ in 0..MAX_PAGES {
            let ask = Ask {
                method: Method::Get,
                target: next.as_ref().map_or(Target::Path(path), Target::Location),
                headers: &[],
                content: Content::Empty,
                access: self.access,
                success: &[200],
                what,
            };
            let mut answer = self.ask(&ask, on_retry)?;
            let mut bytes = Vec::new();
            let body = &mut answer.response.body;
            body.take(MAX_PAGE + 1)
                .read_to_end(&mut bytes)
                .map_err(|source| RegistryError::Interrupted { what: what.to_owned(), source })?;
            if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_PAGE) {
                return Err(self.answer(what, format!("a page of the list has more than {MAX_PAGE} bytes")));
            }
            let wants_more = take(&bytes).map_err(|reason| self.answer(what, reason))?;
            let links = answer.response.headers.iter().filter(|(name, _)| wants_more && name == "link");
            let link = links.filter_map(|(_, value)| next_link(value)).next();
            let Some(link) = link else { return Ok(()) };
            let refuse = |reason| refused_redirect(&answer.url, link, reason);
            let url = answer.url.join(link).map_err(refuse)?;
            answer.url.check_redirect(&url, &self.origin()).map_err(refuse)?;
            if url == answer.url {
                return Err(refuse("it is the page that has just come"));
            }
            next = Some(url);
        }
        Err(self.answer(what, format!("the list has more than {MAX_PAGES} pages")))
    }
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let (parameters, following) = match after.find('<') {
            Some(at) => after.split_at(at),
            None => (after, ""),
        };
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && value.split(' ').any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target);
        }
        rest = following;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_header() {
        for (header, target) in [
            ("</v2/a/tags/list?last=b&n=2>; rel=\"next\"", Some("/v2/a/tags/list?last=b&n=2")),
            ("<https://r.io/x>; rel=next", Some("https://r.io/x")),
            ("</first>; rel=\"first\", </x,y>; title=\"a\"; REL=\"last Next\"", Some("/x,y")),
            ("</first>; rel=\"first\"", None),
            ("/x; rel=next", None),
            ("<", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), target, "{header}");
        }
    }
}
