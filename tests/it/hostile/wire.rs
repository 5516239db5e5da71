//! Bytes that are no frames, and requests that are none.

use super::raw::{Raw, header};
use super::{goes_on, replica};

const TEXT: u8 = 0x81;
const UNFINISHED_TEXT: u8 = 0x01;
const CONTINUED: u8 = 0x00;
const LAST: u8 = 0x80;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_close_the_socket() {
    let replica = replica("", &[]).await;
    for (what, first, payload, code) in [
        ("bytes that are not UTF-8", TEXT, &b"\"\xff\""[..], 4400),
        ("half of a letter", TEXT, &b"\xe2\x82"[..], 4400),
        ("a binary frame", 0x82, &b"{\"op\":\"ping\"}"[..], 4400),
        ("a reserved bit", TEXT | 0x40, &b"{\"op\":\"ping\"}"[..], 4400),
        ("an unknown kind", 0x83, &b""[..], 4400),
        ("an unknown control frame", 0x8b, &b""[..], 4400),
        ("an end without a beginning", LAST, &b"x"[..], 4400),
        ("a long ping", PING, &[b'x'; 126][..], 4400),
        ("an unfinished ping", 0x09, &b""[..], 4400),
        ("a close with half a code", CLOSE, &b"\x03"[..], 4400),
        ("an empty text", TEXT, &b""[..], 4400),
    ] {
        let mut raw = Raw::websocket(&replica.url).await;
        raw.frame(first, payload).await;
        assert_eq!(raw.close_code().await, code, "{what}");
    }
    let mut raw = Raw::websocket(&replica.url).await;
    raw.write(&[TEXT, 2, b'{', b'}']).await;
    assert_eq!(raw.close_code().await, 4400, "a frame that is not masked");
    let mut raw = Raw::websocket(&replica.url).await;
    raw.frame(UNFINISHED_TEXT, b"{").await;
    raw.frame(TEXT, b"{}").await;
    assert_eq!(raw.close_code().await, 4400, "a second beginning");
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_in_pieces_is_put_together() {
    let replica = replica("", &[]).await;
    let mut raw = Raw::websocket(&replica.url).await;
    raw.frame(UNFINISHED_TEXT, b"{\"op\":").await;
    raw.frame(CONTINUED, b"").await;
    raw.frame(PING, b"between").await;
    raw.frame(CONTINUED, b"\"ping\",\"ref\":\"\xc3").await;
    raw.frame(LAST, b"\xa9\"}").await;
    raw.until("{\"type\":\"pong\",\"ref\":\"\u{e9}\"}").await;
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_too_large_closes_the_socket_however_it_comes() {
    let replica = replica("", &[("TIDINGS_FRAME_BYTES_MAX", "300 KiB")]).await;
    let large = vec![b'x'; 301 << 10];
    let mut raw = Raw::websocket(&replica.url).await;
    raw.frame(TEXT, &large).await;
    assert_eq!(raw.close_code().await, 4413, "at once");
    let mut raw = Raw::websocket(&replica.url).await;
    raw.frame(UNFINISHED_TEXT, b"{").await;
    for _ in 0..301 {
        raw.frame(CONTINUED, &large[..1024]).await;
    }
    assert_eq!(raw.close_code().await, 4413, "in pieces");
    // Only said to be large; nothing waits for what does not come.
    for length in [400 << 10, 1 << 40, usize::MAX >> 1] {
        let mut raw = Raw::websocket(&replica.url).await;
        raw.write(&header(TEXT, length, 0x80)).await;
        raw.write(&[0; 4]).await;
        assert_eq!(raw.close_code().await, 4413, "{length}");
    }
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_nothing_behind() {
    let mut replica = replica("", &[]).await;
    for bytes in
        [&b""[..], &[TEXT], &[TEXT, 0x85, 0, 0, 0, 0, b'{'], &[UNFINISHED_TEXT, 0x80, 0, 0, 0, 0]]
    {
        let mut raw = Raw::websocket(&replica.url).await;
        raw.write(bytes).await;
    }
    for bytes in [
        &b""[..],
        b"G",
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"GET /v1/sse HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut raw = Raw::connect(&replica.url).await;
        raw.write(bytes).await;
    }
    let mut waiting = Raw::connect(&replica.url).await;
    waiting.write(b"GET /v1/messages?topic=a&wait_s=60 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let sessions = async || replica.stats().await["sessions"].as_u64().unwrap();
    crate::fleet::until("the long poll is one of them", async || sessions().await >= 1).await;
    drop(waiting);
    replica.until_ready().await;
    crate::fleet::until("their sessions and connections have ended", async || {
        let stats = replica.stats().await;
        stats["sessions"] == 0 && stats["connections"] == 1
    })
    .await;
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none_are_refused_and_those_that_do_not_end_are_cut() {
    let replica = replica("", &[("TIDINGS_HEADER_TIMEOUT_S", "1")]).await;
    let long =
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(32 << 10));
    let many = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(1000));
    for (what, bytes, statuses) in [
        ("rubbish", b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n".as_slice(), &["400"][..]),
        ("no version", b"GET /\r\n\r\n", &["400"]),
        ("a line break in a header", b"GET /livez HTTP/1.1\r\nA\n: b\r\n\r\n", &["400"]),
        ("two lengths", b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", &["400"]),
        ("a length below nothing", b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", &["400"]),
        ("a chunk without a size", b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", &["400"]),
        ("a long header", long.as_bytes(), &["431"]),
        ("many headers", many.as_bytes(), &["431", "400"]),
        // Nothing is answered to what was never asked, but it does not stay either.
        ("half a request", b"GET /livez HTTP/1.1\r\nHost: local", &["", "408"]),
        ("nothing", b"", &["", "408"]),
    ] {
        let mut raw = Raw::connect(&replica.url).await;
        raw.write(bytes).await;
        let answer = String::from_utf8_lossy(&raw.rest().await).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{what}: {answer}");
    }
    goes_on(replica).await;
}
