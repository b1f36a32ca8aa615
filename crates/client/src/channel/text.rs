//! Vouchers, permits, invoices and payments over virtual channels as text, for passing by hand: as notes are ([`crate::cash::text`]).

use bytes::Bytes;
use florin_core::channel::hub::read_invoice;
use florin_core::channel::voucher::Voucher;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result, wire};
use prost::Message;

use crate::cash::text::{Kind, decode, encode};

/// A voucher as text, with its secret if it is to be given away.
pub fn encode_voucher(voucher: &wire::SignedVoucher, secret: &[u8], committee: &Committee) -> String {
    let secret = Bytes::copy_from_slice(secret);
    let given = wire::Redemption { voucher: Some(voucher.clone()), secret, watch: None };
    encode(Kind::Voucher, &committee.network.currency, &given.encode_to_vec())
}

/// The voucher of a text, well formed, and its secret. Errors: `DECODE`, `NON_CANONICAL`, those of [`Voucher::decode`].
pub fn decode_voucher(text: &str, committee: &Committee) -> Result<(wire::SignedVoucher, Bytes)> {
    let bytes = decode(Kind::Voucher, &committee.network.currency, text)?;
    let given = wire::Redemption::decode(&bytes[..])
        .map_err(|e| Error::new(Code::Decode, format!("the voucher does not decode: {e}")))?;
    if given.encode_to_vec() != bytes || given.watch.is_some() {
        return Err(Error::new(Code::NonCanonical, "the voucher is not in its one encoding"));
    }
    let voucher = given.voucher.ok_or_else(|| Error::new(Code::Decode, "a voucher without terms"))?;
    Voucher::decode(&voucher)?;
    Ok((voucher, given.secret))
}

/// A permit to withdraw as text.
pub fn encode_permit(permit: &wire::SignedPermit, committee: &Committee) -> String {
    encode(Kind::Permit, &committee.network.currency, &permit.encode_to_vec())
}

/// The permit of a text, and its bytes as they were signed. Errors: `DECODE`, `NON_CANONICAL`.
pub fn decode_permit(text: &str, committee: &Committee) -> Result<wire::SignedPermit> {
    let bytes = decode(Kind::Permit, &committee.network.currency, text)?;
    let permit = wire::SignedPermit::decode(&bytes[..])
        .map_err(|e| Error::new(Code::Decode, format!("the permit does not decode: {e}")))?;
    if permit.encode_to_vec() != bytes {
        return Err(Error::new(Code::NonCanonical, "the permit is not in its one encoding"));
    }
    florin_core::channel::voucher::withdraw_permit(&permit)?;
    Ok(permit)
}

/// A payment over a virtual channel as text.
pub fn encode_payment(payment: &wire::SignedPermit, committee: &Committee) -> String {
    encode(Kind::Virtual, &committee.network.currency, &payment.encode_to_vec())
}

/// The payment of a text. Errors: `DECODE`, `NON_CANONICAL`.
pub fn decode_payment(text: &str, committee: &Committee) -> Result<wire::SignedPermit> {
    let bytes = decode(Kind::Virtual, &committee.network.currency, text)?;
    let payment = wire::SignedPermit::decode(&bytes[..])
        .map_err(|e| Error::new(Code::Decode, format!("the payment does not decode: {e}")))?;
    florin_core::channel::voucher::virtual_amount(&payment)?;
    Ok(payment)
}

/// An invoice as text, with where its payee's hub is, if that is to be said.
pub fn encode_invoice(invoice: &Bytes, hub: &str, committee: &Committee) -> String {
    let given = wire::HubInvoiceText { invoice: invoice.clone(), hub: hub.to_owned() };
    encode(Kind::Invoice, &committee.network.currency, &given.encode_to_vec())
}

/// The invoice of a text: its bytes, what it says, and where its payee's hub is, or empty. Errors: `DECODE`, `NON_CANONICAL`,
/// `UNKNOWN_NETWORK`, those of [`read_invoice`].
pub fn decode_invoice(text: &str, committee: &Committee) -> Result<(Bytes, wire::HubInvoice, String)> {
    let bytes = decode(Kind::Invoice, &committee.network.currency, text)?;
    let given = wire::HubInvoiceText::decode(&bytes[..])
        .map_err(|e| Error::new(Code::Decode, format!("the invoice does not decode: {e}")))?;
    if given.encode_to_vec() != bytes {
        return Err(Error::new(Code::NonCanonical, "the invoice is not in its one encoding"));
    }
    let invoice = read_invoice(&given.invoice)?;
    if invoice.network_id != committee.network.id {
        let (expected, found) = (committee.network.id, invoice.network_id);
        return Err(Error::expected(Code::UnknownNetwork, "network of the invoice", expected, found));
    }
    Ok((given.invoice, invoice, given.hub))
}

#[cfg(test)]
mod tests {
    use florin_core::testing::TestCommittee;

    use super::*;

    #[test]
    fn an_invoice_says_what_is_to_be_paid_and_where() {
        let (committee, _) = TestCommittee::new(4, 1).build();
        let id = Bytes::from_static(&[1; 32]);
        let invoice = wire::HubInvoice {
            network_id: committee.network.id,
            payee: id.clone(),
            channel: id.clone(),
            amount: 5,
            secret_hash: id,
            expires_ms: 7,
            memo: "tea".into(),
        };
        let code = |invoice: &wire::HubInvoice| {
            let text = encode_invoice(&invoice.encode_to_vec().into(), "hub:7500", &committee);
            decode_invoice(&text.to_uppercase(), &committee).map_err(|e| e.code)
        };
        assert_eq!(code(&invoice).unwrap(), (invoice.encode_to_vec().into(), invoice.clone(), "hub:7500".to_owned()));
        let other = wire::HubInvoice { network_id: committee.network.id + 1, ..invoice.clone() };
        assert_eq!(code(&other), Err(Code::UnknownNetwork));
        assert_eq!(code(&wire::HubInvoice { amount: 0, ..invoice.clone() }), Err(Code::BadAmount));
        assert_eq!(code(&wire::HubInvoice { memo: "a".repeat(10_000), ..invoice }), Err(Code::Limit));
        assert_eq!(decode_invoice("flrvoucher1qqqq", &committee).unwrap_err().code, Code::Decode);
    }
}
