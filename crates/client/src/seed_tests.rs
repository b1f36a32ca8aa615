//! The official vectors of SLIP-0010 and BIP-39, and the path of Florin's own accounts.

use super::*;

const ABOUT: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
const SEED_1: &str = "000102030405060708090a0b0c0d0e0f";
const SEED_2: &str = "fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a29f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542";

/// Walks one chain of the standard. `steps` are (index, private key), an apostrophe for hardened; the
/// chain code and public key are the last step's. A wrong chain code on the way shows in the next key.
fn chain(curve: Curve, seed: &str, steps: &[(&str, &str)], chain_code: &str, public: &str) {
    let mut node = Node::master(curve, &hex::decode(seed).unwrap());
    for (index, private) in steps {
        node = match index.strip_suffix('\'') {
            Some(index) => node.hardened(index.parse().unwrap()),
            None if *index == "m" => node,
            None => node.child(&public_key(&node), index.parse().unwrap()),
        };
        assert_eq!(hex::encode(node.key), *private, "{curve:?} {index}");
    }
    assert_eq!(hex::encode(node.chain_code), chain_code);
    assert_eq!(hex::encode(public_key(&node)), public);
}

fn public_key(node: &Node) -> [u8; 33] {
    let public = SecretKey::from_seed(node.curve, node.key).unwrap().public();
    public.as_bytes()[1..].try_into().unwrap()
}

#[test]
fn slip_0010_secp256k1() {
    let steps = [
        ("m", "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35"),
        ("0'", "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"),
        ("1", "3c6cb8d0f6a264c91ea8b5030fadaa8e538b020f0a387421a12de9319dc93368"),
        ("2'", "cbce0d719ecf7431d88e6a89fa1483e02e35092af60c042b1df2ff59fa424dca"),
        ("2", "0f479245fb19a38a1954c5c7c0ebab2f9bdfd96a17563ef28a6a4b1a2a764ef4"),
        ("1000000000", "471b76e389e528d6de6d816857e012c5455051cad6660850e58372a6c3e6e7c8"),
    ];
    let chain_code = "c783e67b921d2beb8f6b389cc646d7263b4145701dadd2161548a8b078e65e9e";
    let public = "022a471424da5e657499d1ff51cb43c47481a03b1e77f951fe64cec9f5a48f7011";
    chain(Curve::K1, SEED_1, &steps, chain_code, public);
    let steps = [
        ("m", "4b03d6fc340455b363f51020ad3ecca4f0850280cf436c70c727923f6db46c3e"),
        ("0", "abe74a98f6c7eabee0428f53798f0ab8aa1bd37873999041703c742f15ac7e1e"),
        ("2147483647'", "877c779ad9687164e9c2f4f0f4ff0340814392330693ce95a58fe18fd52e6e93"),
        ("1", "704addf544a06e5ee4bea37098463c23613da32020d604506da8c0518e1da4b7"),
        ("2147483646'", "f1c7c871a54a804afe328b4c83a1c33b8e5ff48f5087273f04efa83b247d6a2d"),
        ("2", "bb7d39bdb83ecf58f2fd82b6d918341cbef428661ef01ab97c28a4842125ac23"),
    ];
    let chain_code = "9452b549be8cea3ecb7a84bec10dcfd94afe4d129ebfd3b3cb58eedf394ed271";
    let public = "024d902e1a2fc7a8755ab5b694c575fce742c48d9ff192e63df5193e4c7afe1f9c";
    chain(Curve::K1, SEED_2, &steps, chain_code, public);
}

#[test]
fn slip_0010_nist256p1() {
    let steps = [
        ("m", "612091aaa12e22dd2abef664f8a01a82cae99ad7441b7ef8110424915c268bc2"),
        ("0'", "6939694369114c67917a182c59ddb8cafc3004e63ca5d3b84403ba8613debc0c"),
        ("1", "284e9d38d07d21e4e281b645089a94f4cf5a5a81369acf151a1c3a57f18b2129"),
        ("2'", "694596e8a54f252c960eb771a3c41e7e32496d03b954aeb90f61635b8e092aa7"),
        ("2", "5996c37fd3dd2679039b23ed6f70b506c6b56b3cb5e424681fb0fa64caf82aaa"),
        ("1000000000", "21c4f269ef0a5fd1badf47eeacebeeaa3de22eb8e5b0adcd0f27dd99d34d0119"),
    ];
    let chain_code = "b9b7b82d326bb9cb5b5b121066feea4eb93d5241103c9e7a18aad40f1dde8059";
    let public = "02216cd26d31147f72427a453c443ed2cde8a1e53c9cc44e5ddf739725413fe3f4";
    chain(Curve::R1, SEED_1, &steps, chain_code, public);
    let steps = [
        ("m", "eaa31c2e46ca2962227cf21d73a7ef0ce8b31c756897521eb6c7b39796633357"),
        ("0", "d7d065f63a62624888500cdb4f88b6d59c2927fee9e6d0cdff9cad555884df6e"),
        ("2147483647'", "96d2ec9316746a75e7793684ed01e3d51194d81a42a3276858a5b7376d4b94b9"),
        ("1", "974f9096ea6873a915910e82b29d7c338542ccde39d2064d1cc228f371542bbc"),
        ("2147483646'", "da29649bbfaff095cd43819eda9a7be74236539a29094cd8336b07ed8d4eff63"),
        ("2", "bb0a77ba01cc31d77205d51d08bd313b979a71ef4de9b062f8958297e746bd67"),
    ];
    let chain_code = "3bfb29ee8ac4484f09db09c2079b520ea5616df7820f071a20320366fbe226a7";
    let public = "020ee02e18967237cf62672983b253ee62fa4dd431f8243bfeccdf39dbe181387f";
    chain(Curve::R1, SEED_2, &steps, chain_code, public);
}

