//! A temporary directory stands in for the cgroup2 tree; the tests play the kernel where it would
//! make files appear or vanish.

use super::*;
use tempfile::TempDir;

/// A cgroup with the interface files that are read before they are written.
fn cgroup(path: &Path, kind: &str) {
    fs::create_dir_all(path).unwrap();
    for (file, text) in [
        ("cgroup.type", kind),
        ("cgroup.controllers", "cpuset cpu io\n"),
        ("cgroup.subtree_control", "\n"),
        ("cpu.weight", "100\n"),
    ] {
        fs::write(path.join(file), text).unwrap();
    }
}

fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    cgroup(tree.path(), "domain\n");
    tree
}

fn group(path: &str, weight: Option<u32>) -> Taskgroup {
    Taskgroup {
        path: path.to_owned(),
        weight,
    }
}

fn set_up(tree: &TempDir, groups: &[Taskgroup]) -> Result<Taskgroups, String> {
    Taskgroups::set_up_in(tree.path().to_owned(), groups).map_err(|error| format!("{error:#}"))
}

fn text(tree: &TempDir, file: &str) -> String {
    fs::read_to_string(tree.path().join(file)).unwrap()
}

/// The kernel lets a group's interface files go with it.
fn empty(tree: &TempDir, group: &str) {
    for file in fs::read_dir(tree.path().join(group)).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
}

#[test]
fn a_new_group_is_threaded_has_its_weight_and_is_removed() {
    let tree = tree();
    let groups = [group("/heavy", Some(300)), group("/plain", None)];
    let made = set_up(&tree, &groups).unwrap();
    assert_eq!(text(&tree, "cgroup.subtree_control"), "+cpu");
    assert_eq!(text(&tree, "heavy/cgroup.type"), "threaded");
    assert_eq!(text(&tree, "heavy/cpu.weight"), "300");
    assert!(!tree.path().join("plain/cpu.weight").exists());
    empty(&tree, "heavy");
    empty(&tree, "plain");
    made.put_back().unwrap();
    assert!(!tree.path().join("heavy").exists() && !tree.path().join("plain").exists());
    assert_eq!(text(&tree, "cgroup.subtree_control"), "-cpu");
}

#[test]
fn a_group_that_was_there_stays_and_gets_its_weight_back() {
    let tree = tree();
    cgroup(&tree.path().join("old"), "threaded\n");
    fs::write(tree.path().join("old/cpu.weight"), "77\n").unwrap();
    let groups = [group("/old", Some(300)), group("/old/new", Some(5))];
    let made = set_up(&tree, &groups).unwrap();
    assert_eq!(text(&tree, "old/cpu.weight"), "300");
    assert_eq!(text(&tree, "old/new/cpu.weight"), "5");
    assert_eq!(text(&tree, "old/cgroup.subtree_control"), "+cpu");
    empty(&tree, "old/new");
    made.put_back().unwrap();
    assert!(!tree.path().join("old/new").exists());
    assert_eq!(text(&tree, "old/cpu.weight"), "77");
    assert_eq!(text(&tree, "old/cgroup.subtree_control"), "-cpu");
}

#[test]
fn a_controller_that_was_handed_down_already_stays_so() {
    let tree = tree();
    let before = "cpuset cpu\n";
    fs::write(tree.path().join("cgroup.subtree_control"), before).unwrap();
    let made = set_up(&tree, &[group("/g", None)]).unwrap();
    empty(&tree, "g");
    made.put_back().unwrap();
    assert_eq!(text(&tree, "cgroup.subtree_control"), before);
}

#[test]
fn a_thread_joins_by_its_own_number() {
    let tree = tree();
    let made = set_up(&tree, &[group("/g", None)]).unwrap();
    let number = thread::scope(|scope| {
        let joins = scope.spawn(|| {
            made.join("/g").unwrap();
            gettid().to_string()
        });
        joins.join().unwrap()
    });
    assert_eq!(text(&tree, "g/cgroup.threads"), number);
    assert_ne!(number, gettid().to_string());
}

