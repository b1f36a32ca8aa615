//! Merkle trees over the orders of a batch, as RFC 6962 section 2.1 defines them: sha256, a prefix
//! byte of 0 for leaves and 1 for nodes, split at the largest power of two below the count. The
//! prefixes keep a node from being shown as a leaf.

use sha2::{Digest, Sha256};

/// A sha256 value.
pub type Hash = [u8; 32];

/// Hash of one order id as a leaf.
pub fn leaf(order_id: &Hash) -> Hash {
    let mut h = Sha256::new();
    h.update([0]);
    h.update(order_id);
    h.finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut h = Sha256::new();
    h.update([1]);
    h.update(left);
    h.update(right);
    h.finalize().into()
}

/// Root over the order ids, in batch order.
///
/// # Panics
/// If there is none: an empty batch is refused before.
pub fn root(order_ids: &[Hash]) -> Hash {
    assert!(!order_ids.is_empty(), "an empty batch has no root");
    let mut level: Vec<Hash> = order_ids.iter().map(leaf).collect();
    // Pairing from the left and carrying an odd last node up unchanged gives RFC 6962's tree.
    while level.len() > 1 {
        let mut write = 0;
        for read in (0..level.len()).step_by(2) {
            level[write] = match level.get(read + 1) {
                Some(right) => node(&level[read], right),
                None => level[read],
            };
            write += 1;
        }
        level.truncate(write);
    }
    level[0]
}

/// All nodes of a tree, for whoever needs many paths.
pub struct Tree {
    /// Leaves first, the root last.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over the order ids, in batch order.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(order_ids: &[Hash]) -> Tree {
        assert!(!order_ids.is_empty(), "an empty batch has no tree");
        let mut levels = vec![order_ids.iter().map(leaf).collect::<Vec<Hash>>()];
        while levels[levels.len() - 1].len() > 1 {
            let pairs = levels[levels.len() - 1].chunks(2);
            let next = pairs.map(|pair| if pair.len() == 2 { node(&pair[0], &pair[1]) } else { pair[0] }).collect();
            levels.push(next);
        }
        Tree { levels }
    }

    /// The root.
    pub fn root(&self) -> Hash {
        self.levels[self.levels.len() - 1][0]
    }

    /// Siblings from the leaf at `index` up to the root.
    pub fn path(&self, index: usize) -> Vec<Hash> {
        assert!(index < self.levels[0].len(), "index within the batch");
        let siblings = self.levels.iter().enumerate().filter_map(|(height, level)| level.get((index >> height) ^ 1));
        siblings.copied().collect()
    }
}

impl Tree {
    /// What [`root_from_parts`] needs beside the orders at `indices` (ascending): the hashes of the largest subtrees
    /// without any of them, left to right.
    pub fn parts(&self, indices: &[usize]) -> Vec<Hash> {
        let mut out = Vec::new();
        self.part(self.levels.len() - 1, 0, indices, &mut out);
        out
    }

    fn part(&self, height: usize, at: usize, indices: &[usize], out: &mut Vec<Hash>) {
        if indices.is_empty() {
            return out.push(self.levels[height][at]);
        }
        if height > 0 {
            let middle = (2 * at + 1) << (height - 1);
            let (left, right) = indices.split_at(indices.partition_point(|i| *i < middle));
            self.part(height - 1, 2 * at, left, out);
            if 2 * at + 1 < self.levels[height - 1].len() {
                self.part(height - 1, 2 * at + 1, right, out);
            }
        }
    }
}

/// Root of a tree of `count` orders of which some are given, by (index, id), ascending, with [`Tree::parts`] for the
/// others. `None` if the parts are not exactly those.
pub fn root_from_parts(orders: &[(usize, Hash)], count: usize, parts: &[Hash]) -> Option<Hash> {
    let sorted = orders.windows(2).all(|w| w[0].0 < w[1].0) && orders.last().is_some_and(|(i, _)| *i < count);
    if !sorted {
        return None;
    }
    let mut parts = parts.iter();
    let root = join(0, count, orders, &mut parts)?;
    parts.next().is_none().then_some(root)
}

fn join(from: usize, width: usize, orders: &[(usize, Hash)], parts: &mut std::slice::Iter<'_, Hash>) -> Option<Hash> {
    match orders {
        [] => parts.next().copied(),
        [(_, id)] if width == 1 => Some(leaf(id)),
        _ => {
            let half = width.next_power_of_two() / 2;
            let (left, right) = orders.split_at(orders.partition_point(|(i, _)| *i < from + half));
            let left = join(from, half, left, parts)?;
            Some(node(&left, &join(from + half, width - half, right, parts)?))
        }
    }
}