#[test]
fn slip_0010_nist256p1_hashes_again_past_the_order() {
    let steps = [
        ("m", "612091aaa12e22dd2abef664f8a01a82cae99ad7441b7ef8110424915c268bc2"),
        ("28578'", "06f0db126f023755d0b8d86d4591718a5210dd8d024e3e14b6159d63f53aa669"),
        ("33941", "092154eed4af83e078ff9b84322015aefe5769e31270f62c3f66c33888335f3a"),
    ];
    let chain_code = "9e87fe95031f14736774cd82f25fd885065cb7c358c1edf813c72af535e83071";
    let public = "0235bfee614c0d5b2cae260000bb1d0d84b270099ad790022c1ae0b2e782efe120";
    chain(Curve::R1, SEED_1, &steps, chain_code, public);
    let seed = "a7305bc8df8d0951f0cb224c0e95d7707cbdf2c6ce7e8d481fec69c7ff5e9446";
    let steps = [("m", "3b8c18469a4634517d6d0b65448f8e6c62091b45540a1743c5846be55d47d88f")];
    let chain_code = "7762f9729fed06121fd13f326884c82f59aa95c57ac492ce8c9654e60efd130c";
    let public = "0383619fadcde31063d8c5cb00dbfe1713f3e6fa169d8541a798752a1c1ca0cb20";
    chain(Curve::R1, seed, &steps, chain_code, public);
}

#[test]
fn slip_0010_ed25519() {
    let steps = [
        ("m", "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7"),
        ("0'", "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3"),
        ("1'", "b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2"),
        ("2'", "92a5b23c0b8a99e37d07df3fb9966917f5d06e02ddbd909c7e184371463e9fc9"),
        ("2'", "30d1dc7e5fc04c31219ab25a27ae00b50f6fd66622f6e9c913253d6511d1e662"),
        ("1000000000'", "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793"),
    ];
    let chain_code = "68789923a0cac2cd5a29172a475fe9e0fb14cd6adb5ad98a3fa70333e7afa230";
    let public = "003c24da049451555d51a7014a37337aa4e12d41e485abccfa46b47dfb2af54b7a";
    chain(Curve::Ed25519, SEED_1, &steps, chain_code, public);
    let steps = [
        ("m", "171cb88b1b3c1db25add599712e36245d75bc65a1a5c9e18d76f9f2b1eab4012"),
        ("0'", "1559eb2bbec5790b0c65d8693e4d0875b1747f4970ae8b650486ed7470845635"),
        ("2147483647'", "ea4f5bfe8694d8bb74b7b59404632fd5968b774ed545e810de9c32a4fb4192f4"),
        ("1'", "3757c7577170179c7868353ada796c839135b3d30554bbb74a4b1e4a5a58505c"),
        ("2147483646'", "5837736c89570de861ebc173b1086da4f505d4adb387c6a1b1342d5e4ac9ec72"),
        ("2'", "551d333177df541ad876a60ea71f00447931c0a9da16f227c11ea080d7391b8d"),
    ];
    let chain_code = "5d70af781f3a37b829f0d060924d5e960bdc02e85423494afc0b1a41bbe196d4";
    let public = "0047150c75db263559a70d5778bf36abbab30fb061ad69f69ece61a72b0cfa4fc0";
    chain(Curve::Ed25519, SEED_2, &steps, chain_code, public);
}