#[test]
fn a_failure_halfway_undoes_what_came_before() {
    let tree = tree();
    cgroup(&tree.path().join("a"), "threaded\n");
    cgroup(&tree.path().join("b"), "domain\n");
    let said = set_up(&tree, &[group("/a", Some(9)), group("/b", None)]).unwrap_err();
    assert!(
        said.contains("/b/cgroup.type: is 'domain', must be 'threaded'"),
        "{said}"
    );
    assert_eq!(text(&tree, "a/cpu.weight"), "100");
    assert_eq!(text(&tree, "cgroup.subtree_control"), "-cpu");
    assert_eq!(text(&tree, "b/cgroup.type"), "domain\n");
}

#[test]
fn what_cannot_be_put_back_is_told_and_the_rest_is_put_back() {
    let tree = tree();
    let made = set_up(&tree, &[group("/g", None)]).unwrap();
    // the interface files are left: to this file system the group is not empty
    let said = format!("{:#}", made.put_back().unwrap_err());
    assert!(said.contains("/g: cannot be removed"), "{said}");
    assert_eq!(text(&tree, "cgroup.subtree_control"), "-cpu");
}

#[test]
fn a_cgroup_without_the_cpu_controller_is_refused_and_left_alone() {
    let tree = tree();
    fs::write(tree.path().join("cgroup.controllers"), "memory cpuset\n").unwrap();
    let said = set_up(&tree, &[group("/g", None)]).unwrap_err();
    assert!(
        said.contains("cgroup.controllers: has no cpu controller, only 'memory cpuset'")
            && said.contains("Delegate=yes")
            && !said.contains('\n'),
        "{said}"
    );
    assert!(!tree.path().join("g").exists());
    assert_eq!(text(&tree, "cgroup.subtree_control"), "\n");
}

#[test]
fn what_may_not_be_written_is_named_with_a_remedy() {
    let tree = tree();
    // nothing can be written below a file, not even by root
    fs::write(tree.path().join("file"), "").unwrap();
    let made = set_up(&tree, &[]).unwrap();
    let said = format!("{:#}", made.join("/file").unwrap_err());
    assert!(
        said.contains("/file/cgroup.threads: does not take '") && said.contains("run as root"),
        "{said}"
    );
    let said = set_up(&tree, &[group("/missing/g", None)]).unwrap_err();
    assert!(
        said.contains("/missing/cgroup.subtree_control: cannot be read: No such file"),
        "{said}"
    );
}

#[test]
fn no_groups_need_no_cgroups() {
    Taskgroups::set_up(&[]).unwrap().put_back().unwrap();
}

const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
const OTHERS: &str = "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";

fn own(mounts: &str, cgroup: &str) -> Result<PathBuf, String> {
    own_cgroup(mounts, cgroup).map_err(|error| error.to_string())
}

#[test]
fn the_own_cgroup_is_found_below_its_mount() {
    let found = |mounts: &str, cgroup| own(&format!("{OTHERS}{mounts}"), cgroup).unwrap();
    assert_eq!(found(V2, "1:cpu:/x\n0::/\n"), Path::new("/sys/fs/cgroup"));
    assert_eq!(
        found(V2, "0::/user.slice/me\n"),
        Path::new("/sys/fs/cgroup/user.slice/me")
    );
    let part = "40 23 0:26 /user.slice /mnt/my\\040part rw - cgroup2 none rw\n";
    assert_eq!(
        found(part, "0::/user.slice/me\n"),
        Path::new("/mnt/my part/me")
    );
    // the first mount that shows it
    let both = format!("{part}{V2}");
    assert_eq!(
        found(&both, "0::/system.slice\n"),
        Path::new("/sys/fs/cgroup/system.slice")
    );
}

#[test]
fn without_cgroup2_the_error_says_what_to_mount() {
    let said = own(OTHERS, "0::/\n").unwrap_err();
    assert!(
        said.contains("/proc/self/mountinfo: no cgroup2 is mounted: mount -t cgroup2"),
        "{said}"
    );
    let said = own(V2, "1:cpu:/\n").unwrap_err();
    assert!(
        said.contains("/proc/self/cgroup: has no line '0::'"),
        "{said}"
    );
    let part = V2.replace(" / /sys", " /other /sys");
    let said = own(&part, "0::/mine\n").unwrap_err();
    assert!(
        said.contains("'/mine' is outside of every cgroup2"),
        "{said}"
    );
    assert!(own("", "").is_err() && own("- cgroup2\n - cgroup2 x\n", "0::/\n").is_err());
}