/// Root that `order_id` at `index` of `count` leads to by `path`; `None` if the path has the wrong length.
pub fn root_from_path(order_id: &Hash, index: usize, count: usize, path: &[Hash]) -> Option<Hash> {
    if index >= count {
        return None;
    }
    let (mut at, mut width, mut hash) = (index, count, leaf(order_id));
    let mut siblings = path.iter();
    while width > 1 {
        if at ^ 1 < width {
            let sibling = siblings.next()?;
            hash = if at & 1 == 0 { node(&hash, sibling) } else { node(sibling, &hash) };
        }
        at /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> Vec<Hash> {
        (0..n).map(|i| Sha256::digest(i.to_le_bytes()).into()).collect()
    }

    /// RFC 6962's recursive definition.
    fn naive(ids: &[Hash]) -> Hash {
        if ids.len() == 1 {
            return leaf(&ids[0]);
        }
        let split = ids.len().next_power_of_two() / 2;
        node(&naive(&ids[..split]), &naive(&ids[split..]))
    }

    #[test]
    fn root_is_that_of_rfc_6962() {
        for n in 1..70 {
            assert_eq!(root(&ids(n)), naive(&ids(n)), "{n} orders");
            assert_eq!(Tree::new(&ids(n)).root(), naive(&ids(n)), "{n} orders");
        }
    }

    #[test]
    fn every_path_leads_to_the_root_and_no_other_place_does() {
        for n in 1..40 {
            let ids = ids(n);
            let root = root(&ids);
            for i in 0..n {
                let path = Tree::new(&ids).path(i);
                assert_eq!(root_from_path(&ids[i], i, n, &path), Some(root));
                for j in 0..n {
                    if j != i {
                        assert_ne!(root_from_path(&ids[i], j, n, &path), Some(root), "{i} shown as {j} of {n}");
                    }
                }
                let mut long = path.clone();
                long.push([0; 32]);
                assert_eq!(root_from_path(&ids[i], i, n, &long), None);
                if !path.is_empty() {
                    assert_eq!(root_from_path(&ids[i], i, n, &path[1..]), None);
                }
            }
            assert_eq!(root_from_path(&ids[0], n, n, &[]), None);
        }
    }

    #[test]
    fn any_part_of_the_orders_leads_to_the_root_and_nothing_else_does() {
        for n in 1..12 {
            let ids = ids(n);
            let (tree, root) = (Tree::new(&ids), root(&ids));
            assert_eq!(tree.parts(&[]), [root], "of none given all is one part");
            for set in 1..1_usize << n {
                let indices: Vec<usize> = (0..n).filter(|i| set >> i & 1 == 1).collect();
                let orders: Vec<(usize, Hash)> = indices.iter().map(|i| (*i, ids[*i])).collect();
                let parts = tree.parts(&indices);
                assert_eq!(root_from_parts(&orders, n, &parts), Some(root), "{indices:?} of {n}");
                let mut wrong = orders.clone();
                wrong[0].1[0] ^= 1;
                assert_ne!(root_from_parts(&wrong, n, &parts), Some(root));
                let mut long = parts.clone();
                long.push([0; 32]);
                assert_eq!(root_from_parts(&orders, n, &long), None);
                if !parts.is_empty() {
                    assert_eq!(root_from_parts(&orders, n, &parts[1..]), None);
                }
                if orders.len() > 1 {
                    let twisted: Vec<_> = orders.iter().rev().copied().collect();
                    assert_eq!(root_from_parts(&twisted, n, &parts), None);
                }
            }
            assert_eq!(root_from_parts(&[], n, &[root]), None);
            assert_eq!(root_from_parts(&[(n, ids[0])], n, &[]), None);
            assert_eq!(root_from_parts(&[(0, ids[0]), (0, ids[0])], n, &vec![[0; 32]; 20]), None, "one place twice");
        }
    }

    #[test]
    fn a_node_is_no_leaf() {
        let ids = ids(2);
        let joined = node(&leaf(&ids[0]), &leaf(&ids[1]));
        assert_ne!(leaf(&joined), root(&ids));
        assert_eq!(joined, root(&ids));
    }
}
