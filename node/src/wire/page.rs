//! Pages of long lists.

use super::faults::{FieldFault, InvalidRequest};
use crate::limits;

/// Tokens carry their form, so that a later one can be told from it.
const TOKEN_PREFIX: &str = "1";

/// A page that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many items at most.
    pub size: usize,
    /// The last item of the page before.
    pub after: Option<String>,
}

/// Checks a page's size and token.
///
/// # Errors
/// When the size is too large, or the token is none of ours.
pub fn page(page_size: u32, page_token: &str) -> Result<Page, InvalidRequest> {
    let size = page_size_within(page_size, limits::PAGE_ITEMS_MAX)?;
    let after = if page_token.is_empty() {
        None
    } else {
        Some(decode_token(page_token).ok_or_else(|| {
            fault(
                "page_token",
                "it is not the `next_page_token` of a page before".to_owned(),
            )
        })?)
    };
    Ok(Page { size, after })
}

/// Checks a page's size; 0 asks for the default.
///
/// # Errors
/// When it is above `max`.
pub fn page_size_within(page_size: u32, max: usize) -> Result<usize, InvalidRequest> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(limits::PAGE_ITEMS_DEFAULT),
        Ok(size) if size <= max => Ok(size),
        _ => Err(fault(
            "page_size",
            format!("{page_size} items are too many for a page, at most {max} are possible"),
        )),
    }
}

/// The items of a page, and the token of the next one, empty when there is
/// none. `items` holds one more than fits, if there is one.
pub fn cut<T>(mut items: Vec<T>, size: usize, id: impl Fn(&T) -> &str) -> (Vec<T>, String) {
    if items.len() <= size {
        return (items, String::new());
    }
    items.truncate(size);
    let token = items
        .last()
        .map_or_else(String::new, |last| encode_token(id(last)));
    (items, token)
}

fn encode_token(after: &str) -> String {
    format!("{TOKEN_PREFIX}{}", hex::encode(after))
}

fn decode_token(token: &str) -> Option<String> {
    let bytes = hex::decode(token.strip_prefix(TOKEN_PREFIX)?).ok()?;
    let after = String::from_utf8(bytes).ok()?;
    (!after.is_empty() && after.len() <= limits::ID_BYTES_MAX).then_some(after)
}

fn fault(path: &str, message: String) -> InvalidRequest {
    InvalidRequest(vec![FieldFault {
        path: path.to_owned(),
        message,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_names(names: &[&str], size: usize) -> (Vec<String>, String) {
        cut(
            names.iter().map(ToString::to_string).collect(),
            size,
            String::as_str,
        )
    }

    #[test]
    fn a_token_leads_to_the_next_page() {
        let (names, token) = cut_names(&["a", "bä", "c"], 2);
        assert_eq!(names, ["a", "bä"]);
        assert_eq!(
            page(2, &token),
            Ok(Page {
                size: 2,
                after: Some("bä".to_owned())
            })
        );
        assert_eq!(cut_names(&["a", "b"], 2).1, "");
        assert_eq!(cut_names(&[], 2).1, "");
    }

    #[test]
    fn sizes_have_a_default_and_a_limit() {
        assert_eq!(page(0, "").map(|page| page.size), Ok(100));
        assert_eq!(page(1_000, "").map(|page| page.size), Ok(1_000));
        let error = page(1_001, "").expect_err("too many");
        assert_eq!(error.0[0].path, "page_size");
        assert!(page_size_within(10_000, limits::SCOREBOARD_ROWS_MAX).is_ok());
        assert!(page_size_within(10_001, limits::SCOREBOARD_ROWS_MAX).is_err());
    }

    #[test]
    fn tokens_of_others_are_refused() {
        for token in [
            "1",
            "161zz",
            "261",
            "61",
            "1ff",
            &format!("1{}", "61".repeat(129)),
        ] {
            let error = page(0, token).expect_err(token);
            assert_eq!(error.0[0].path, "page_token", "{token}");
        }
    }
}
