use super::*;

#[test]
fn an_authority_is_to_blame_for_its_storage_and_for_nothing_else() {
    let own: Vec<Code> = (0..=u32::from(u16::MAX))
        .filter_map(Code::from_number)
        .filter(|code| Error::new(*code, "").is_own_fault())
        .collect();
    let mut expected =
        [Code::StorageFull, Code::StorageFailed, Code::StorageVersion, Code::StorageCorrupt, Code::StorageBusy];
    expected.sort_by_key(|code| *code as u32);
    assert_eq!(own, expected);
}

#[test]
fn an_error_says_what_happened_and_how_it_is_called() {
    let error = Error::expected(Code::BadSeq, "seqnum", 3, 4);
    let text = format!("BAD_SEQ ({}): seqnum: expected 3, found 4", Code::BadSeq as u32);
    assert_eq!((error.to_string(), format!("{error:?}")), (text.clone(), text));
}
