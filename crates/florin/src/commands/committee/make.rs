//! Makes committees: used by `committee new`, `devnet up` and whoever needs one.

use std::path::{Path, PathBuf};

use florin_client::keystore::{Keystore, Meta};
use florin_core::amount::parse_amount;
use florin_core::committee::{AuthorityInfo, Committee, Network};
use florin_core::keys::{Curve, PublicKey};
use florin_core::limits::{AMOUNT_MAX, COMMITTEE_MAX, COMMITTEE_MIN, ID_MAX, SHARDS_MAX};
use florin_core::permission::Permission;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result};
use florin_node::config::{AuthorityFile, make_data};
use florin_node::genesis;
use zeroize::Zeroizing;

use crate::commands::support::{PRIVATE, PUBLIC, host_port, io, make_folder, need_vacant, ports, random, write_new};

/// Name of the committee file.
pub const COMMITTEE: &str = "committee.toml";
/// Name of the issuer's wallet.
pub const ISSUER_WALLET: &str = "issuer.wallet";
/// Name of the copy of the genesis file.
pub const GENESIS: &str = "genesis.txt";
/// What the issuer may issue unless the caller says otherwise, in units.
const ISSUER_LIMIT: u64 = 1_000_000_000;

/// The money of a committee.
#[derive(clap::Args, Clone)]
pub struct MoneyArgs {
    /// Currency code, the prefix of addresses: 2 to 12 lower-case letters
    #[arg(long, default_value = "flr")]
    pub currency: String,
    /// Digits after the point that people see, 0 to 18
    #[arg(long, default_value_t = 2)]
    pub decimals: u8,
    /// Id of the payment network, 1 to 2^63 - 1 [default: random]
    #[arg(long)]
    pub network_id: Option<u64>,
    /// How much money there may be at most, as 1000000 or 1000000.50 [default: 1000000000, or what 63 bits hold]
    #[arg(long, value_name = "AMOUNT")]
    pub issuer_limit: Option<String>,
    /// Who has money from the start: a file with lines of `address amount`
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
}

impl MoneyArgs {
    /// The network without its genesis file. Errors: `BAD_AMOUNT`, `BAD_CONFIG`, `IO`.
    pub fn network(&self, issuer: &Permission) -> Result<Network> {
        let issuer_limit = match &self.issuer_limit {
            Some(text) => parse_amount(text, self.decimals)
                .map_err(|e| Error::new(e.code, format!("--issuer-limit: {}", e.message)))?,
            None => 10u64
                .checked_pow(self.decimals.into())
                .and_then(|unit| unit.checked_mul(ISSUER_LIMIT))
                .map_or(AMOUNT_MAX, |limit| limit.min(AMOUNT_MAX)),
        };
        Ok(Network {
            id: self.id()?,
            currency: self.currency.clone(),
            decimals: self.decimals,
            issuer: issuer.encode(),
            issuer_limit,
            genesis_hash: genesis::hash(None)?,
        })
    }

    /// The given id, or a random one.
    pub fn id(&self) -> Result<u64> {
        match self.network_id {
            Some(id) => Ok(id),
            None => Ok((u64::from_be_bytes(*random()?) & ID_MAX).max(1)),
        }
    }
}

/// A committee on one host.
pub struct Plan {
    /// Members.
    pub authorities: usize,
    /// Shards of each.
    pub shards: u32,
    /// Where all of them are.
    pub host: String,
    /// Port of the first shard of the first; 0 picks free ones.
    pub port: u16,
    /// Port of the first one's HTTP; none without it.
    pub http_port: Option<u16>,
    /// Folder for the files.
    pub dir: PathBuf,
    /// Its money.
    pub money: MoneyArgs,
}

/// Who issues the money.
pub enum Issuer {
    /// The owner of this permission.
    Given(Permission),
    /// A new wallet with this passphrase.
    New(Zeroizing<String>),
}