#[test]
fn sums_wrap_at_the_order_and_never_give_zero() {
    let one = |last: u8| {
        let mut bytes = [0; 32];
        bytes[31] = last;
        bytes
    };
    let orders = [
        (Curve::K1, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
        (Curve::R1, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
    ];
    for (curve, order) in orders {
        let order: [u8; 32] = hex::decode(order).unwrap().try_into().unwrap();
        let mut below = order;
        below[31] -= 1;
        assert_eq!(add(curve, &below, &one(1)), None);
        assert_eq!(add(curve, &below, &one(3)), Some(one(2)));
        assert_eq!(add(curve, &one(0), &one(3)), Some(one(3)));
        assert_eq!(add(curve, &one(3), &one(0)), Some(one(3)));
        assert_eq!(add(curve, &one(0), &one(0)), None);
        assert_eq!(add(curve, &order, &one(3)), None);
        assert_eq!(add(curve, &[0xff; 32], &one(3)), None);
    }
}

#[test]
fn words_give_the_pinned_accounts() {
    let seed = Seed::from_words(ABOUT).unwrap();
    let bip39 = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc19a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4";
    assert_eq!(hex::encode(&seed.bytes[..]), bip39);
    // Made by another implementation. Changing these loses every wallet.
    for (curve, index, key) in [
        (Curve::K1, 0, "3124ae33dddf668cc5d1704412ab65abc54234ddcb4980e52ad16cff6f2b85d8"),
        (Curve::K1, 1, "fb420c21ed5fb578b65bdbf7080e69caf75d82bce26fca6aa488e0ff5bcc9caa"),
        (Curve::R1, 0, "dbba63f751b9ce1a5a90ba64ca7e6cbb505d540dd4085a88f9ca87168f2b273b"),
        (Curve::R1, 1, "ceaa1d6d089a2901e425ac99e5398eebea1c23c1f6e8479c29ce517da290af3a"),
        (Curve::Ed25519, 0, "8feda303a0848058e767b3b3b84be8eb9b6adfbb2391c63194e21684565b0fde"),
        (Curve::Ed25519, 1, "352820db3c5cd98a8bbb582f9296652e6e4dd8e5d7adcb620d5a218d819c2f81"),
    ] {
        assert_eq!(hex::encode(*seed.derive(curve, index).unwrap()), key);
        let expected = SecretKey::from_seed(curve, hex::decode(key).unwrap().try_into().unwrap()).unwrap();
        assert_eq!(seed.key(curve, index).unwrap().public(), expected.public());
    }
    seed.key(Curve::Ed25519, INDEX_MAX).unwrap();
    assert_eq!(seed.key(Curve::Ed25519, INDEX_MAX + 1).unwrap_err().code, Code::Limit);
}

#[test]
fn words_and_entropy_give_each_other_back() {
    for entropy in [&[0x5a; ENTROPY_BYTES][..], &[0xc3; ENTROPY_BYTES_LONG]] {
        let seed = Seed::from_entropy(entropy).unwrap();
        let again = Seed::from_words(&seed.words()).unwrap();
        assert_eq!(again.entropy()[..], *entropy);
        assert_eq!(again.bytes, seed.bytes);
    }
    let loud = format!("  {}\n", ABOUT.to_uppercase().replace(' ', " \t "));
    assert_eq!(*Seed::from_words(&loud).unwrap().words(), ABOUT);
    for length in [0, 15, 20, 33] {
        assert_eq!(Seed::from_entropy(&vec![1; length]).unwrap_err().code, Code::BadWords);
    }
}

#[test]
fn wrong_words_are_told_apart_and_not_repeated() {
    let refusal = |text: &str| {
        let error = Seed::from_words(text).unwrap_err();
        assert_eq!(error.code, Code::BadWords);
        error.message
    };
    assert_eq!(refusal(""), "number of words: expected 12 or 24, found 0");
    assert_eq!(refusal("abandon about"), "number of words: expected 12 or 24, found 2");
    assert_eq!(refusal(&"abandon ".repeat(15)), "number of words: expected 12 or 24, found 15");
    let typo = refusal(&ABOUT.replacen("abandon", "abandom", 1));
    assert_eq!(typo, "word 1 is not in the BIP-39 list of English words");
    assert!(refusal(&ABOUT.replace("about", "abôut")).starts_with("word 12 "));
    assert!(refusal(&ABOUT.replace("about", "zoo")).contains("checksum"));
    assert!(!format!("{:?}", Seed::from_words(ABOUT).unwrap()).contains("abandon"));
}

#[test]
fn the_secret_of_cash_is_of_its_own() {
    let seed = Seed::from_words(ABOUT).unwrap();
    let secret = seed.cash_secret();
    // Notes that people have follow from it.
    assert_eq!(hex::encode(&secret[..]), "76d1cb4197e0258dd303939c248e66c36b7d6f5c7229de0015bebc9eef4f5f82");
    for curve in [Curve::Ed25519, Curve::K1, Curve::R1] {
        assert!((0..4).all(|i| *seed.derive(curve, i).unwrap() != *secret));
    }
}
