//! Trees against maps: whatever batches come, a tree holds what a map would, in few and well filled pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::bundle::HEAD_BYTES;
use crate::bundle::index::Index;
use crate::bundle::pages::Pages;
use crate::bundle::testing::Memory;
use crate::bundle::tree::{ASSETS, DEPENDENTS, Tree};
use crate::storage::WriteAt;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

struct Bench {
    memory: Arc<Memory>,
    pages: Arc<Pages>,
    end: u64,
    root: Option<TreeRoot>,
    model: Entries,
    spec: &'static TreeSpec,
}

impl Bench {
    fn new(spec: &'static TreeSpec) -> Self {
        let memory = Memory::new();
        let pages = Arc::new(Pages::new(memory.clone(), false));
        Self { memory, pages, end: HEAD_BYTES, root: None, model: Entries::new(), spec }
    }

    fn view(&self) -> View {
        View::new(Arc::clone(&self.pages), self.end).unwrap()
    }

    fn apply(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let mut batch = Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => {
                    batch.put(key, value);
                    self.model.insert(key.clone(), value.clone());
                }
                None => {
                    batch.delete(key);
                    self.model.remove(key);
                }
            }
        }
        let mut sink = PageSink::new(self.end);
        let view = self.view();
        self.root = apply(Some(&view), self.spec, self.root.as_ref(), &mut batch, &mut sink).unwrap();
        self.memory.write_all_at(self.end, &sink.bytes).unwrap();
        self.end += sink.bytes.len() as u64;
        self.check();
    }

    /// The tree holds what the model holds, and its totals are true.
    fn check(&self) {
        let view = self.view();
        let tree = Tree { view: &view, spec: self.spec, root: self.root.as_ref(), index: None };
        let mut cursor = tree.cursor().unwrap();
        let mut all = Entries::new();
        while let Some((key, value)) = cursor.next().unwrap() {
            all.insert(key.as_slice().to_vec(), value.to_vec());
        }
        assert_eq!(all, self.model);
        let root = self.root.map_or((0, 0), |root| (root.entries, root.bytes));
        assert_eq!(root, (self.model.len() as u64, self.bytes(&view)));
    }

    fn bytes(&self, view: &View) -> u64 {
        fn below(view: &View, spec: &'static TreeSpec, at: &PageRef, level: u8) -> u64 {
            let page = view.page(at).unwrap();
            let mut position = Position::start(&page, spec).unwrap();
            assert_eq!(position.level, level);
            let mut sum = u64::from(at.len);
            let mut count = 0;
            while let Some(payload) = position.next(&page).unwrap() {
                count += 1;
                if level > 0 {
                    sum += below(view, spec, &child(payload).unwrap(), level - 1);
                }
            }
            assert!(page.len() <= PAGE_BYTES_TARGET || count == 1);
            sum
        }
        self.root.map_or(0, |root| below(view, self.spec, &root.page, root.level))
    }
}

/// Keys that share prefixes, of few enough values that changes meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    (0u32..4, 0u32..600).prop_map(|(high, low)| [(high << 20).to_be_bytes(), low.to_be_bytes()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_holds_what_a_map_would_after_any_batches(
        batches in prop::collection::vec(
            prop::collection::vec((key(), prop::option::weighted(0.6, 0usize..90)), 0..400),
            1..8,
        ),
    ) {
        let mut bench = Bench::new(&ASSETS);
        for batch in batches {
            let fill = |(key, len): (Vec<u8>, Option<usize>)| (key, len.map(|len| vec![len as u8; len]));
            bench.apply(&batch.into_iter().map(fill).collect::<Vec<_>>());
        }
        let view = bench.view();
        let index = Index::default();
        let tree = Tree { view: &view, spec: bench.spec, root: bench.root.as_ref(), index: Some(&index) };
        for low in (0u32..620).step_by(7) {
            let key = [(1u32 << 20).to_be_bytes(), low.to_be_bytes()].concat();
            let found = tree.get(&key, |value| Some(value.to_vec())).unwrap();
            prop_assert_eq!(found.as_ref(), bench.model.get(&key));
            let mut cursor = tree.seek(&key, false).unwrap();
            let next = cursor.next().unwrap().map(|(key, _)| key.as_slice().to_vec());
            prop_assert_eq!(next.as_ref(), bench.model.range(key.clone()..).next().map(|(key, _)| key));
            let floor = bench.model.range(..=key.clone()).next_back().map(|(key, _)| key);
            if let Some(floor) = floor {
                let mut cursor = tree.seek(&key, true).unwrap();
                let next = cursor.next().unwrap().map(|(key, _)| key.as_slice().to_vec());
                prop_assert_eq!(next.as_ref(), Some(floor));
            }
        }
    }
}

#[test]
fn keys_in_a_row_take_next_to_nothing_and_a_change_among_them_writes_little() {
    let mut bench = Bench::new(&DEPENDENTS);
    let key = |at: u64| at.to_be_bytes().to_vec();
    bench.apply(&(0..50_000).map(|at| (key(at), Some(vec![]))).collect::<Vec<_>>());
    assert!(bench.root.unwrap().bytes < 4096, "{:?}", bench.root);
    let before = bench.end;
    bench.apply(&[(key(20_000), None), (key(30_000), None), (key(60_000), Some(vec![]))]);
    assert!(bench.end - before < 5000, "{}", bench.end - before);
    bench.apply(&(0..50_000).step_by(2).map(|at| (key(at), None)).collect::<Vec<_>>());
    bench.apply(&(0..50_000).map(|at| (key(at), Some(vec![]))).collect::<Vec<_>>());
    assert!(bench.root.unwrap().bytes < 10_000, "{:?}", bench.root);
}

#[test]
fn one_change_in_a_large_tree_writes_one_path_and_none_writes_nothing() {
    let mut bench = Bench::new(&ASSETS);
    let key = |at: u64| (at * 7).to_be_bytes().to_vec();
    let value = || Some(vec![1; 40]);
    bench.apply(&(0..100_000).map(|at| (key(at), value())).collect::<Vec<_>>());
    let root = bench.root.unwrap();
    assert_eq!(root.level, 2);
    assert!(root.bytes < 100_000 * 46, "{root:?}");
    let before = bench.end;
    bench.apply(&[(key(5_000), value()), (b"nothing!".to_vec(), None)]);
    assert_eq!((bench.end, bench.root), (before, Some(root)));
    bench.apply(&[((5_001 * 7 + 1u64).to_be_bytes().to_vec(), value())]);
    let written = bench.end - before;
    assert!(written <= 5 * PAGE_BYTES_TARGET as u64, "{written}");
}

#[test]
fn a_tree_that_loses_everything_shrinks_to_nothing_and_its_pages_stay_filled() {
    let mut bench = Bench::new(&ASSETS);
    let key = |at: u64| at.to_be_bytes().to_vec();
    bench.apply(&(0..50_000).map(|at| (key(at), Some(vec![1; 20]))).collect::<Vec<_>>());
    // Every entry but each hundredth goes, bit by bit: what is left is a hundredth of the pages or little more.
    let full = bench.root.unwrap().bytes;
    for part in 0..10 {
        let goes = |at: &u64| !at.is_multiple_of(100) && at % 10 == part;
        bench.apply(&(0..50_000).filter(goes).map(|at| (key(at), None)).collect::<Vec<_>>());
    }
    let left = bench.root.unwrap().bytes;
    assert!(left < full / 50, "{left} of {full}");
    bench.apply(&(0..50_000).map(|at| (key(at), None)).collect::<Vec<_>>());
    assert_eq!(bench.root, None);
}