/// What was made.
pub struct Made {
    /// The committee.
    pub committee: Committee,
    /// Files, in the order they were written.
    pub files: Vec<PathBuf>,
    /// Whether the issuer's wallet is among them.
    pub issuer_wallet: bool,
}

/// All files that a committee of this size has in its folder.
pub fn targets(dir: &Path, authorities: usize, new_issuer: bool) -> Vec<PathBuf> {
    let mut names: Vec<String> = [COMMITTEE, GENESIS].map(str::to_owned).into();
    names.extend(new_issuer.then(|| ISSUER_WALLET.to_owned()));
    let numbers = 1..=authorities.min(COMMITTEE_MAX);
    names.extend(numbers.flat_map(|i| [format!("authority-{i}.toml"), format!("authority-{i}.key")]));
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// An issuer's permission from a public key or an encoded permission, both in hex. Errors: `BAD_KEY`, `BAD_PERMISSION`
/// and others of decoding.
pub fn permission(text: &str) -> Result<Permission> {
    if let Ok(key) = text.parse::<PublicKey>() {
        return Ok(Permission::single(key));
    }
    let bytes = hex::decode(text).map_err(|_| {
        Error::new(Code::BadKey, "issuer: expected the hex digits of a public key (68) or of an encoded permission")
    })?;
    Permission::decode_account(&bytes).map_err(|e| Error::new(e.code, format!("issuer: {}", e.message)))
}

/// A new wallet with one ed25519 account, and that account's permission. Errors: `ALREADY_EXISTS`, `BAD_CONFIG`, `IO`.
pub fn wallet(path: &Path, passphrase: &str, network_id: u64, money: &MoneyArgs) -> Result<Keystore> {
    let meta = Meta { network_id, currency: money.currency.clone(), decimals: money.decimals, curve: Curve::Ed25519 };
    Keystore::create(path, &random::<16>()?[..], passphrase, meta)
}

/// Writes everything. Nothing is written if any of the files exists or the numbers are no good; the committee file
/// comes last, so a folder that has it is whole. Errors: `ALREADY_EXISTS`, `BAD_CONFIG`, `USAGE`, those of the genesis
/// file, `IO`.
pub fn committee(plan: &Plan, issuer: Issuer) -> Result<Made> {
    let (n, shards) = (plan.authorities, plan.shards);
    if !(COMMITTEE_MIN..=COMMITTEE_MAX).contains(&n) {
        let expected = format!("{COMMITTEE_MIN} to {COMMITTEE_MAX}");
        return Err(Error::expected(Code::BadConfig, "authorities", expected, n));
    }
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Err(Error::expected(Code::BadConfig, "shards", format!("1 to {SHARDS_MAX}"), shards));
    }
    need_vacant(&targets(&plan.dir, n, matches!(issuer, Issuer::New(_))))?;
    let port = ports(&plan.host, plan.port, n as u32 * shards)?;
    let http = plan.http_port.map(|p| ports("127.0.0.1", p, n as u32)).transpose()?;
    let keys = (0..n).map(|_| random::<32>()).collect::<Result<Vec<_>>>()?;
    let authorities = keys.iter().enumerate().map(|(i, seed)| AuthorityInfo {
        name: format!("authority-{}", i + 1),
        key: AuthorityKey::from_seed(**seed).public(),
        addresses: (0..shards).map(|j| host_port(&plan.host, port + (i as u32 * shards + j) as u16)).collect(),
    });
    let authorities: Vec<_> = authorities.collect();
    // With a stand-in for an issuer that does not exist yet, to find mistakes before anything is written.
    let stand_in = match &issuer {
        Issuer::Given(permission) => permission.clone(),
        Issuer::New(_) => {
            Permission::single(florin_core::keys::SecretKey::from_seed(Curve::Ed25519, *keys[0])?.public())
        }
    };
    let mut network = plan.money.network(&stand_in)?;
    Committee::new(1, shards, network.clone(), authorities.clone())?;
    if let Some(genesis) = &plan.money.genesis {
        network.genesis_hash = check_genesis(genesis, &network)?;
    }

    make_folder(&plan.dir)?;
    let mut files = Vec::new();
    let issuer_wallet = matches!(issuer, Issuer::New(_));
    if let Issuer::New(passphrase) = issuer {
        let path = plan.dir.join(ISSUER_WALLET);
        let keystore = wallet(&path, &passphrase, network.id, &plan.money)?;
        network.issuer = Permission::single(keystore.public_keys()[0]).encode();
        files.push(path);
    }
    if let Some(genesis) = &plan.money.genesis {
        files.push(copy_genesis(genesis, &plan.dir, &network)?);
    }
    let committee = Committee::new(1, shards, network, authorities)?;
    for (i, seed) in keys.iter().enumerate() {
        let name = format!("authority-{}", i + 1);
        files.push(write_key(&plan.dir.join(format!("{name}.key")), seed)?);
        let file = AuthorityFile {
            committee: COMMITTEE.into(),
            key: format!("file:{name}.key"),
            data: format!("{name}-data").into(),
            genesis: plan.money.genesis.as_ref().map(|_| GENESIS.into()),
            http: http.map(|port| host_port("127.0.0.1", port + i as u16)),
            bind: None,
            accounts_memory_mib: None,
        };
        let path = plan.dir.join(format!("{name}.toml"));
        write_authority_file(&path, &file)?;
        files.push(path);
    }
    let path = plan.dir.join(COMMITTEE);
    write_new(&path, committee.to_toml().as_bytes(), PUBLIC)?;
    files.push(path);
    Ok(Made { committee, files, issuer_wallet })
}

