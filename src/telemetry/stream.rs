//! Server-sent events as a client reads them: events in order, the last id, the pause that was asked for.
//!
//! The decoding itself is `sse-stream`'s. In front of it stands a guard, because the decoder has no bound
//! and ends at the first byte that is not UTF-8: the guard replaces such bytes, as the standard
//! says, and cuts an event that is too large, which then is passed over and counted.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use sse_stream::SseByteStream;

/// The longest id that is kept and sent back.
const ID_BYTES_MAX: usize = 1_024;

/// Pauses that are asked for are kept within these.
pub const RETRY_MS_MAX: u64 = 60_000;

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Event(String),
    /// One that was larger than may be.
    TooLarge,
}

/// What remains from one connection to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Place {
    pub last_id: Option<Arc<str>>,
    pub retry_ms: Option<u64>,
}

type Chunks = Arc<Mutex<VecDeque<Bytes>>>;
type ChunkStream = futures_util::stream::BoxStream<'static, Result<Bytes, Infallible>>;

/// Reads chunks as they come, wherever they are cut.
pub struct Decoder {
    guard: Guard,
    chunks: Chunks,
    events: SseByteStream<ChunkStream>,
    pub place: Place,
}

impl Decoder {
    pub fn new(event_bytes_max: usize, place: Place) -> Decoder {
        let chunks = Chunks::default();
        let source = chunks.clone();
        // A stream that is pending while nothing waits: what wakes it is the next call.
        let waiting = futures_util::stream::poll_fn(move |_| match source.lock().pop_front() {
            Some(chunk) => std::task::Poll::Ready(Some(Ok(chunk))),
            None => std::task::Poll::Pending,
        });
        let events = SseByteStream::new(waiting.boxed());
        Decoder { guard: Guard::new(event_bytes_max), chunks, events, place }
    }

    /// How many lines have ended.
    pub fn lines(&self) -> u64 {
        self.guard.lines
    }

    /// How many bytes of an event have come that has not ended.
    pub fn open_bytes(&self) -> usize {
        self.guard.bytes
    }

    /// What a chunk completes.
    pub fn read(&mut self, chunk: &[u8]) -> Vec<Told> {
        let mut told = Vec::new();
        // Event by event, so that it is known which one was cut.
        for piece in self.guard.pieces(chunk) {
            let Piece { bytes, cut, id_is_cut } = piece;
            self.chunks.lock().push_back(bytes);
            while let Some(Some(Ok(event))) = self.events.next().now_or_never() {
                if let Some(id) = event.id.filter(|id| id.len() <= ID_BYTES_MAX && !id_is_cut) {
                    self.place.last_id = (!id.is_empty()).then(|| id.into());
                }
                if let Some(retry_ms) = event.retry {
                    self.place.retry_ms = Some(retry_ms.min(RETRY_MS_MAX));
                }
                match event.data {
                    Some(data) if !cut && !data.is_empty() => told.push(Told::Event(data)),
                    _ => {}
                }
            }
            if cut {
                told.push(Told::TooLarge);
            }
        }
        told
    }
}

/// Bytes up to the end of an event, or as far as they have come.
struct Piece {
    bytes: Bytes,
    /// They end an event that was cut, perhaps within its id.
    cut: bool,
    id_is_cut: bool,
}

struct Guard {
    event_bytes_max: usize,
    /// Of the event that has begun.
    bytes: usize,
    cut: bool,
    id_is_cut: bool,
    lines: u64,
    /// How many letters of the line have come, and the first of them.
    column: usize,
    head: [char; 2],
    after_cr: bool,
    /// The beginning of a letter whose rest has not come.
    letter: Vec<u8>,
    /// Nothing has come yet: a mark of the byte order may.
    begins: bool,
}

impl Guard {
    fn new(event_bytes_max: usize) -> Guard {
        Guard {
            event_bytes_max,
            bytes: 0,
            cut: false,
            id_is_cut: false,
            lines: 0,
            column: 0,
            head: [' '; 2],
            after_cr: false,
            letter: Vec::new(),
            begins: true,
        }
    }

    fn pieces(&mut self, chunk: &[u8]) -> Vec<Piece> {
        let text = self.text(chunk);
        let mut pieces = Vec::new();
        let mut out = String::new();
        for letter in text.chars() {
            if std::mem::take(&mut self.begins) && letter == '\u{feff}' {
                continue;
            }
            let line_feed_of_cr =
                std::mem::replace(&mut self.after_cr, letter == '\r') && letter == '\n';
            if line_feed_of_cr {
                // The line ended with the CR already.
                continue;
            }
            if matches!(letter, '\r' | '\n') {
                self.lines += 1;
                let ends = std::mem::take(&mut self.column) == 0;
                let cut = self.cut;
                if ends && cut {
                    // The line that was cut, and with it the event.
                    out.push_str("\n\n");
                } else if !cut {
                    out.push('\n');
                }
                if ends {
                    let bytes = std::mem::take(&mut out).into();
                    let id_is_cut = std::mem::take(&mut self.id_is_cut);
                    (self.cut, self.bytes) = (false, 0);
                    pieces.push(Piece { bytes, cut, id_is_cut });
                }
                continue;
            }
            if let Some(place) = self.head.get_mut(self.column) {
                *place = letter;
            }
            self.column += 1;
            self.bytes += letter.len_utf8();
            if self.bytes <= self.event_bytes_max {
                out.push(letter);
            } else if !std::mem::replace(&mut self.cut, true) {
                self.id_is_cut = self.head == ['i', 'd'];
            }
        }
        if !out.is_empty() {
            pieces.push(Piece { bytes: out.into(), cut: false, id_is_cut: false });
        }
        pieces
    }

