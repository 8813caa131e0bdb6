//! The kernel's slab caches: how many objects each holds and what one of them really costs.
//!
//! `/sys/kernel/slab/CACHE/objects` counts what is alive, where `/proc/slabinfo` estimates.
//! Caches of equal size are merged: all but one of their names are then symbolic links to a
//! group such as `:A-0000128`, and the count is the group's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::measure::machine;

/// One cache, or one group of merged caches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cache {
    /// Every name it goes by.
    pub(crate) names: Vec<String>,
    pub(crate) objects: u64,
    /// An object's share of its slab's pages: its size, its padding, and its part of what is
    /// left over at the slab's end.
    pub(crate) bytes_each: f64,
    /// By how much the count may be off: the slabs that processors are allocating from count as
    /// full.
    pub(crate) slack_objects: u64,
}

impl Cache {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }
}

/// All caches at one moment, by directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slabs(pub(crate) BTreeMap<String, Cache>);

impl Slabs {
    /// Reads every cache under `root`, which is `/sys/kernel/slab` outside tests.
    pub(crate) fn read(root: &Path) -> io::Result<Slabs> {
        let cpus = machine::cores();
        let mut caches = BTreeMap::<String, Cache>::new();
        let mut links = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_symlink() {
                let group = fs::read_link(entry.path())?;
                links.push((name, group.to_string_lossy().into_owned()));
                continue;
            }
            // A cache may vanish between the listing and the reading of it.
            let Ok(cache) = read_cache(&entry.path(), &name, cpus) else { continue };
            caches.insert(name, cache);
        }
        for (name, group) in links {
            if let Some(cache) = caches.get_mut(&group) {
                cache.names.push(name);
            }
        }
        for cache in caches.values_mut() {
            cache.names.sort();
        }
        Ok(Slabs(caches))
    }
}

fn read_cache(directory: &Path, name: &str, cpus: u64) -> io::Result<Cache> {
    let number = |file: &str| -> io::Result<u64> {
        let text = fs::read_to_string(directory.join(file))?;
        // The count is followed by the same count by memory node.
        let first = text.split_whitespace().next().unwrap_or_default();
        first.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, text.clone()))
    };
    let slab_bytes = PAGE_BYTES << number("order")?;
    let objects_per_slab = number("objs_per_slab")?.max(1);
    // The group's own name says only its size; its links are what it is called.
    let names = if name.starts_with(':') { Vec::new() } else { vec![name.to_owned()] };
    Ok(Cache {
        names,
        objects: number("objects")?,
        bytes_each: slab_bytes as f64 / objects_per_slab as f64,
        slack_objects: cpus * SLABS_PER_CPU * objects_per_slab,
    })
}

/// The one in use and the partly filled ones kept beside it, of small objects.
const SLABS_PER_CPU: u64 = 3;

/// `order` counts pages of the machine; slab caches are not on other page sizes here.
pub(crate) const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that links are resolved, the first number of a line is the count, and the price
    /// of an object includes its share of the slab.
    #[test]
    fn merged_caches_are_one_group_under_all_their_names() {
        let root = std::env::temp_dir().join(format!("murre-load-slab-{}", std::process::id()));
        for (name, objects, per_slab, order) in
            [("TCP", "26 N0=26\n", "13\n", "3\n"), (":A-0000128", "64 N0=64\n", "32\n", "0\n")]
        {
            let cache = root.join(name);
            fs::create_dir_all(&cache).unwrap();
            fs::write(cache.join("objects"), objects).unwrap();
            fs::write(cache.join("objs_per_slab"), per_slab).unwrap();
            fs::write(cache.join("order"), order).unwrap();
        }
        for name in ["tcp_bind_bucket", "eventpoll_epi"] {
            std::os::unix::fs::symlink(":A-0000128", root.join(name)).unwrap();
        }
        let slabs = Slabs::read(&root);
        fs::remove_dir_all(&root).unwrap();

        let slabs = slabs.unwrap();
        let tcp = &slabs.0["TCP"];
        assert!(tcp.is("TCP") && tcp.objects == 26);
        assert_eq!(tcp.bytes_each.round(), 2521.0);
        let group = &slabs.0[":A-0000128"];
        assert_eq!(group.names, ["eventpoll_epi", "tcp_bind_bucket"]);
        assert_eq!((group.objects, group.bytes_each), (64, 128.0));
    }
}
