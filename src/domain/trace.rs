//! Where a message belongs among what its publisher traces.

use std::fmt;
use std::sync::Arc;

/// A `traceparent` of the W3C's Trace Context, of version 00, byte for byte as it came.
///
/// What is not exactly that is none, and never an error: who publishes must not fail for what merely
/// watches. It stays a text, since all that is done with most of them is to hand them on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Trace(Arc<str>);

/// `00-` 32 digits `-` 16 digits `-` 2 digits.
const BYTES: usize = 55;

impl Trace {
    pub fn parse(text: &str) -> Option<Trace> {
        let digits = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let some = |part: &str| part.bytes().any(|byte| byte != b'0');
        if text.len() != BYTES || !text.is_ascii() {
            return None;
        }
        let mut parts = text.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (parent, flags) = (parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), parent.len(), flags.len());
        let right = lengths == (2, 32, 16, 2)
            && parts.next().is_none()
            && version == "00"
            && [trace, parent, flags].into_iter().all(digits)
            && some(trace)
            && some(parent);
        right.then(|| Trace(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }

    /// The publisher's span.
    pub fn parent_id(&self) -> &str {
        &self.0[36..52]
    }

    /// Whether the publisher records it; what it does not nobody after it shall.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.0[53..], 16).is_ok_and(|flags| flags & 1 == 1)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_kept_as_it_came() {
        let trace = Trace::parse(GOOD).unwrap();
        assert_eq!(trace.as_str(), GOOD);
        assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.parent_id(), "b7ad6b7169203331");
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
            let trace = Trace::parse(&GOOD.replace("-01", &format!("-{flags}"))).unwrap();
            assert_eq!(trace.is_sampled(), sampled, "{flags}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "01-", 1),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replace("-01", "-0g"),
            &GOOD.replace("-01", ""),
            &GOOD.replace("-01", "-01-"),
            &GOOD.replace("-01", "-01-00"),
            &format!(" {GOOD}"),
            &format!("{GOOD}\n"),
            &GOOD.replace('-', "_"),
            &GOOD.replacen("00-0", "00-é", 1),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b71692033311-01",
        ] {
            assert_eq!(Trace::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", number in "[0-9a-f-]{55}") {
            let _ = Trace::parse(&text);
            let _ = Trace::parse(&number);
        }
    }
}
