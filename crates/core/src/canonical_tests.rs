use prost::Message;

use super::*;

/// Lengths about which an encoding changes.
const LENGTHS: [usize; 8] = [0, 1, 126, 127, 128, 129, 16_383, 16_384];

#[test]
fn lengths_and_numbers_are_written_as_the_general_encoder_does() {
    for length in LENGTHS {
        let value = vec![7; length];
        let mut general = Vec::new();
        prost::encoding::bytes::encode(5, &value, &mut general);
        let (mut message, mut plain) = (vec![9], Vec::new());
        put_message(&mut message, bytes(5), |out| out.extend_from_slice(&value));
        put_bytes(&mut plain, bytes(5), &value);
        assert_eq!((&message[1..], &plain), (&general[..], &general), "{length} bytes");
        let mut some = Vec::new();
        put_some(&mut some, bytes(5), &value);
        assert_eq!(some, if length == 0 { Vec::new() } else { general }, "{length} bytes");
        let mut reader = Reader::new(&plain);
        assert_eq!(reader.bytes_field(bytes(5), length), Some(Some(plain.len() - length..plain.len())));
        assert!(reader.is_done());
        if length > 0 {
            assert_eq!(Reader::new(&plain).bytes_field(bytes(5), length - 1), None, "longer than it may be");
            assert_eq!(Reader::new(&plain[..plain.len() - 1]).bytes_field(bytes(5), length), None, "cut");
        }
    }
    for number in [0, 1, 127, 128, 1 << 32, u64::MAX >> 1, u64::MAX] {
        let (mut fixed, mut long) = (Vec::new(), Vec::new());
        put_fixed64(&mut fixed, fixed64(2), number);
        put_uint64(&mut long, varint(3), number);
        assert_eq!(long, (wire_number(number)).encode_to_vec());
        assert_eq!((fixed.is_empty(), fixed.len()), (number == 0, if number == 0 { 0 } else { 9 }));
        let mut reader = Reader::new(&fixed);
        assert_eq!((reader.fixed64_field(fixed64(2)), reader.is_done()), (Some(number), true));
        let mut reader = Reader::new(&long);
        assert_eq!((reader.uint64_field(varint(3)), reader.is_done()), (Some(number), true));
        let small = u32::try_from(number).ok();
        let found = Reader::new(&long).uint32_field(varint(3));
        assert_eq!(found, small, "{number}");
        if let Some(small) = small {
            let mut short = Vec::new();
            put_uint32(&mut short, varint(3), small);
            assert_eq!(short, long);
        }
    }
}

/// A message whose field 3 is a uint64.
fn wire_number(value: u64) -> Number {
    Number { value }
}

#[derive(Clone, PartialEq, ::prost::Message)]
struct Number {
    #[prost(uint64, tag = "3")]
    value: u64,
}

#[test]
fn what_another_encoder_would_write_is_not_read() {
    let varints: [(&[u8], Option<u64>); 9] = [
        (&[0x00], Some(0)),
        (&[0x80, 0x00], None),
        (&[0x80, 0x01], Some(128)),
        (&[0xff, 0x80, 0x00], None),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(u64::MAX)),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], None),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], None),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], None),
        (&[0x80], None),
    ];
    for (bytes, expected) in varints {
        assert_eq!(Reader::new(bytes).varint(), expected, "{bytes:x?}");
    }
    // A default that is there, a flag above 1, bytes that are there and none, too few or too many of an array.
    assert_eq!(Reader::new(&[0x18, 0]).uint64_field(varint(3)), None);
    assert_eq!(Reader::new(&[0x18, 0]).uint32_field(varint(3)), None);
    assert_eq!(Reader::new(&[0x11, 0, 0, 0, 0, 0, 0, 0, 0]).fixed64_field(fixed64(2)), None);
    assert_eq!(Reader::new(&[0x11, 1, 0, 0, 0, 0, 0, 0]).fixed64_field(fixed64(2)), None);
    let flags = [&[0x18, 1][..], &[0x18, 2], &[0x18, 0], &[]].map(|bytes| Reader::new(bytes).flag(varint(3)));
    assert_eq!(flags, [Some(true), None, None, Some(false)]);
    let slices = [&[0x12, 0][..], &[0x12, 1, 7], &[0x12, 2, 7], &[]].map(|b| Reader::new(b).slice(bytes(2)));
    assert_eq!(slices, [None, Some(&[7][..]), None, Some(&[][..])]);
    let arrays = [&[0x12, 1, 7][..], &[0x12, 2, 7, 8], &[0x12, 3, 7, 8, 9], &[]];
    assert_eq!(arrays.map(|b| Reader::new(b).array::<2>(bytes(2))), [None, Some([7, 8]), None, None]);
    // Out of order: left over.
    let mut reader = Reader::new(&[0x20, 1, 0x18, 1]);
    assert_eq!(
        (reader.uint32_field(varint(3)), reader.uint32_field(varint(4)), reader.is_done()),
        (Some(0), Some(1), false)
    );
    // A part ends where it ends.
    let all = [0x12, 1, 7, 0x18, 1];
    let mut part = Reader::within(&all, 0..3);
    assert_eq!((part.slice(bytes(2)), part.is_done(), part.take_tag(varint(3))), (Some(&[7][..]), true, false));
    assert_eq!(Reader::within(&all, 0..2).slice(bytes(2)), None);
}