    /// Text without what is not UTF-8; half a letter at the end waits for its other half.
    fn text(&mut self, chunk: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.letter);
        bytes.extend_from_slice(chunk);
        if let Err(error) = std::str::from_utf8(&bytes) {
            // Only what the end of the input cut off may still become a letter.
            let tail = bytes.len().saturating_sub(3)..bytes.len();
            let begins =
                tail.rev().find(|at| bytes[*at] >= 0xc0).filter(|at| *at >= error.valid_up_to());
            if let Some(at) = begins
                && std::str::from_utf8(&bytes[at..]).is_err_and(|error| error.error_len().is_none())
            {
                self.letter = bytes.split_off(at);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8], cuts: &[usize]) -> (Vec<Told>, Place) {
        let mut decoder = Decoder::new(1_000, Place::default());
        let mut told = Vec::new();
        let mut rest = text;
        for cut in cuts {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            told.extend(decoder.read(now));
            rest = later;
        }
        told.extend(decoder.read(rest));
        (told, decoder.place)
    }

    fn event(text: &str) -> Told {
        Told::Event(text.to_owned())
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (text, told) in [
            ("data: a\n\n", vec![event("a")]),
            ("data:a\r\rdata: b\r\n\r\n", vec![event("a"), event("b")]),
            ("\u{feff}data: a\n\n", vec![event("a")]),
            ("data: a\ndata: b\ndata\n\n", vec![event("a\nb\n")]),
            (": comment\n\ndata: a\n\n", vec![event("a")]),
            ("event: instance\nid: 7\ndata: {}\n\n", vec![event("{}")]),
            ("event: nothing\n\n", vec![]),
            ("data: not complete", vec![]),
            ("data: not complete\n", vec![]),
            ("other: x\ndata:  two spaces\n\n", vec![event(" two spaces")]),
        ] {
            assert_eq!(read(text.as_bytes(), &[]).0, told, "{text:?}");
        }
    }

    #[test]
    fn the_last_id_stays_and_the_pause_is_bounded() {
        let text = b"id: 7\nretry: 100\ndata: a\n\ndata: b\n\nretry: x\n\n";
        let (_, place) = read(text, &[]);
        assert_eq!(place, Place { last_id: Some("7".into()), retry_ms: Some(100) });
        let (_, place) = read(b"id: 7\ndata: a\n\nid\nretry: 999999999\ndata: b\n\n", &[]);
        assert_eq!(place, Place { last_id: None, retry_ms: Some(RETRY_MS_MAX) });
        // One with a NUL is none.
        assert_eq!(
            read(b"id: 7\ndata: a\n\nid: a\0b\ndata: b\n\n", &[]).1.last_id,
            Some("7".into())
        );
    }

    #[test]
    fn what_is_too_large_is_passed_over_and_the_next_is_read() {
        let large = format!("id: 8\ndata: {}\n\ndata: next\n\n", "é".repeat(5_000));
        for step in [1, 7, 4_096, 100_000] {
            let cuts = vec![step; large.len() / step + 1];
            let (told, place) = read(large.as_bytes(), &cuts);
            assert_eq!(told, [Told::TooLarge, event("next")], "{step}");
            assert_eq!(place.last_id.as_deref(), Some("8"));
        }
    }

    #[test]
    fn an_event_that_was_cut_ends_where_it_ends() {
        // Its further lines are no empty ones, and an id of which a part is missing is none.
        let lines = format!("id: 1\ndata: {}\nid: 2\ndata: b\n\ndata: next\n\n", "a".repeat(2_000));
        let id =
            format!("id: 1\ndata: {}\nid: {}\n\ndata: next\n\n", "a".repeat(980), "2".repeat(30));
        for (text, last_id) in [(lines, Some("1")), (id, None)] {
            for step in [1, 7, 999, 100_000] {
                let (told, place) = read(text.as_bytes(), &vec![step; text.len() / step + 1]);
                assert_eq!(told, [Told::TooLarge, event("next")], "{step}");
                assert_eq!(place.last_id.as_deref(), last_id, "{step}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_letters_are_replaced() {
        let (told, _) = read(b"data: a\xff\xc3\n\ndata: b\n\n", &[8, 1]);
        assert_eq!(told, [event("a\u{fffd}\u{fffd}"), event("b")]);
    }

    /// Lines of a stream, ended in every way.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            "data:[ ]?[a-zé漢🦀]{0,12}",
            "id: [0-9a-z]{0,4}",
            "retry: [0-9]{1,3}",
            "event: [a-z]{0,4}",
            ":[a-z]{0,8}",
            Just(String::new()),
            Just(String::new()),
        ];
        let ending = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
        let line = (line, ending).prop_map(|(line, ending)| format!("{line}{ending}").into_bytes());
        let noise = proptest::collection::vec(any::<u8>(), 0..6);
        let part = prop_oneof![9 => line, 1 => noise];
        proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_chunks_are_cut(
            text in stream(),
            cuts in proptest::collection::vec(0..9_usize, 0..80),
        ) {
            prop_assert_eq!(read(&text, &cuts), read(&text, &[]));
        }

        #[test]
        fn an_event_weighs_no_more_than_it_may(text in proptest::collection::vec(any::<u8>(), 0..4_000)) {
            for told in read(&text, &[1_000, 1_000]).0 {
                if let Told::Event(data) = told {
                    prop_assert!(data.len() <= 1_000);
                }
            }
        }
    }
}
