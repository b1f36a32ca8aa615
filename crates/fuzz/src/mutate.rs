//! Mutations of seeds that are the same in every run, for the plain tests.

/// The `number`th mutation of a seed.
pub fn mutation(seed: &[u8], number: u32) -> Vec<u8> {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ u64::from(number) << 32 ^ seed.len() as u64);
    let mut bytes = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        change(&mut bytes, &mut rng);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xff, 0x20, 10];
    let at = rng.below(bytes.len() + 1);
    let edge = EDGES[rng.below(EDGES.len())];
    match rng.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = edge,
        2 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(1),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        4 => bytes.insert(at, edge),
        5 => bytes.truncate(at),
        6 => {
            let end = (at + 1 + rng.below(16)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        7 => {
            let end = (at + 1 + rng.below(8)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let end = (at + 4).min(bytes.len());
            bytes[at..end].fill(rng.next() as u8);
        }
    }
}

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 24
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
