//! Which of PBTX's status codes an error is. `docs/pbtx-http.md` has the same table.

use florin_core::Code;
use florin_core::pbtxrpc::request_response::StatusCode;

/// The status of an error. Whatever is no fault of the request is `INFRASTRUCTURE_ERROR`.
pub fn status_of(code: Code) -> StatusCode {
    use StatusCode as S;
    match code {
        Code::Decode | Code::Limit | Code::EmptyBody | Code::NonCanonical | Code::BadContent | Code::Precheck => {
            S::InvalidContent
        }
        Code::UnknownNetwork => S::InvalidNetworkId,
        Code::Int63 | Code::UnknownActor | Code::UnknownCosignor | Code::ActorFrozen => S::InvalidActor,
        Code::ActorExists => S::DuplicateActor,
        Code::DuplicateCosignor
        | Code::AuthorityCount
        | Code::KeyType
        | Code::InsufficientWeight
        | Code::BadPermission => S::InvalidAuthority,
        Code::SigFormat | Code::SigNotCanonical | Code::KeyMismatch | Code::DuplicateSig => S::InvalidSignature,
        Code::SeqExhausted | Code::BadSeq | Code::BadPrevHash | Code::PendingConflict => S::InvalidSeq,
        _ => S::InfrastructureError,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// The table in the document names every code that is not `INFRASTRUCTURE_ERROR`, with its status.
    #[test]
    fn the_document_has_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pbtx-http.md");
        let text = std::fs::read_to_string(path).unwrap();
        let mut documented = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [number, status, ..] = cells[..] else { continue };
            let Ok(number) = number.parse::<i32>() else { continue };
            assert_eq!(StatusCode::try_from(number).unwrap().as_str_name(), status.trim_matches('`'));
            for name in cells.last().unwrap().split('`').skip(1).step_by(2) {
                documented.insert(name.to_owned(), number);
            }
        }
        for code in Code::ALL {
            let expected = match status_of(*code) {
                StatusCode::InfrastructureError => None,
                status => Some(status as i32),
            };
            assert_eq!(documented.remove(code.name()), expected, "{} in docs/pbtx-http.md", code.name());
        }
        assert!(documented.is_empty(), "{documented:?} in docs/pbtx-http.md");
    }
}
