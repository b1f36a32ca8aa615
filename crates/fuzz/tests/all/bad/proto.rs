//! Protobuf by hand, and what can be wrong with any message.

use florin_core::Code;

use super::Cases;

/// A varint in its shortest form.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A number as a varint field, also if it is 0.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A number as a fixed64 field, also if it is 0.
pub fn fixed(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

/// Bytes as a field, also if there are none.
pub fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// The top fields of an encoded message: number, and all bytes of each.
pub fn fields(message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    let mut at = 0;
    let read = |at: &mut usize| {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = message[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    while at < message.len() {
        let from = at;
        let tag = read(&mut at);
        match tag & 7 {
            0 => drop(read(&mut at)),
            1 => at += 8,
            2 => at += read(&mut at) as usize,
            5 => at += 4,
            other => panic!("no wire type of a good message: {other}"),
        }
        out.push((tag >> 3, message[from..at].to_vec()));
    }
    out
}

/// Breaks the encoding of a good message in every way. `wrap` puts it where the decoder looks for it; `malformed` is the code for what is no
/// message, `other` that for another encoding of the same.
pub fn break_message(
    cases: &mut Cases,
    (of, what): (&'static str, &str),
    message: &[u8],
    (malformed, other): (Code, Code),
    wrap: impl Fn(&[u8]) -> Vec<u8>,
) {
    cases.whole(of, what, wrap(message));
    let parts = fields(message);
    let mut bad = |code, rule: &str, bytes: Vec<u8>| cases.bad(of, code, format!("{what}: {rule}"), wrap(&bytes));
    let then = |more: &[u8]| [message, more].concat();
    bad(malformed, "cut by its last byte", message[..message.len() - 1].to_vec());
    bad(malformed, "a zero byte behind it", then(&[0]));
    bad(malformed, "a tag of wire type 7 behind it", then(&[0x0f]));
    bad(malformed, "a tag without its value behind it", then(&[0xf8, 0x07]));
    bad(malformed, "a field that is longer than what is left", then(&[0xfa, 0x07, 0x05, 1, 2]));
    bad(malformed, "a varint of eleven bytes", then(&[&[0xf8, 0x07][..], &[0xff; 10], &[1]].concat()));
    bad(other, "an unknown field", then(&number(1_000, 1)));
    let first = &parts[0].1;
    let tag: Vec<u8> = vec![first[0] | 0x80, 0];
    bad(other, "a tag that is not in its shortest form", [&tag[..], &message[1..]].concat());
    if parts.len() > 1 && parts[0].0 != parts[1].0 {
        let mut turned = parts.clone();
        turned.rotate_left(1);
        bad(other, "fields out of their order", turned.into_iter().flat_map(|(_, bytes)| bytes).collect());
    }
    if first[0] & 7 == 2 && first[1] < 0x80 {
        let padded = [&[first[0], first[1] | 0x80, 0][..], &message[2..]].concat();
        bad(other, "a length that is not in its shortest form", padded);
    }
}