/// Writes an authority's secret (mode 0600).
pub fn write_key(path: &Path, seed: &[u8; 32]) -> Result<PathBuf> {
    let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(seed))));
    write_new(path, text.as_bytes(), PRIVATE)?;
    Ok(path.to_owned())
}

/// Writes an authority file (mode 0600) and makes its data folder.
pub fn write_authority_file(path: &Path, file: &AuthorityFile) -> Result<()> {
    let text = toml::to_string(file).map_err(|e| Error::new(Code::BadConfig, format!("authority file: {e}")))?;
    write_new(path, format!("# A Florin authority: private to its operator.\n{text}").as_bytes(), PRIVATE)?;
    make_data(&path.parent().unwrap_or(Path::new(".")).join(&file.data))
}

/// Hash of a genesis file, every line of which is good for the network and within the issuer's limit.
/// Errors: `BAD_FILE` with the line, `ISSUER_LIMIT`.
pub fn check_genesis(path: &Path, network: &Network) -> Result<[u8; 32]> {
    let hash = genesis::hash(Some(path))?;
    let mut sum: u128 = 0;
    for line in genesis::lines(path, network)? {
        sum += u128::from(line?.1);
        if sum > u128::from(network.issuer_limit) {
            let what = format!("{}: sum of the amounts, minor units", path.display());
            return Err(Error::expected(Code::IssuerLimit, &what, format!("at most {}", network.issuer_limit), sum));
        }
    }
    if genesis::hash(Some(path))? != hash {
        return Err(Error::new(Code::BadFile, format!("{} changed while it was read", path.display())));
    }
    Ok(hash)
}

/// Copies a checked genesis file into a folder.
fn copy_genesis(from: &Path, dir: &Path, network: &Network) -> Result<PathBuf> {
    let to = dir.join(GENESIS);
    write_new(&to, b"", PUBLIC)?;
    std::fs::copy(from, &to).map_err(|e| io("copy", from, &e))?;
    let found = genesis::hash(Some(&to))?;
    if found != network.genesis_hash {
        return Err(Error::new(Code::BadFile, format!("{} changed while it was copied", from.display())));
    }
    Ok(to)
}
