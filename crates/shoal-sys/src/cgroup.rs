//! Where the limits of a container or a service are written: the control groups of this process.
//!
//! A limit may sit on any ancestor, so all that are visible are looked at. Both versions can be mounted side by side,
//! each controller being in one of them; a controller that is not mounted limits nothing that we could read.

use std::fs;
use std::path::{Path, PathBuf};

/// One control group: the version that says how its files are named, and the directory that they are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Group {
    V1(PathBuf),
    V2(PathBuf),
}

impl Group {
    /// The text of one of its files; `None` if there is no such file (the root has no limits, for one).
    pub(crate) fn read(&self, file: &str) -> Option<String> {
        let (Group::V1(directory) | Group::V2(directory)) = self;
        fs::read_to_string(directory.join(file)).ok()
    }
}

/// The groups of this process that may limit what `controller` ("memory", "cpu") counts, from its own upwards.
pub(crate) fn groups(controller: &str) -> Vec<Group> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"), controller)
}

/// The text of a file of the groups that may limit what `controller` counts, from this process's own upwards. The file
/// has a name for each version; groups without it are left out.
pub fn texts(controller: &str, v1: &str, v2: &str) -> Vec<String> {
    let read = |group: Group| group.read(if matches!(group, Group::V1(_)) { v1 } else { v2 });
    groups(controller).into_iter().filter_map(read).collect()
}

/// [`groups`] from the text of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn parse(cgroup: &str, mountinfo: &str, controller: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in cgroup.lines() {
        // hierarchy:controllers:path, the controllers empty in version 2
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|name| name == controller) {
            continue;
        }
        let mounts = mountinfo.lines().filter_map(|line| mount(line, (!v2).then_some(controller)));
        if let Some(directories) = ancestors(mounts, Path::new(path)) {
            groups.extend(directories.into_iter().map(if v2 { Group::V2 } else { Group::V1 }));
        }
    }
    groups
}

/// The (root, mount point) of a line of mountinfo that mounts version 2, or version 1 with this controller.
fn mount(line: &str, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
    // id parent device root point options [optional…] - type source superoptions
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let wanted = match controller {
        None => kind == "cgroup2",
        Some(controller) => kind == "cgroup" && options.split(',').any(|name| name == controller),
    };
    wanted.then(|| (unescape(root), unescape(point)))
}

/// The directories of a group and of its ancestors, as far as the mount shows them.
fn ancestors(mounts: impl Iterator<Item = (PathBuf, PathBuf)>, path: &Path) -> Option<Vec<PathBuf>> {
    let mut fallback = None;
    for (root, point) in mounts {
        if let Ok(inside) = path.strip_prefix(&root)
            && !inside.starts_with("..")
        {
            return Some(inside.ancestors().map(|ancestor| point.join(ancestor)).collect());
        }
        fallback.get_or_insert(point);
    }
    // A container that sees its own group as the mount's root, but a path from outside: the mount point is that group.
    fallback.map(|point| vec![point])
}

/// Undoes mountinfo's escapes of blanks and backslashes (`\040`).
fn unescape(field: &str) -> PathBuf {
    let plain = field.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\012", "\n");
    PathBuf::from(plain.replace(r"\134", r"\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "\
        31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory\n";

    fn v1(directories: &[&str]) -> Vec<Group> {
        directories.iter().map(|directory| Group::V1(directory.into())).collect()
    }

    fn v2(directories: &[&str]) -> Vec<Group> {
        directories.iter().map(|directory| Group::V2(directory.into())).collect()
    }

    #[test]
    fn in_version_2_every_ancestor_counts_for_every_controller() {
        let expected = v2(&["/sys/fs/cgroup/user.slice/job.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/"]);
        for controller in ["memory", "cpu"] {
            assert_eq!(parse("0::/user.slice/job.scope\n", V2, controller), expected);
        }
    }

    #[test]
    fn in_version_1_a_controller_has_its_own_mount() {
        let cgroup = "5:memory:/job\n4:cpu,cpuacct:/\n1:name=systemd:/x\n";
        assert_eq!(parse(cgroup, V1, "memory"), v1(&["/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory/"]));
        assert_eq!(parse(cgroup, V1, "cpu"), v1(&["/sys/fs/cgroup/cpu,cpuacct/"]));
        assert_eq!(parse(cgroup, V1, "pids"), []);
    }

    #[test]
    fn both_versions_side_by_side_both_count() {
        let mountinfo = format!("{V1}33 30 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let mut expected = v1(&["/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory/"]);
        expected.extend(v2(&["/sys/fs/cgroup/unified/"]));
        assert_eq!(parse("4:memory:/job\n0::/\n", &mountinfo, "memory"), expected);
    }

    #[test]
    fn a_container_that_is_mounted_at_its_own_group_sees_that_one() {
        let mountinfo = "40 39 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let expected = v1(&["/sys/fs/cgroup/memory/"]);
        assert_eq!(parse("5:memory:/docker/abc\n", mountinfo, "memory"), expected);
    }

    #[test]
    fn a_path_outside_of_the_mount_means_the_mount_point() {
        let expected = v2(&["/sys/fs/cgroup"]);
        assert_eq!(parse("0::/../other\n", V2, "memory"), expected);
        let elsewhere = "29 23 0:26 /pod1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(parse("0::/pod2/job\n", elsewhere, "memory"), expected);
    }

    #[test]
    fn blanks_in_names_are_understood() {
        let mountinfo = "29 23 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n";
        assert_eq!(parse("0::/a:b c\n", mountinfo, "cpu"), v2(&["/my groups/a:b c", "/my groups/"]));
    }

    #[test]
    fn no_control_groups_are_no_groups() {
        assert_eq!(parse("", "", "memory"), []);
        assert_eq!(parse("0::/\n", "22 1 8:1 / / rw - ext4 /dev/root rw\n", "memory"), []);
    }

    #[test]
    fn the_outermost_group_of_this_process_is_a_directory() {
        if let Some(Group::V1(directory) | Group::V2(directory)) = groups("memory").last() {
            assert!(directory.is_dir(), "{directory:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_has_no_text() {
        assert_eq!(Group::V2("/proc/self".into()).read("memory.max"), None);
        assert!(Group::V2("/proc/self".into()).read("stat").is_some());
    }
}
